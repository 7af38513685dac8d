//! `tidegate gate force` and `release`.

use super::super::fleet::Fleet;
use super::super::output::age;
use super::super::pause::reason;
use super::super::store::Store;
use super::super::who::who;
use super::super::{CliError, Global, Report};
use super::known;
use crate::clock::rfc3339;
use crate::config::{BreakerMode, GateMode, duration};
use crate::policy::gate::{Aspect, LONGEST_ORDER, Order, Target, Will};
use crate::queue::orders::{OrderBook, Wish};
use serde_json::json;
use std::time::Duration;

const FORCE_EXAMPLES: &str = "\
A resource takes a state:
  overloaded             it counts as at least overloaded; worse is still heeded. Also elevated, critical
  overloaded --at-most   it counts as no worse than overloaded, whatever is measured
  ok                     the same as ok --at-most
An operation, a handler on a resource, takes:
  open                   its breaker lets nothing through
  disabled               its breaker lets everything through and looks away
  metrics-only           its breaker lets everything through and goes on judging
  limit=N                N of its jobs at once in each daemon, whatever the limiter finds. 1-100000

Examples:
  tidegate gate force postgres:primary overloaded --for 10m --why 'migration'
  tidegate gate force http@http:app.example:443 open --for 1h --why 'they move house'
  tidegate gate force http@http:app.example:443 limit=4";

const RELEASE_EXAMPLES: &str = "\
Examples:
  tidegate gate release postgres:primary
  tidegate gate release http@http:app.example:443
  tidegate gate release --all";

/// The shortest order.
const SHORTEST: Duration = Duration::from_secs(1);

/// Flags of `tidegate gate force`.
#[derive(Debug, clap::Args)]
#[command(after_help = FORCE_EXAMPLES)]
pub(in crate::cli) struct ForceArgs {
    /// A resource, like postgres:primary, or an operation, like http@http:app.example:443
    #[arg(value_name = "TARGET")]
    target: String,
    /// What it is to be
    #[arg(value_name = "STATE|open|disabled|metrics-only|limit=N", value_parser = Will::parse)]
    order: Will,
    /// With a state: no worse than that, whatever is measured
    #[arg(long)]
    at_most: bool,
    /// How long the order holds; then it ends by itself. 1s to 1day
    #[arg(long = "for", value_name = "TIME", value_parser = holds, default_value = "15m")]
    holds: Duration,
    /// Why, for who looks at the gate: up to 500 bytes
    #[arg(long, value_name = "TEXT", value_parser = reason, default_value = "", hide_default_value = true)]
    why: String,
}

/// Flags of `tidegate gate release`.
#[derive(Debug, clap::Args)]
#[command(after_help = RELEASE_EXAMPLES)]
pub(in crate::cli) struct ReleaseArgs {
    /// The resource or operation whose orders end
    #[arg(
        value_name = "TARGET",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    target: Option<String>,
    /// All orders there are
    #[arg(long)]
    all: bool,
}

fn holds(given: &str) -> Result<Duration, String> {
    let time = duration::parse(given)?;
    if !(SHORTEST..=LONGEST_ORDER).contains(&time) {
        return Err("not within 1s to 1day".to_owned());
    }
    Ok(time)
}

/// Gives an order.
///
/// # Errors
/// There is no such target, the order does not suit it, or configuration or Redis.
pub(super) async fn force(args: ForceArgs, global: &Global) -> Result<Report, CliError> {
    let target = Target::parse(&args.target);
    let order = match (args.order, args.at_most) {
        (Will::AtLeast(state) | Will::AtMost(state), true) => Will::AtMost(state),
        (order, false) => order,
        (order, true) => {
            let message = format!("--at-most: goes with a state, not with {order}");
            return Err(CliError::Usage(message));
        }
    };
    let store = Store::open(global, None).await?;
    let fleet = Fleet::read(&store).await?;
    known::check(&store, &fleet, &target, order)?;
    let wish = Wish {
        target: &target,
        order,
        why: &args.why,
        holds: args.holds,
    };
    let book = OrderBook::new(&store.conn, &store.config.redis.prefix);
    let acted = book.force(&who(), &wish).await?;
    let until = acted
        .now_ms
        .saturating_add(u64::try_from(args.holds.as_millis()).unwrap_or(u64::MAX));
    let replaced = acted.ended.first();
    let notes = notes(&store, &fleet, order);
    let mut text = format!(
        "{target}: {order} until {} ({})\n",
        rfc3339(until),
        duration::format(args.holds)
    );
    if let Some(was) = replaced {
        text.push_str(&format!("  in place of {}, by {}\n", was.order, was.by));
    }
    for note in &notes {
        text.push_str(&format!("  but {note}\n"));
    }
    let json = json!({
        "target": target, "order": order, "until": until, "why": args.why, "replaced": replaced,
        "daemons": fleet.pages.len(), "notes": notes,
    });
    Ok(Report::new(json, text))
}

/// Why an order may not do what its giver thinks.
fn notes(store: &Store, fleet: &Fleet, order: Will) -> Vec<String> {
    let mut notes = Vec::new();
    if fleet.pages.is_empty() {
        notes.push("no daemon lives now".to_owned());
    }
    let mode = store.config.gate.mode;
    if order.aspect() == Aspect::State && mode != GateMode::On {
        notes.push("[gate] mode is not on: health holds nothing back".to_owned());
    }
    if order.aspect() == Aspect::Breaker && store.config.breaker.mode == BreakerMode::Off {
        notes.push("[breaker] mode is off: there are no breakers".to_owned());
    }
    notes
}

/// Takes orders back.
///
/// # Errors
/// There is none about the target, or configuration or Redis.
pub(super) async fn release(args: ReleaseArgs, global: &Global) -> Result<Report, CliError> {
    let store = Store::open(global, None).await?;
    let book = OrderBook::new(&store.conn, &store.config.redis.prefix);
    let (orders, _) = book.read().await?;
    let target = args.target.as_deref().map(Target::parse);
    let about = |order: &&Order| target.as_ref().is_none_or(|target| order.target == *target);
    let what: Vec<(Target, Aspect)> = orders
        .iter()
        .filter(about)
        .map(|order| (order.target.clone(), order.order.aspect()))
        .collect();
    if let (Some(target), true) = (&target, what.is_empty()) {
        let held: Vec<String> = orders.iter().map(|o| o.target.to_string()).collect();
        let held = match held.is_empty() {
            true => "there is no order at all".to_owned(),
            false => format!("there are orders about {}", held.join(", ")),
        };
        return Err(CliError::NotFound(format!(
            "no order about {target}: {held}"
        )));
    }
    let acted = book.release(&who(), &what).await?;
    let line = |o: &Order| {
        let left = age(o.until.saturating_sub(acted.now_ms));
        format!(
            "{}: {} released, {left} before its end\n",
            o.target, o.order
        )
    };
    let text = match acted.ended.is_empty() {
        true => "there was no order\n".to_owned(),
        false => acted.ended.iter().map(line).collect(),
    };
    Ok(Report::new(json!({"released": acted.ended}), text))
}
