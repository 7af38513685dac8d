//! The conversation with a child over its three pipes.
//!
//! Owns: how much of its output is kept. All three pipes are served at once, so that neither side ever waits for the
//! other, and everything is read, so that a child that writes a lot is not held up. Must not know why it was started.

use super::process::Pipes;
use serde_json::Value;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

/// How much is read at a time, bytes.
const CHUNK: usize = 8 * 1024;

/// What is kept of a child's output.
#[derive(Debug)]
pub(super) struct Output {
    head: Head,
    tail: Tail,
}

impl Output {
    /// Keeps the first `max_output` bytes of standard output and the last of standard error, of those at most
    /// `max_tail`.
    pub(super) fn new(max_output: usize, max_tail: usize) -> Self {
        Self {
            head: Head::new(max_output),
            tail: Tail::new(max_output.min(max_tail)),
        }
    }

    /// Writes the line, and reads both outputs to their ends. What was read is kept even if this is dropped half-way.
    pub(super) async fn talk(&mut self, pipes: Pipes, line: Vec<u8>) {
        let mut stdin = pipes.stdin;
        let write = async move {
            // A child need not read its input: a closed pipe is its choice, and its exit code says the rest.
            let _ = stdin.write_all(&line).await;
        };
        let Self { head, tail } = self;
        // A pipe that can't be read any more has ended, as far as its output goes.
        let _ = tokio::join!(
            write,
            read(pipes.stdout, |chunk| head.push(chunk)),
            read(pipes.stderr, |chunk| tail.push(chunk)),
        );
    }

    /// Standard output, if all of it was kept and it is one JSON value.
    pub(super) fn result(&self) -> Option<Value> {
        if self.head.cut {
            return None;
        }
        serde_json::from_slice(&self.head.kept).ok()
    }

    /// The end of standard error as text, at most as many bytes as are kept.
    pub(super) fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail.kept);
        // A replacement character is longer than the byte it stands for.
        let excess = text.len().saturating_sub(self.tail.max);
        let start = (excess..=text.len()).find(|&i| text.is_char_boundary(i));
        text[start.unwrap_or(text.len())..].trim().to_owned()
    }
}

async fn read(mut from: impl AsyncRead + Unpin, mut keep: impl FnMut(&[u8])) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk).await? {
            0 => return Ok(()),
            n => keep(&chunk[..n]),
        }
    }
}

/// The first `max` bytes of a stream.
#[derive(Debug)]
struct Head {
    kept: Vec<u8>,
    max: usize,
    cut: bool,
}

impl Head {
    const fn new(max: usize) -> Self {
        Self {
            kept: Vec::new(),
            max,
            cut: false,
        }
    }

    fn push(&mut self, chunk: &[u8]) {
        let room = self.max - self.kept.len();
        self.kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
        self.cut |= chunk.len() > room;
    }
}

/// The last `max` bytes of a stream.
#[derive(Debug)]
struct Tail {
    kept: Vec<u8>,
    max: usize,
}

impl Tail {
    const fn new(max: usize) -> Self {
        Self {
            kept: Vec::new(),
            max,
        }
    }

    fn push(&mut self, chunk: &[u8]) {
        self.kept.extend_from_slice(chunk);
        let excess = self.kept.len().saturating_sub(self.max);
        self.kept.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn output(max: usize, out: &[u8], err: &[u8]) -> Output {
        let mut output = Output::new(max, max);
        output.head.push(out);
        output.tail.push(err);
        output
    }

    #[test]
    fn only_one_whole_json_value_is_a_result() {
        let result = |out: &[u8]| output(16, out, b"").result();
        assert_eq!(result(b" {\"n\":1}\n"), Some(serde_json::json!({"n": 1})));
        assert_eq!(result(b"7"), Some(serde_json::json!(7)));
        for none in [&b""[..], b"done", b"1 2", b"{\"n\":", b"\xff"] {
            assert_eq!(result(none), None, "{none:?}");
        }
        // The first 16 bytes alone would be a number.
        assert_eq!(result(b"1234567890123456x"), None);
    }

    #[test]
    fn last_words_are_text_whatever_was_written() {
        assert_eq!(output(8, b"", b"first\nlast\n").last_words(), "st\nlast");
        assert_eq!(output(4, b"", "éé".as_bytes()).last_words(), "éé");
        assert_eq!(output(4, b"", b"\xff\xff\xff\xff").last_words(), "\u{fffd}");
        assert_eq!(output(0, b"", b"words").last_words(), "");
    }

    proptest! {
        #[test]
        fn kept_output_is_bounded(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
            max in 0_usize..64,
        ) {
            let all = chunks.concat();
            let (mut head, mut tail) = (Head::new(max), Tail::new(max));
            for chunk in &chunks {
                head.push(chunk);
                tail.push(chunk);
            }
            prop_assert_eq!(&head.kept[..], &all[..all.len().min(max)]);
            prop_assert_eq!(head.cut, all.len() > max);
            prop_assert_eq!(&tail.kept[..], &all[all.len().saturating_sub(max)..]);
        }
    }
}
