//! Jobs that take their daemon with them: real handlers, in a program that embeds the daemon.

use crate::bed::{Bed, Program, Setup};
use crate::invariants::{Terms, check};
use crate::load::Mix;
use crate::process::Process;
use crate::row::{Broken, Outcome, Row, fired};
use crate::supervisor::Supervisor;
use serde::Deserialize;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use tidegate::embed::{Daemon, JobError};
use tidegate::telemetry::{self, Stream};

pub const POISON: Row = Row {
    number: 19,
    name: "poison",
    fault: "handlers that abort, overflow the stack, eat all memory, or never return",
    trial: |seed| Box::pin(poison(seed)),
};

/// Set for a process that is to be such a program.
pub const AS_DAEMON: &str = "FAULTS_DAEMON";
/// Address space of such a process: enough for its work, not for one that eats it all.
const ADDRESS_SPACE: u64 = 8 << 30;
const WAYS: [&str; 4] = ["abort", "overflow", "memory", "loop"];
/// Silence after which the supervisor takes a daemon for stuck.
const SILENCE: Duration = Duration::from_secs(2);
/// How long it may take until the poison is set apart.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Deserialize)]
struct Harm {
    how: String,
}

async fn harm(args: Harm) -> Result<(), JobError> {
    match args.how.as_str() {
        "abort" => std::process::abort(),
        "overflow" => {
            deeper(1);
        }
        "memory" => {
            let mut eaten = Vec::new();
            loop {
                eaten.push(std::hint::black_box(Vec::<u8>::with_capacity(1 << 28)));
            }
        }
        _ => loop {
            std::hint::spin_loop();
        },
    }
    Ok(())
}

#[allow(unconditional_recursion)]
fn deeper(n: u64) -> u64 {
    let room = std::hint::black_box([n; 512]);
    deeper(n + 1) + room[0]
}

/// What this program is when it is started as a daemon: `run --config FILE --jobs FOLDER`.
pub async fn run_daemon() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--") && a != "run");
    let [config, jobs] = [(); 2].map(|()| PathBuf::from(arguments.next().unwrap()));
    let sources = tidegate::config::Sources {
        path: Some(config.clone()),
    };
    let read = tidegate::config::load(&sources).unwrap();
    let _logs = telemetry::logs::init(&read.log, Stream::Stdout).unwrap();
    let daemon = Daemon::builder()
        .config_path(config)
        .jobs_dir(jobs)
        .handler("poison.harm", harm);
    daemon.run().await.unwrap();
}

fn program() -> Program {
    let path = std::env::current_exe().unwrap();
    Program {
        path: path.display().to_string(),
        env: vec![(AS_DAEMON.to_owned(), "1".to_owned())],
    }
}

/// Starts the program with less memory than it could ask for.
fn confined(program: &Program) -> Command {
    let mut command = Command::new("prlimit");
    command
        .arg(format!("--as={ADDRESS_SPACE}"))
        .arg("--core=0")
        .arg(&program.path);
    command.envs(program.env.iter().map(|(name, value)| (name, value)));
    command
}

async fn poison(seed: u64) -> Outcome {
    let setup = Setup {
        mix: Mix {
            jobs: 60,
            longest: 150,
        },
        ..Setup::default()
    };
    let mut bed = Bed::new(seed, setup).await;
    let program = program();
    let mut supervised = Supervised::start(&bed, &program);
    bed.begin();
    bed.instant().await;
    let how = WAYS[usize::try_from(seed % 4).unwrap()];
    let entry = format!(r#"{{"kind":"poison.harm","id":"poison","args":{{"how":"{how}"}}}}"#);
    bed.site.push(&[entry]).await;
    let began = Instant::now();
    while !stat(&bed, "poisoned").await {
        supervised.keep_alive(&bed, &program);
        if began.elapsed() > PATIENCE {
            let deaths = supervised.deaths;
            return Err(Broken::new(format!(
                "{how}: not set apart after {PATIENCE:?} and {deaths} deaths"
            ))
            .into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fired(supervised.deaths >= 3, "its daemon lived on")?;
    let terms = Terms {
        leases_expire: true,
        strangers: &["poison"],
        ..Terms::default()
    };
    let verdict = check(&mut bed, terms, None).await?;
    let found = bed.queue.find("poison").await.unwrap().unwrap();
    if (
        found.state.as_str(),
        found.history.crashes,
        found.history.attempts,
    ) != ("dead", 3, 0)
    {
        return Err(Broken::new(format!("{how}: {found:?}")).into());
    }
    // One more for each time at which it was not clear who did it.
    if supervised.deaths > 5 {
        return Err(Broken::new(format!("{how}: {} daemons died of it", supervised.deaths)).into());
    }
    Ok(verdict)
}

async fn stat(bed: &Bed, name: &str) -> bool {
    let stats = bed
        .queue
        .counts()
        .await
        .map(|c| c.sizes.stats)
        .unwrap_or_default();
    stats.get(name).copied().unwrap_or(0) > 0
}

/// A daemon that a service manager starts again when it dies, and kills when it is stuck.
struct Supervised {
    supervisor: Supervisor,
    daemon: Process,
    deaths: u32,
}

impl Supervised {
    fn start(bed: &Bed, program: &Program) -> Self {
        let mut supervisor = Supervisor::new(bed.site.dir.path(), "a", SILENCE);
        let mut command = confined(program);
        supervisor.watch(&mut command);
        Self {
            daemon: bed.site.start_as("a0", &mut command),
            supervisor,
            deaths: 0,
        }
    }

    fn keep_alive(&mut self, bed: &Bed, program: &Program) {
        // A daemon is watched from the moment it says that it is ready.
        let started = !self.daemon.events("started").is_empty();
        let stuck = self.supervisor.is_silent() && started;
        if stuck {
            self.daemon.signal(rustix::process::Signal::ABORT);
        }
        if !stuck && self.daemon.exited().is_none() {
            return;
        }
        self.deaths += 1;
        let mut command = confined(program);
        self.supervisor.watch(&mut command);
        self.daemon = bed
            .site
            .start_as(&format!("a{}", self.deaths), &mut command);
    }
}
