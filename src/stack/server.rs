//! A running child: signals, freezing, ending, and what it wrote.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    StackError,
    spawn::{Launch, spawn},
    wait::wait_for,
};

/// How long a server may take to end by itself before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How long SIGKILL and SIGSTOP may take to show; a process in the middle of a disk access acts on them later.
const SIGNAL_LIMIT: Duration = Duration::from_secs(10);

/// How much of a log's end an error shows, in bytes.
const LOG_TAIL: u64 = 4096;

/// A child process and its log. Dropping it kills it.
pub(super) struct Server {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where this run's output begins in the log.
    log_start: u64,
}

impl Server {
    /// Starts the program; it may not be ready yet.
    pub(super) fn start(launch: &Launch<'_>) -> Result<Self, StackError> {
        let log_start = fs::metadata(launch.log).map_or(0, |found| found.len());
        let child = spawn(launch)?;
        let name = launch
            .program
            .file_name()
            .unwrap_or(launch.program.as_os_str())
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            name,
            child,
            log: launch.log.to_path_buf(),
            log_start,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `is_ready`, and fails as soon as the server has ended.
    pub(super) fn wait_ready(
        &mut self,
        limit: Duration,
        is_ready: impl Fn() -> bool,
    ) -> Result<(), StackError> {
        let outcome = wait_for(limit, || match self.child.try_wait() {
            Ok(Some(status)) => Some(Err(self.ended(status))),
            Ok(None) => is_ready().then_some(Ok(())),
            Err(source) => Some(Err(self.signal_error(source))),
        });
        outcome.unwrap_or_else(|| Err(self.late(limit)))
    }

    /// Waits until the program has finished well.
    pub(super) fn wait_done(mut self, limit: Duration) -> Result<(), StackError> {
        match self.wait_end(limit)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.ended(status)),
            None => Err(self.late(limit)),
        }
    }

    /// Asks the server to end with `signal`, and kills it when it has not ended in time.
    pub(super) fn stop(&mut self, signal: Signal) -> Result<(), StackError> {
        self.signal(signal)?;
        // A frozen server acts on a signal only once it runs again.
        self.thaw()?;
        match self.wait_end(STOP_LIMIT)? {
            Some(_) => Ok(()),
            None => self.kill(),
        }
    }

    /// Kills the server and its children with SIGKILL, and returns once they are gone.
    pub(super) fn kill(&mut self) -> Result<(), StackError> {
        // Children first: freezing has made their list final, and they keep their ids while we hold their parent.
        let children = self.freeze().or_else(|_| self.children())?;
        for child in &children {
            let _ = kill_process(*child, Signal::KILL);
        }
        self.signal(Signal::KILL)?;
        self.wait_end(SIGNAL_LIMIT)?
            .ok_or_else(|| self.late(SIGNAL_LIMIT))?;
        self.wait_all(&children, is_gone)
    }

    /// Stops the server and all its children where they are, and returns the children once all stand still.
    pub(super) fn freeze(&mut self) -> Result<Vec<Pid>, StackError> {
        if !self.is_running()? {
            return Ok(Vec::new());
        }
        // The parent first, so that it can neither start a child nor reap one while we list them.
        self.signal(Signal::STOP)?;
        self.wait_all(&[Pid::from_child(&self.child)], is_still)?;
        let children = self.children()?;
        for child in &children {
            let _ = kill_process(*child, Signal::STOP);
        }
        self.wait_all(&children, is_still)?;
        Ok(children)
    }

    /// Lets a frozen server and its children go on.
    pub(super) fn thaw(&mut self) -> Result<(), StackError> {
        for child in self.children()? {
            let _ = kill_process(child, Signal::CONT);
        }
        self.signal(Signal::CONT)
    }

    /// Waits until all processes are in a state; a signal takes effect a moment after it was sent.
    fn wait_all(&self, pids: &[Pid], reached: fn(Pid) -> bool) -> Result<(), StackError> {
        wait_for(SIGNAL_LIMIT, || {
            pids.iter().all(|pid| reached(*pid)).then_some(())
        })
        .ok_or_else(|| self.late(SIGNAL_LIMIT))
    }

    fn wait_end(&mut self, limit: Duration) -> Result<Option<ExitStatus>, StackError> {
        wait_for(limit, || self.child.try_wait().transpose())
            .transpose()
            .map_err(|source| self.signal_error(source))
    }

    /// Signals the server alone; does nothing once it has ended, since its id may then be somebody else's.
    fn signal(&mut self, signal: Signal) -> Result<(), StackError> {
        if !self.is_running()? {
            return Ok(());
        }
        kill_process(Pid::from_child(&self.child), signal)
            .map_err(|source| self.signal_error(source.into()))
    }

    fn is_running(&mut self) -> Result<bool, StackError> {
        self.child
            .try_wait()
            .map(|status| status.is_none())
            .map_err(|source| self.signal_error(source))
    }

    fn children(&mut self) -> Result<Vec<Pid>, StackError> {
        if !self.is_running()? {
            return Ok(Vec::new());
        }
        children_of(self.pid()).map_err(|source| self.signal_error(source))
    }

    fn signal_error(&self, source: io::Error) -> StackError {
        StackError::Signal {
            program: self.name.clone(),
            source,
        }
    }

    fn ended(&self, status: ExitStatus) -> StackError {
        StackError::Ended {
            program: self.name.clone(),
            status,
            log: log_tail(&self.log, self.log_start),
        }
    }

    fn late(&self, limit: Duration) -> StackError {
        let log = log_tail(&self.log, self.log_start);
        StackError::Late {
            program: self.name.clone(),
            seconds: limit.as_secs(),
            log,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.kill();
        }
    }
}

/// The processes whose parent is `parent`. Postgres gives each of its children a session of its own, so its process
/// group does not hold them.
fn children_of(parent: u32) -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if process_state(pid).is_some_and(|(_, its_parent)| its_parent == parent) {
            children.extend(Pid::from_raw(pid));
        }
    }
    Ok(children)
}

/// A process's state letter and its parent's id; `None` once it is gone.
fn process_state(pid: i32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (command) state parent …`: the command may hold anything, so look behind its last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether a process no longer runs; one that nobody has waited for yet counts as gone.
fn is_gone(pid: Pid) -> bool {
    process_state(pid.as_raw_nonzero().get()).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
}

/// Whether a process stands still, stopped or gone.
fn is_still(pid: Pid) -> bool {
    is_gone(pid) || process_state(pid.as_raw_nonzero().get()).is_some_and(|(state, _)| state == 'T')
}

/// The end of what was written to the log since `start`.
fn log_tail(log: &Path, start: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(start.max(length.saturating_sub(LOG_TAIL))))?;
        let mut tail = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut tail)?;
        Ok(tail)
    };
    read().map_or_else(
        |error| format!("(no log: {error})"),
        |tail| String::from_utf8_lossy(&tail).into_owned(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_tail_holds_only_this_run_and_only_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::write(&log, "old run\nnew run\n").unwrap();
        assert_eq!(log_tail(&log, 8), "new run\n");
        let long = "x".repeat(5000) + "end";
        fs::write(&log, long).unwrap();
        let tail = log_tail(&log, 0);
        assert_eq!(tail.len(), 4096);
        assert!(tail.ends_with("xend"));
    }

    #[test]
    fn this_process_is_its_parents_child_and_not_gone() {
        let own = i32::try_from(std::process::id()).unwrap();
        let (_, parent) = process_state(own).unwrap();
        assert_eq!(parent, std::os::unix::process::parent_id());
        assert!(
            children_of(parent)
                .unwrap()
                .contains(&Pid::from_raw(own).unwrap())
        );
        assert!(!is_gone(Pid::from_raw(own).unwrap()));
    }
}
