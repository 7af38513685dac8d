//! A command outside of jobs, run for the one value it prints.

use super::definition::{find, inherited};
use super::output::Output;
use super::process::{Ended, Group};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// How much of its output is read as the value, bytes.
const MAX_OUTPUT: usize = 4_096;

/// A command and its arguments. Its environment is what every child of `exec` has; its input is empty.
#[derive(Clone)]
pub struct Once {
    program: PathBuf,
    args: Vec<String>,
}

impl Once {
    /// Looks for the program.
    ///
    /// # Errors
    /// There is none, or it can't be run.
    pub fn new(command: &[String]) -> Result<Self, String> {
        let (name, args) = command.split_first().ok_or("is empty")?;
        if args.iter().any(|arg| arg.contains('\0')) {
            return Err("an argument holds NUL".to_owned());
        }
        let env = inherited();
        let path = env.get("PATH").map(String::as_str).unwrap_or_default();
        let program = find(name, path).map_err(|e| format!("{name:?} {e}"))?;
        let args = args.to_vec();
        Ok(Self { program, args })
    }

    /// Runs it and reads what it printed as one JSON value, such as a number. Dropping the future kills it with all it
    /// started.
    ///
    /// # Errors
    /// It can't be started, fails, or prints something else. What it says is left out: it may hold a secret.
    pub async fn value(&self) -> Result<Value, String> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(inherited())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (mut group, pipes) = Group::spawn(&mut command).map_err(|e| e.to_string())?;
        let mut output = Output::new(MAX_OUTPUT, 0);
        let never = CancellationToken::new();
        let (ended, ()) = tokio::join!(group.end(&never), output.talk(pipes, Vec::new()));
        match ended.map_err(|e| e.to_string())? {
            Ended::ByItself(status) if status.success() => output
                .result()
                .ok_or_else(|| "it printed no value".to_owned()),
            Ended::ByItself(status) => Err(format!("it ended with {status}")),
            Ended::Stopped => Err("it was stopped".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn value(script: &str) -> Result<Value, String> {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        Once::new(&command).unwrap().value().await
    }

    #[tokio::test]
    async fn what_it_prints_is_its_value_and_a_failure_is_none() {
        assert_eq!(value("echo 12.5").await, Ok(serde_json::json!(12.5)));
        for (script, reason) in [
            ("echo twelve", "no value"),
            ("echo 12; exit 3", "exit status: 3"),
            ("echo hunter2 >&2; kill -9 $$", "signal: 9"),
            (":", "no value"),
        ] {
            let error = value(script).await.unwrap_err();
            assert!(error.contains(reason), "{script}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_refused() {
        for command in [&["/no/such/program"][..], &["no-such-program"], &[]] {
            let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            assert!(Once::new(&command).is_err(), "{command:?}");
        }
    }
}
