//! What can go wrong when a private server is started, and what the reader can do about it.

use std::{io, path::PathBuf, process::ExitStatus};

use thiserror::Error;

/// Why a private server could not be started, stopped or signalled. Every message names the remedy where there is one.
#[derive(Debug, Error)]
pub enum StackError {
    /// A program is neither on `PATH` nor where distributions install it.
    #[error("{program} was not found; install it ({packages}), or run `make setup`")]
    Missing {
        /// The program looked for.
        program: &'static str,
        /// The packages that bring it, by package manager.
        packages: &'static str,
    },
    /// A folder or file could not be prepared.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The folder for a new database cluster already holds something else.
    #[error("{} is not empty and holds no database of ours; give the private server an empty folder", .0.display())]
    FolderTaken(PathBuf),
    /// The unprivileged user that must run Postgres cannot enter the folder.
    #[error("user {user} cannot enter {}; choose a folder that every user can reach, such as one under /tmp", path.display())]
    Unreachable {
        /// The user Postgres would run as.
        user: String,
        /// The folder.
        path: PathBuf,
    },
    /// Postgres refuses to run as root and there is no other user to run it as.
    #[error(
        "Postgres does not run as root, and there is no user `postgres` or `nobody` to run it as; create one"
    )]
    NoUser,
    /// The operating system refused to start a program.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system answered.
        source: io::Error,
    },
    /// A program ended by itself: a server before it was ready, or a tool with a failure.
    #[error("{program} ended with {status}; the end of its log:\n{log}")]
    Ended {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it wrote.
        log: String,
    },
    /// A program runs but did not become ready, or did not finish, in time.
    #[error("{program} was not ready within {seconds} s; the end of its log:\n{log}")]
    Late {
        /// The program.
        program: String,
        /// How long was waited.
        seconds: u64,
        /// The last lines it wrote.
        log: String,
    },
    /// Every port tried was taken by somebody else before the server could bind it.
    #[error("{program} found no free port in {attempts} attempts")]
    NoPort {
        /// The program.
        program: &'static str,
        /// How many ports were tried.
        attempts: u32,
    },
    /// A signal could not be delivered.
    #[error("cannot signal {program}: {source}")]
    Signal {
        /// The program.
        program: String,
        /// What the system answered.
        source: io::Error,
    },
    /// The server is stopped and the call needs it running.
    #[error("{program} is not running; restart it first")]
    Stopped {
        /// The program.
        program: String,
    },
}

impl StackError {
    /// Whether a server ended because somebody else took its port first.
    pub(super) fn is_port_taken(&self) -> bool {
        // Both servers print the C library's text, and run under LC_ALL=C.
        matches!(self, Self::Ended { log, .. } if log.contains("Address already in use"))
    }
}

/// Makes the [`StackError::File`] of a failed file operation.
pub(super) fn on_file(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> StackError {
    let path = path.into();
    move |source| StackError::File {
        action,
        path,
        source,
    }
}
