//! `exec`: runs the command of a definition, with the job as one line of JSON on its standard input.
//!
//! Owns: the contract with the child. It is given exactly one line `{"id","kind","args","attempt"}` and then the end of
//! its input; a child that does not read it is no failure. How it ends is what came of the job:
//!
//! | the child | outcome |
//! |---|---|
//! | exits 0 | done; if its output is one JSON value, that is the result |
//! | exits 75 (`EX_TEMPFAIL` of sysexits.h) | snoozed: again after `snooze`, no attempt burned |
//! | exits with a code of `fatal_exit` | fatal |
//! | exits 69 (`EX_UNAVAILABLE`) | failed, and the first of the definition's `resources` is to blame |
//! | exits otherwise, or is killed by a signal | failed, with the end of what it wrote to standard error |
//! | cannot be started | failed: the program was there when the definition was loaded, so it is likely being replaced |
//! | is asked to stop (`SIGTERM`) | interrupted, whatever it exits with: zero may only mean that it obeyed |
//!
//! With `progress = true` a child may tell how far it has come: see [`telling`].
//!
//! The command comes from the definition alone and no shell is involved, so nothing an enqueuer sends is ever a program,
//! an option or a variable; but for `TRACEPARENT`, hexadecimal digits of a trace context that go on to the child. Each child leads a process group of its own, and the group is dead before the job can
//! run elsewhere: see [`process`]. Must not know the runner, retries, or where jobs come from.
//!
//! What a `SIGKILL` of the daemon itself leaves behind: its children live on as orphans. `PR_SET_PDEATHSIG` is no
//! answer to that: it fires when the *thread* that started the child ends, which says nothing about the daemon; it does
//! not reach grandchildren; and setting it takes `unsafe` or another program in front of every child. The systemd unit
//! kills the whole control group before it starts the daemon again, and `TIDEGATE_TOKEN`, different for every
//! delivery, lets a child's writes be fenced where an orphan would do harm.

mod definition;
mod once;
mod output;
mod process;
mod telling;

pub use once::Once;

use super::{Built, Context, Deps, Handler, HandlerKind};
use crate::catalog::JobSpec;
use crate::job::history::{MAX_ERROR_BYTES, cut};
use crate::job::{Failure, Job, Outcome};
use definition::Definition;
use futures::future::{BoxFuture, Either, join, select};
use output::Output;
use process::{Ended, Group, Pipes};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use telling::Telling;
use tokio::process::Command;

/// Exit code of "try again later" (`EX_TEMPFAIL` of sysexits.h).
const EX_TEMPFAIL: i32 = 75;
/// Exit code of "what I need is not available" (`EX_UNAVAILABLE` of sysexits.h).
const EX_UNAVAILABLE: i32 = 69;
/// How long output is awaited after the group is dead. Its pipes are closed by then, unless a process that left the
/// group still holds one: that one is not waited for.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// Of a stored error, bytes left for what is said before the child's own words.
const MESSAGE_ROOM: usize = 256;

/// The `exec` handler, as the list of handlers knows it.
pub const KIND: HandlerKind = HandlerKind {
    name: "exec",
    check: |spec, config| Definition::read(spec, config).map(|_| ()),
    touches: |_, _| Vec::new(),
    build: |spec, deps| Exec::build(spec, deps),
};

/// Runs the command of one definition.
struct Exec {
    definition: Definition,
    /// What is to blame when the child says that something is not available.
    resource: Option<Arc<str>>,
}

impl Exec {
    fn build(spec: &JobSpec, deps: &Deps) -> Built {
        let definition = Definition::read(spec, &deps.config)?;
        Ok(Arc::new(Self {
            definition,
            resource: spec.resources.first().map(Arc::clone),
        }))
    }

    async fn deliver(&self, ctx: &Context) -> Outcome {
        let (mut group, pipes, telling) = match self.start(&ctx.job) {
            Ok(started) => started,
            Err(e) => return Outcome::failed(format!("{}: {e}", self.program())),
        };
        let mut output = Output::new(self.definition.max_output, MAX_ERROR_BYTES - MESSAGE_ROOM);
        let ended = {
            let hear = telling::hear(telling, &ctx.progress);
            let talk = pin!(join(output.talk(pipes, line_of(&ctx.job)), hear));
            let end = pin!(group.end(&ctx.stop));
            match select(end, talk).await {
                Either::Left((ended, talk)) => {
                    // Late output is worth a moment, not a failure.
                    let _ = tokio::time::timeout(OUTPUT_GRACE, talk).await;
                    ended
                }
                Either::Right((_, end)) => end.await,
            }
        };
        match ended {
            Ok(Ended::ByItself(status)) => self.outcome(status, &output),
            Ok(Ended::Stopped) => Outcome::Interrupted {
                reason: "asked to stop".to_owned(),
            },
            Err(e) => Outcome::failed(format!("{}: waiting for it: {e}", self.program())),
        }
    }

    /// Starts the child; with a pipe for what it tells, if its definition asks for one.
    fn start(&self, job: &Job) -> io::Result<(Group, Pipes, Option<Telling>)> {
        let mut command = self.command(job);
        let telling = match self.definition.progress {
            true => Some(Telling::offer(&mut command)?),
            false => None,
        };
        // The command holds our end of the pipe to write to: it goes with it, so that the child's end is the pipe's.
        let (group, pipes) = Group::spawn(&mut command)?;
        Ok((group, pipes, telling))
    }

    /// The child's environment is built from nothing: the daemon's own may hold secrets of other jobs.
    fn command(&self, job: &Job) -> Command {
        let definition = &self.definition;
        let mut command = Command::new(&definition.program);
        command
            .args(&definition.args)
            .env_clear()
            .envs(&definition.env)
            .env("TIDEGATE_JOB_ID", job.id.as_str())
            .env("TIDEGATE_KIND", &*job.kind)
            .env("TIDEGATE_ATTEMPT", job.attempt.to_string())
            .env("TIDEGATE_TOKEN", &*job.token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(cwd) = &definition.cwd {
            command.current_dir(cwd);
        }
        if let Some(trace) = &job.traceparent {
            command.env("TRACEPARENT", trace);
        }
        command
    }

    fn outcome(&self, status: ExitStatus, output: &Output) -> Outcome {
        match status.code() {
            Some(0) => Outcome::Done(output.result()),
            Some(EX_TEMPFAIL) => Outcome::Snooze {
                after: self.definition.snooze,
                reason: self.told(&format!("exit code {EX_TEMPFAIL}"), output),
            },
            Some(code) => {
                let message = self.told(&format!("exit code {code}"), output);
                match &self.resource {
                    _ if self.definition.fatal_exit.contains(&code) => Outcome::fatal(message),
                    Some(resource) if code == EX_UNAVAILABLE => {
                        Outcome::Failed(Failure::new(message).blaming(&**resource, false))
                    }
                    _ => Outcome::failed(message),
                }
            }
            None => Outcome::failed(self.told(&killed_by(status), output)),
        }
    }

    /// How the child ended and the end of what it wrote to standard error, within what is stored of an error.
    fn told(&self, how: &str, output: &Output) -> String {
        let mut message = format!("{}: {how}", self.program());
        let said = output.last_words();
        if !said.is_empty() {
            message.push_str(": ");
            message.push_str(&said);
        }
        message
    }

    /// The program's name for messages.
    fn program(&self) -> &str {
        cut(&self.definition.name, MESSAGE_ROOM / 2)
    }
}

impl Handler for Exec {
    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(self.deliver(ctx))
    }
}

/// The one line a child reads. JSON has no bare newline, so the line is the whole document.
fn line_of(job: &Job) -> Vec<u8> {
    let mut line = job.payload().to_string().into_bytes();
    line.push(b'\n');
    line
}

fn killed_by(status: ExitStatus) -> String {
    let number = status.signal().unwrap_or_default();
    match signal_hook::low_level::signal_name(number) {
        Some(name) => format!("killed by {name}"),
        None => format!("killed by signal {number}"),
    }
}
