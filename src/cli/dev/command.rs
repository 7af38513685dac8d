//! The command that runs beside the daemon.

use crate::cli::{CliError, Report};
use crate::stack::{StackError, spawn_command};
use futures::StreamExt;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGCHLD, SIGINT};
use signal_hook_tokio::Signals;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

/// What shells add to the number of the signal that ended a program.
const SIGNALLED: i32 = 128;

/// A command at work.
pub(super) struct Command {
    child: Child,
}

impl Command {
    /// Starts it on our terminal, in our folder, with `env` added to our environment.
    pub(super) fn start(
        words: &[OsString],
        env: &[(&'static str, OsString)],
    ) -> Result<Self, StackError> {
        let child = spawn_command(words, env)?;
        Ok(Self { child })
    }

    /// Waits for its end, handing on what is signalled to us; answers with its exit code.
    pub(super) async fn ended(mut self, signals: &mut Signals) -> Result<Report, CliError> {
        loop {
            match signals.next().await {
                // Jobs have children too, so this may be the end of another one.
                Some(SIGCHLD) | None => match self.child.try_wait() {
                    Ok(Some(status)) => return Ok(Report::silent().exiting(code(status))),
                    Ok(None) => {}
                    Err(error) => return Err(super::failed(error)),
                },
                Some(signal) => self.hand_on(signal),
            }
        }
    }

    fn hand_on(&self, signal: i32) {
        // An interrupt typed at the terminal reaches the command without us.
        if signal == SIGINT && std::io::stdin().is_terminal() {
            return;
        }
        // It can't have been waited for yet, so the id is still its own.
        if let Some(signal) = Signal::from_named_raw(signal) {
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }
}

/// Its exit code, or what a shell makes of the signal that ended it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|s| SIGNALLED + s));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}
