//! `tidegate verify`: whether a queue is whole, and putting right what is not.

use super::output::{pairs, table};
use super::store::{Store, queue_name};
use super::{CliError, Global, Report};
use crate::clock;
use crate::queue::audit::{Findings, KnownFlows, Options, Tally};
use serde_json::{Value, json};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  tidegate verify default                 compares the counts, looks at every job, changes nothing
  tidegate verify default --repair        puts right what is wrong
  tidegate verify mail --json

Exit code 1 if anything is wrong. The daemons do the same by themselves, see [audit] interval; the queue may be at work
meanwhile.";

/// Flags of `tidegate verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The queue
    #[arg(value_name = "QUEUE", value_parser = queue_name)]
    queue: String,
    /// Put right what is wrong
    #[arg(long)]
    repair: bool,
    /// Wait so long between two steps, to leave the server to the jobs
    #[arg(long, value_name = "DURATION", default_value = "1ms", value_parser = crate::config::duration::parse)]
    pace: Duration,
}

/// Looks at one queue.
///
/// # Errors
/// Configuration or Redis.
pub async fn run(args: Args, global: &Global) -> Result<Report, CliError> {
    let store = Store::open(global, Some(&args.queue)).await?;
    let queue = store.queue(&args.queue);
    let options = Options {
        repair: args.repair,
        pace: args.pace,
    };
    let mut flows = KnownFlows::default();
    flows.add(&store.catalog);
    // What can't be read can't be looked at.
    let set_aside = match args.repair {
        true => queue.heal(clock::unix_ms(), &store.catalog).await?,
        false => Vec::new(),
    };
    let tally = queue.tally(&mut flows).await?;
    let findings = queue.sweep(&store.catalog, options).await?;
    let mismatch = tally.as_ref().map_or(0, Tally::mismatch);
    let failure = (mismatch != 0 || !findings.is_empty() || !set_aside.is_empty()).then(|| {
        let what = if args.repair { "was" } else { "is" };
        format!("{} {what} not whole", args.queue)
    });
    let json = json!({
        "queue": args.queue,
        "whole": failure.is_none(),
        "mismatch": tally.as_ref().map(Tally::mismatch),
        "counts": tally.as_ref().map(counts),
        "findings": findings_view(&findings),
        "set_aside": set_aside.iter().map(|gone| &gone.moved_to).collect::<Vec<_>>(),
        "repaired": args.repair && (!findings.is_empty() || !set_aside.is_empty()),
    });
    let mut text = text(tally.as_ref(), &findings, args.repair);
    for gone in &set_aside {
        text.push_str(&format!(
            "{} was a {}, moved to {}\n",
            gone.key, gone.found, gone.moved_to
        ));
    }
    Ok(Report::new(json, text).failing(failure))
}

fn counts(tally: &Tally) -> Value {
    json!({
        "jobs": tally.jobs,
        "waiting": tally.waiting,
        "left_behind": tally.stones,
        "delayed": tally.delayed,
        "running": tally.running,
        "dead": tally.dead,
    })
}

fn findings_view(findings: &Findings) -> Value {
    let each = findings.iter().map(|finding| {
        json!({
            "damage": finding.damage.as_str(),
            "count": finding.count,
            "examples": finding.examples,
        })
    });
    each.collect()
}

fn text(tally: Option<&Tally>, findings: &Findings, repair: bool) -> String {
    let mut text = match tally {
        Some(tally) => pairs(&[
            ("jobs", tally.jobs.to_string()),
            ("waiting", tally.waiting.to_string()),
            ("left behind", tally.stones.to_string()),
            ("delayed", tally.delayed.to_string()),
            ("running", tally.running.to_string()),
            ("dead", tally.dead.to_string()),
            ("mismatch", tally.mismatch().to_string()),
        ]),
        None => "too many flows to count in one instant\n".to_owned(),
    };
    if findings.is_empty() {
        text.push_str("nothing is wrong with any job\n");
        return text;
    }
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|finding| {
            vec![
                finding.count.to_string(),
                finding.damage.words().to_owned(),
                finding.examples.join(" "),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(&["n", "what", "which"], &rows));
    if !repair {
        text.push_str("--repair puts this right\n");
    }
    text
}
