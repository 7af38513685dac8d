//! A pipe by which a child tells how far it has come.
//!
//! The child finds the pipe as the path `$TIDEGATE_PROGRESS` (and as file descriptor 3). Each line it writes there is a
//! whole report, a JSON object of any of `percent` (0 to 100), `message` and `counters` (whole numbers by name):
//!
//! ```sh
//! echo '{"percent":40,"message":"indexing","counters":{"rows":1200}}' > "$TIDEGATE_PROGRESS"
//! ```
//!
//! Owns: how much of it is read and kept. All of it is read, so that a child that tells a lot is not held up; of each
//! chunk only the last whole line counts, so that a flood costs no more than any other output. A line that is no
//! report, or longer than a chunk, is dropped, and the first such line is told in the log: it must not fail a job.

use crate::handlers::Reporter;
use crate::job::Progress;
use crate::job::history::cut;
use command_fds::{CommandFdExt, FdMapping};
use std::io;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;

/// The descriptor of the pipe in the child.
const CHILD_FD: i32 = 3;
/// The longest line, and how much is read at a time, bytes.
const CHUNK: usize = 4 * 1024;
/// How much of a bad line the log shows, bytes.
const SHOWN: usize = 128;

/// Our end of the pipe.
#[derive(Debug)]
pub(super) struct Telling {
    pipe: Receiver,
}

impl Telling {
    /// Gives a command its end of a new pipe. It is open on our side until the command is dropped.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn offer(command: &mut Command) -> io::Result<Self> {
        let (ours, its) = io::pipe()?;
        let mapping = FdMapping {
            parent_fd: its.into(),
            child_fd: CHILD_FD,
        };
        command
            .env("TIDEGATE_PROGRESS", format!("/dev/fd/{CHILD_FD}"))
            .fd_mappings(vec![mapping])
            .map_err(io::Error::other)?;
        let pipe = Receiver::from_owned_fd(ours.into())?;
        Ok(Self { pipe })
    }
}

/// Passes on what a child tells, until nobody holds the other end of its pipe any more.
pub(super) async fn hear(telling: Option<Telling>, reporter: &Reporter) {
    let Some(Telling { mut pipe }) = telling else {
        return;
    };
    let mut lines = Lines::default();
    let mut chunk = vec![0; CHUNK];
    let mut complained = false;
    // A pipe that can't be read any more has ended.
    while let Ok(n @ 1..) = pipe.read(&mut chunk).await {
        let Some(line) = lines.last_whole(&chunk[..n]) else {
            continue;
        };
        match serde_json::from_slice::<Progress>(&line) {
            Ok(progress) => reporter.set(progress),
            Err(error) if !complained => {
                complained = true;
                let text = String::from_utf8_lossy(&line);
                let line = cut(&text, SHOWN);
                tracing::warn!(%error, line, "a child told its progress in a line that is no report");
            }
            Err(_) => {}
        }
    }
}

/// Whole lines out of chunks. Keeps less than a chunk.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
    /// The line that has begun is too long.
    skipping: bool,
}

impl Lines {
    /// The last line that ends within the chunk.
    fn last_whole(&mut self, chunk: &[u8]) -> Option<Vec<u8>> {
        let Some(end) = chunk.iter().rposition(|b| *b == b'\n') else {
            self.begin(chunk);
            return None;
        };
        let start = chunk[..end].iter().rposition(|b| *b == b'\n');
        let line = match start {
            Some(start) => Some(chunk[start + 1..end].to_vec()),
            None => {
                self.begin(&chunk[..end]);
                (!self.skipping).then(|| std::mem::take(&mut self.begun))
            }
        };
        self.begun.clear();
        self.skipping = false;
        self.begin(&chunk[end + 1..]);
        line.filter(|line| !line.trim_ascii().is_empty())
    }

    fn begin(&mut self, part: &[u8]) {
        self.skipping |= self.begun.len() + part.len() > CHUNK;
        if self.skipping {
            self.begun.clear();
        } else {
            self.begun.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_whole_line_counts_and_one_that_is_too_long_does_not() {
        let mut lines = Lines::default();
        assert_eq!(lines.last_whole(b"one"), None);
        assert_eq!(
            lines.last_whole(b" line\ntwo\nthr").as_deref(),
            Some(&b"two"[..])
        );
        assert_eq!(lines.last_whole(b"ee\n").as_deref(), Some(&b"three"[..]));
        assert_eq!(lines.last_whole(b"\n"), None);
        assert_eq!(lines.last_whole(&[b'x'; CHUNK]), None);
        assert_eq!(lines.last_whole(b"x"), None);
        assert_eq!(lines.last_whole(b"x\n"), None);
        assert_eq!(lines.last_whole(b"after\n").as_deref(), Some(&b"after"[..]));
    }

    proptest! {
        #[test]
        fn lines_come_whole_however_they_are_cut(
            text in proptest::collection::vec("[a-z]{1,20}", 1..20),
            size in 1_usize..30,
        ) {
            let all = text.join("\n") + "\n";
            let mut lines = Lines::default();
            let mut last = None;
            for chunk in all.as_bytes().chunks(size) {
                prop_assert!(chunk.len() <= CHUNK);
                last = lines.last_whole(chunk).or(last);
            }
            prop_assert_eq!(last.as_deref(), text.last().map(String::as_bytes));
        }
    }
}
