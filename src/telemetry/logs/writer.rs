//! The thread that writes log lines.
//!
//! Owns a bounded buffer between the daemon and whoever reads its log. A reader that keeps up loses nothing, also at
//! exit. One that stalls must not stall jobs: the buffer then fills, and what no longer fits is dropped, counted, and
//! the count is logged as `log_lines_lost` once there is room. The last half of the buffer is kept for warnings and
//! errors, so that a flood of successes cannot push those out. Must not know what a line says.

use super::Format;
use crate::clock;
use parking_lot::{Condvar, Mutex};
use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Bytes of waiting lines: minutes of log at the default sampling. Our choice.
const CAPACITY: usize = 8 << 20;
/// How long the last lines may take to be written when the writer is dropped.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);
/// Memory kept by an empty buffer.
const IDLE_CAPACITY: usize = 64 << 10;

/// Owner of the writing thread.
#[derive(Debug)]
pub(super) struct LogWriter {
    handle: Handle,
}

/// The way in for lines. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    filled: Condvar,
    finished: Condvar,
}

#[derive(Debug, Default)]
struct Buffer {
    lines: Vec<u8>,
    lost: u64,
    closed: bool,
    finished: bool,
}

impl LogWriter {
    /// Starts the thread.
    pub(super) fn spawn(format: Format, sink: Box<dyn Write + Send>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || for_thread.write_all(format, sink))?;
        Ok(Self {
            handle: Handle { shared },
        })
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Takes no more lines and waits until all are written, but not beyond `deadline`: a stuck reader must not keep
    /// the process alive. Whether all were written.
    pub(super) fn close(&self, deadline: Duration) -> bool {
        let shared = &self.handle.shared;
        let mut buffer = shared.buffer.lock();
        buffer.closed = true;
        shared.filled.notify_one();
        shared
            .finished
            .wait_while_for(&mut buffer, |b| !b.finished, deadline);
        buffer.finished
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.close(FLUSH_DEADLINE);
    }
}

impl Handle {
    /// Queues one line, without its end. `urgent` ones may use the whole buffer. Never waits for the reader.
    pub(super) fn push(&self, line: &str, urgent: bool) {
        let limit = if urgent { CAPACITY } else { CAPACITY / 2 };
        let mut buffer = self.shared.buffer.lock();
        if buffer.closed || buffer.lines.len() + line.len() >= limit {
            buffer.lost += 1;
            return;
        }
        let was_empty = buffer.lines.is_empty();
        buffer.lines.extend_from_slice(line.as_bytes());
        buffer.lines.push(b'\n');
        drop(buffer);
        if was_empty {
            self.shared.filled.notify_one();
        }
    }
}

impl Shared {
    /// The thread: swap the buffer out, write it in one go, until closed and empty. A log that cannot be written has
    /// nobody to be told to, so errors of the sink are passed over.
    fn write_all(&self, format: Format, mut sink: Box<dyn Write + Send>) {
        let mut batch = Vec::new();
        loop {
            let mut buffer = self.buffer.lock();
            self.filled
                .wait_while(&mut buffer, |b| b.lines.is_empty() && !b.closed);
            if buffer.lines.is_empty() {
                break;
            }
            std::mem::swap(&mut buffer.lines, &mut batch);
            let lost = std::mem::take(&mut buffer.lost);
            drop(buffer);

            if lost > 0 {
                batch.extend_from_slice(lost_line(format, lost).as_bytes());
            }
            let _ = sink.write_all(&batch).and_then(|()| sink.flush());
            batch.clear();
            batch.shrink_to(IDLE_CAPACITY);
        }
        self.buffer.lock().finished = true;
        self.finished.notify_all();
    }
}

fn lost_line(format: Format, lost: u64) -> String {
    let at = clock::rfc3339(clock::unix_ms());
    match format {
        Format::Json => format!(
            "{{\"timestamp\":\"{at}\",\"level\":\"WARN\",\"event\":\"log_lines_lost\",\"count\":{lost}}}\n"
        ),
        Format::Pretty => format!("{at}  WARN event=\"log_lines_lost\" count={lost}\n"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc;

    /// A reader that takes nothing until told to, then everything.
    struct Gated {
        open: mpsc::Receiver<()>,
        entered: mpsc::Sender<()>,
        is_open: bool,
        read: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.is_open {
                self.entered.send(()).unwrap();
                self.open.recv().unwrap();
                self.is_open = true;
            }
            self.read.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_lines_are_written_at_exit() {
        let read = Arc::new(Mutex::new(Vec::new()));
        let (open, open_rx) = mpsc::channel();
        let (entered, _entered_rx) = mpsc::channel();
        open.send(()).unwrap();
        let sink = Gated {
            open: open_rx,
            entered,
            is_open: false,
            read: Arc::clone(&read),
        };
        let writer = LogWriter::spawn(Format::Json, Box::new(sink)).unwrap();
        let handle = writer.handle();
        for n in 0..10_000 {
            handle.push(&n.to_string(), false);
        }
        assert!(writer.close(Duration::from_secs(30)));
        let read = String::from_utf8(read.lock().clone()).unwrap();
        let lines: Vec<usize> = read.lines().map(|l| l.parse().unwrap()).collect();
        assert_eq!(lines, (0..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_is_told_how_many() {
        let read = Arc::new(Mutex::new(Vec::new()));
        let (open, open_rx) = mpsc::channel();
        let (entered, entered_rx) = mpsc::channel();
        let sink = Gated {
            open: open_rx,
            entered,
            is_open: false,
            read: Arc::clone(&read),
        };
        let writer = LogWriter::spawn(Format::Json, Box::new(sink)).unwrap();
        let handle = writer.handle();

        handle.push("first", false);
        entered_rx.recv_timeout(Duration::from_secs(10)).unwrap();
        // The thread now hangs in the sink. None of this may wait for it.
        let line = "x".repeat(1023);
        let fits = CAPACITY / 2 / 1024;
        for _ in 0..fits + 100 {
            handle.push(&line, false);
        }
        handle.push("an error", true);
        assert!(!writer.close(Duration::from_millis(10)), "it is stuck");

        open.send(()).unwrap();
        assert!(writer.close(Duration::from_secs(30)));
        let read = String::from_utf8(read.lock().clone()).unwrap();
        assert!(read.starts_with("first\n"));
        assert!(read.contains("\nan error\n"));
        assert!(
            read.ends_with("\"event\":\"log_lines_lost\",\"count\":100}\n"),
            "{}",
            &read[read.len() - 200..]
        );
        assert_eq!(read.lines().filter(|l| *l == line).count(), fits);
    }
}
