//! A child and its process group: started together, ended together.
//!
//! Owns: the promise that no member of the group outlives its [`Group`]. Dropping it kills the group at once, in the
//! drop itself; the end of the child kills whoever it left behind. The child's id doubles as the group's, so the group
//! is only ever signalled while the child has not been reaped: until then the kernel gives the id to nobody else.
//! A process that makes a group of its own (`setsid`) escapes; the service manager's control group holds that one.
//! Must not know what the child does or what its exit means.
//!
//! Needs Linux 5.3 (`pidfd_open`).

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::io;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

/// How long a child that was asked to stop may take to do so.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How a child came to its end.
#[derive(Debug)]
pub(super) enum Ended {
    /// It exited, or somebody else killed it.
    ByItself(ExitStatus),
    /// It was asked to stop, and is gone.
    Stopped,
}

/// A child that leads a process group of its own.
#[derive(Debug)]
pub(super) struct Group {
    child: Child,
    id: Pid,
    reaped: bool,
}

/// The three pipes to a child.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

impl Group {
    /// Starts a command, whose three streams must be piped, in a new process group.
    ///
    /// # Errors
    /// Those of starting a process: the program is not there, may not be run, no process or descriptor is left.
    pub(super) fn spawn(command: &mut Command) -> io::Result<(Self, Pipes)> {
        // The runtime reaps a child that is dropped before its end.
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let pipes = pipes.zip(child.stderr.take());
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let id = id.and_then(Pid::from_raw);
        let (Some(((stdin, stdout), stderr)), Some(id)) = (pipes, id) else {
            return Err(io::Error::other("a new child has no id or no pipes"));
        };
        let group = Self {
            child,
            id,
            reaped: false,
        };
        let pipes = Pipes {
            stdin,
            stdout,
            stderr,
        };
        Ok((group, pipes))
    }

    /// Waits for the end of the child: its own, or the one it is asked for (`SIGTERM` to the group, then `SIGKILL`)
    /// once `stop` is cancelled. Either way nobody is left in the group afterwards.
    ///
    /// # Errors
    /// Those of waiting for a process.
    pub(super) async fn end(&mut self, stop: &CancellationToken) -> io::Result<Ended> {
        tokio::select! {
            biased;
            exited = self.exited() => exited?,
            () = stop.cancelled() => {
                self.signal(Signal::TERM);
                // Whoever ignores the request is killed below.
                if let Ok(exited) = tokio::time::timeout(STOP_GRACE, self.exited()).await {
                    exited?;
                }
                self.reap().await?;
                return Ok(Ended::Stopped);
            }
        }
        self.reap().await.map(Ended::ByItself)
    }

    /// Waits until the child has exited, without reaping it.
    #[expect(
        deprecated,
        reason = "the sound constructor is unsafe, for types that lie about their descriptor; OwnedFd does not"
    )]
    async fn exited(&self) -> io::Result<()> {
        let fd = pidfd_open(self.id, PidfdFlags::empty())?;
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        fd.readable().await.map(|_| ())
    }

    /// Kills the group and takes the child's exit status.
    async fn reap(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        let status = self.child.wait().await?;
        self.reaped = true;
        Ok(status)
    }

    fn signal(&self, signal: Signal) {
        // The only error left is that nobody but an exited child is in the group.
        let _ = kill_process_group(self.id, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(Signal::KILL);
        }
    }
}
