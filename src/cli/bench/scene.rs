//! What else stands in the queue while jobs drain: the kinds there are, what is put there first, and what the drained jobs
//! are.

use super::bed::Bed;
use super::load::{self, Into};
use crate::cli::CliError;

/// Keys whose one slot is taken, so that everything behind is parked.
const HELD: u64 = 100;

/// What else stands in the queue.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scene {
    /// Nothing.
    Plain,
    /// So many jobs that wait for their turn.
    Waiting(u64),
    /// So many jobs that are due much later.
    Delayed(u64),
    /// So many jobs whose key has no slot free.
    Parked(u64),
    /// The drained jobs are of so many tenants that take turns.
    Tenants(u64),
    /// The drained jobs are of so many kinds.
    Kinds(u64),
}

impl Scene {
    /// In a few words.
    pub(super) fn name(self) -> String {
        match self {
            Self::Plain => "nothing else".to_owned(),
            Self::Waiting(jobs) => format!("{jobs} jobs waiting"),
            Self::Delayed(jobs) => format!("{jobs} jobs delayed"),
            Self::Parked(jobs) => format!("{jobs} jobs parked"),
            Self::Tenants(tenants) => format!("{tenants} tenants taking turns"),
            Self::Kinds(kinds) => format!("{kinds} kinds"),
        }
    }

    /// The definitions its daemon has.
    pub(super) fn definitions(self) -> Vec<String> {
        match self {
            Self::Plain | Self::Waiting(_) | Self::Delayed(_) => vec![plain_kind()],
            Self::Parked(_) => vec![plain_kind(), held_kind()],
            Self::Tenants(_) => vec![tenants_kind()],
            Self::Kinds(kinds) => (0..kinds).map(|n| one_kind(&kind_name(n))).collect(),
        }
    }

    /// One of the jobs that are drained.
    pub(super) fn job(self, n: u64) -> String {
        match self {
            Self::Plain | Self::Waiting(_) | Self::Delayed(_) | Self::Parked(_) => load::plain(n),
            Self::Tenants(tenants) => {
                let tenant = n % tenants;
                format!(r#"{{"kind":"bench.tenants","args":{{"n":{n},"tenant":{tenant}}}}}"#)
            }
            Self::Kinds(kinds) => {
                let kind = kind_name(n % kinds);
                format!(r#"{{"kind":"{kind}","args":{{"n":{n}}}}}"#)
            }
        }
    }

    /// Puts what else stands there. The daemon admits meanwhile; only for parked jobs it must claim.
    pub(super) async fn prepare(self, bed: &Bed) -> Result<(), CliError> {
        let (jobs, envelope): (u64, fn(u64) -> String) = match self {
            Self::Plain | Self::Tenants(_) | Self::Kinds(_) => return Ok(()),
            Self::Waiting(jobs) => (jobs, load::plain),
            Self::Delayed(jobs) => (jobs, |n| {
                format!(r#"{{"kind":"bench.noop","delay_ms":86400000,"args":{{"n":{n}}}}}"#)
            }),
            Self::Parked(jobs) => (jobs + HELD, |n| {
                let key = n % HELD;
                format!(r#"{{"kind":"bench.held","args":{{"key":{key}}}}}"#)
            }),
        };
        load::push(bed, Into::Inbox, jobs, envelope).await?;
        load::until_admitted(bed, jobs).await?;
        load::until_parked(bed, self.held()).await
    }

    /// Jobs that run all the time. To start them its daemon has to claim while the scene is prepared.
    pub(super) fn held(self) -> u64 {
        match self {
            Self::Parked(_) => HELD,
            _ => 0,
        }
    }
}

/// The one kind of the standard measurement. `exec` jobs and the like are no part of these daemons.
pub(super) fn plain_kind() -> String {
    one_kind("bench.noop")
}

fn one_kind(name: &str) -> String {
    format!(
        "kind = \"{name}\"\nhandler = \"noop\"\n\n[args]\nn = {{ type = \"integer\" }}\nsent_us = {{ type = \"integer\" }}\n"
    )
}

fn kind_name(n: u64) -> String {
    format!("bench.kind_{n}")
}

fn tenants_kind() -> String {
    "\
kind = \"bench.tenants\"
handler = \"noop\"
fairness = \"args.tenant\"

[args]
n = { type = \"integer\" }
tenant = { type = \"integer\" }
"
    .to_owned()
}

fn held_kind() -> String {
    "\
kind = \"bench.held\"
handler = \"hold\"
timeout = \"1h\"

[concurrency]
key = \"args.key\"
limit = 1

[args]
key = { type = \"integer\" }
"
    .to_owned()
}
