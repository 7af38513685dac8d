//! The daemon that is measured, in a process of its own, driven over its standard streams.

use super::bed::Bed;
use super::failed;
use crate::cli::CliError;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long any answer may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A running daemon. Dropping it kills it.
pub(super) struct DaemonProcess {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl DaemonProcess {
    /// Starts it with the defaults and these definitions, and returns when it takes jobs.
    pub(super) async fn start(
        bed: &Bed,
        concurrency: u64,
        definitions: &[String],
    ) -> Result<Self, CliError> {
        Self::start_with(bed, concurrency, definitions, "").await
    }

    /// The same with these settings.
    pub(super) async fn start_with(
        bed: &Bed,
        concurrency: u64,
        definitions: &[String],
        settings: &str,
    ) -> Result<Self, CliError> {
        let (config, jobs) = write_files(&bed.dir(), definitions, settings).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDEGATE_") {
                command.env_remove(name);
            }
        }
        let redis = &bed.config.redis;
        let mut child = command
            .args(["bench", "--worker", "--config"])
            .arg(config)
            .arg("--jobs")
            .arg(jobs)
            .env("TIDEGATE_REDIS__URL", redis.url.reveal())
            .env("TIDEGATE_REDIS__PREFIX", &redis.prefix)
            .env("TIDEGATE_DAEMON__CONCURRENCY", concurrency.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let gone = || failed("the daemon has no standard streams");
        let commands = child.stdin.take().ok_or_else(gone)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(gone)?).lines();
        let mut daemon = Self {
            child,
            commands,
            answers,
        };
        daemon.expect("ready").await?;
        Ok(daemon)
    }

    /// Makes it claim nothing; it goes on admitting.
    pub(super) async fn quiet(&mut self) -> Result<(), CliError> {
        self.tell("quiet").await
    }

    /// Lets it claim again.
    pub(super) async fn go(&mut self) -> Result<(), CliError> {
        self.tell("go").await
    }

    /// What the next job that says when it was sent found, µs.
    pub(super) async fn pickup_us(&mut self) -> Result<u64, CliError> {
        self.answer().await?.parse().map_err(failed)
    }

    /// Resident memory now, MB.
    pub(super) fn memory(&self) -> Result<f64, CliError> {
        self.status("VmRSS:")
    }

    /// Resident memory at its most, MB.
    pub(super) fn peak_memory(&self) -> Result<f64, CliError> {
        self.status("VmHWM:")
    }

    /// Processor time it ever used.
    pub(super) fn cpu(&self) -> Result<Duration, CliError> {
        cpu(self.pid()?)
    }

    /// Stops it where it is, for less than a lease.
    pub(super) fn freeze(&self) -> Result<(), CliError> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub(super) fn thaw(&self) -> Result<(), CliError> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), CliError> {
        let pid = i32::try_from(self.pid()?).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| failed("the daemon has no process id"))?;
        kill_process(pid, signal).map_err(failed)
    }

    /// Ends it in good order.
    pub(super) async fn stop(mut self) -> Result<(), CliError> {
        drop(self.commands);
        let ended = tokio::time::timeout(DEADLINE, self.child.wait()).await;
        let status = ended.map_err(failed)?.map_err(failed)?;
        if status.success() {
            Ok(())
        } else {
            Err(failed(format!("the daemon ended with {status}")))
        }
    }

    async fn tell(&mut self, word: &str) -> Result<(), CliError> {
        let line = format!("{word}\n");
        self.commands
            .write_all(line.as_bytes())
            .await
            .map_err(failed)?;
        self.expect(word).await
    }

    async fn expect(&mut self, word: &str) -> Result<(), CliError> {
        let answer = self.answer().await?;
        if answer == word {
            return Ok(());
        }
        Err(failed(format!("the daemon said {answer:?}, not {word:?}")))
    }

    async fn answer(&mut self) -> Result<String, CliError> {
        let line = tokio::time::timeout(DEADLINE, self.answers.next_line()).await;
        let line = line.map_err(|_| failed("the daemon does not answer"))?;
        line.map_err(failed)?
            .ok_or_else(|| failed("the daemon ended before its time"))
    }

    fn pid(&self) -> Result<u32, CliError> {
        self.child.id().ok_or_else(|| failed("the daemon ended"))
    }

    fn status(&self, field: &str) -> Result<f64, CliError> {
        let pid = self.pid()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(failed)?;
        let kib = status.lines().find_map(|line| {
            let value = line.strip_prefix(field)?.trim();
            value.strip_suffix(" kB")?.parse::<f64>().ok()
        });
        let kib = kib.ok_or_else(|| failed("the system does not tell a process's memory"))?;
        Ok(kib / 1_024.0)
    }
}

/// Processor time that a process ever used.
fn cpu(pid: u32) -> Result<Duration, CliError> {
    let mut spent = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).map_err(failed)? {
        let stat = thread.map_err(failed)?.path().join("schedstat");
        // A thread may end meanwhile.
        let stat = fs::read_to_string(stat).unwrap_or_default();
        let first = stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
        spent += first.unwrap_or(0);
    }
    Ok(Duration::from_nanos(spent))
}

/// Processor time that a process and its children that live ever used.
pub(super) fn cpu_with_children(parent: u32) -> Result<Duration, CliError> {
    let mut spent = cpu(parent)?;
    for entry in fs::read_dir("/proc").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Any of them may end meanwhile.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let its_parent = after_name.split_ascii_whitespace().nth(1);
        if its_parent.and_then(|p| p.parse::<u32>().ok()) == Some(parent) {
            spent += cpu(pid).unwrap_or_default();
        }
    }
    Ok(spent)
}

/// The configuration, empty for the defaults, and the folder of the definitions.
fn write_files(
    dir: &Path,
    definitions: &[String],
    settings: &str,
) -> std::io::Result<(PathBuf, PathBuf)> {
    let (config, jobs) = (dir.join("bench.toml"), dir.join("jobs"));
    fs::create_dir_all(&jobs)?;
    fs::write(&config, settings)?;
    for (number, definition) in definitions.iter().enumerate() {
        fs::write(jobs.join(format!("{number}.toml")), definition)?;
    }
    Ok((config, jobs))
}
