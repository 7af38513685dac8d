//! Log lines: their form, their filter, and the thread that writes them.
//!
//! Owns the one subscriber of the process. Every event becomes exactly one line, whatever its text holds: control
//! characters are escaped when the line is handed to the writer, so no message can fake a second one. Must not know
//! which events there are.
//!
//! Lines are written by a thread of their own, so that a slow reader of the log cannot stall jobs; what that costs is
//! told in `writer`.

mod escape;
mod writer;

use crate::clock;
use crate::config::{LogConfig, LogFormat};
use escape::LineMaker;
pub use escape::escape;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use writer::LogWriter;

/// Where lines go. The daemon logs to stdout, as a supervisor expects; commands that print a result on stdout log to
/// stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output: `tidegate run`.
    Stdout,
    /// Standard error: every other command.
    Stderr,
}

impl Stream {
    fn is_terminal(self) -> bool {
        match self {
            Self::Stdout => io::stdout().is_terminal(),
            Self::Stderr => io::stderr().is_terminal(),
        }
    }

    fn open(self) -> Box<dyn Write + Send> {
        match self {
            Self::Stdout => Box::new(io::stdout()),
            Self::Stderr => Box::new(io::stderr()),
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum LogError {
    /// `log.level` is no filter.
    #[error("log.level: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process has a subscriber already.
    #[error("logging is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    /// The thread that writes could not be started.
    #[error("log writer: {0}")]
    Thread(#[from] io::Error),
    /// The file to log to can't be written.
    #[error("log file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// Holds the log open. Keep it until the process ends: dropping it writes what is still waiting.
#[derive(Debug)]
pub struct Logs {
    _writer: LogWriter,
}

/// Sets up logging for the whole process: the subscriber, and a panic hook that logs instead of printing.
///
/// # Errors
/// If the level is no filter, logging was set up before, or no thread could be started.
pub fn init(config: &LogConfig, stream: Stream) -> Result<Logs, LogError> {
    set_up(config, stream.is_terminal(), stream.open())
}

/// The same, into a file that is written anew.
///
/// # Errors
/// Likewise; also if the file can't be written.
pub fn init_file(config: &LogConfig, path: &Path) -> Result<Logs, LogError> {
    let file = File::create(path).map_err(|source| LogError::File {
        path: path.to_owned(),
        source,
    })?;
    set_up(config, false, Box::new(file))
}

fn set_up(
    config: &LogConfig,
    terminal: bool,
    sink: Box<dyn Write + Send>,
) -> Result<Logs, LogError> {
    let format = Format::choose(config.format, terminal);
    let filter = EnvFilter::try_new(&config.level)?;
    let writer = LogWriter::spawn(format, sink)?;
    subscriber(format, filter, LineMaker::new(writer.handle())).try_init()?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(Logs { _writer: writer })
}

/// The form of a line, once `auto` is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Pretty,
}

impl Format {
    fn choose(configured: LogFormat, terminal: bool) -> Self {
        match configured {
            LogFormat::Json => Self::Json,
            LogFormat::Pretty => Self::Pretty,
            LogFormat::Auto if terminal => Self::Pretty,
            LogFormat::Auto => Self::Json,
        }
    }
}

fn subscriber<W>(format: Format, filter: EnvFilter, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false);
    match format {
        Format::Json => Box::new(
            builder
                .json()
                .with_timer(Timestamp)
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .finish(),
        ),
        Format::Pretty => Box::new(builder.event_format(OneLine).finish()),
    }
}

/// RFC 3339 in UTC with milliseconds.
struct Timestamp;

impl FormatTime for Timestamp {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        w.write_str(&clock::rfc3339(clock::unix_ms()))
    }
}

/// `2026-01-31T12:00:00.000Z  INFO message field=value …`: one line, without spans.
struct OneLine;

impl<S, N> FormatEvent<S, N> for OneLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        Timestamp.format_time(&mut writer)?;
        write!(writer, " {:>5} ", event.metadata().level())?;
        ctx.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// A panic is logged as an event like any other trouble; its text may come from a hostile payload.
fn log_panic(info: &std::panic::PanicHookInfo<'_>) {
    let error = info.payload_as_str().unwrap_or("no message");
    let place = info.location().map(ToString::to_string);
    tracing::error!(
        event = "panic",
        error = super::clip(error),
        place,
        "a task panicked"
    );
}

#[cfg(test)]
pub(super) mod tests;
