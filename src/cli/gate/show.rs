//! `tidegate gate show`: the whole gate at a glance.

use super::super::fleet::Fleet;
use super::super::output::{age, table};
use super::super::store::Store;
use super::super::{CliError, Global, Report};
use super::supply;
use crate::clock::rfc3339;
use crate::config::GateMode;
use crate::health::{MEMORY, QUEUE_REDIS};
use crate::job::Priority;
use crate::policy::gate::{GateState, Order, Rules};
use serde_json::{Map, Value, json};

const EXAMPLES: &str = "\
Examples:
  tidegate gate show
  tidegate gate show --daemons
  tidegate gate show --json";

/// Flags of `tidegate gate show`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// Each daemon too: with --json, its whole page
    #[arg(long)]
    daemons: bool,
}

/// Shows it.
///
/// # Errors
/// Configuration or Redis.
pub(super) async fn run(args: &Args, global: &Global) -> Result<Report, CliError> {
    let store = Store::open(global, None).await?;
    let fleet = Fleet::read(&store).await?;
    let rules = fleet.rules(&store);
    let operations = operations(&fleet);
    let mut text = headline(&fleet, rules.mode);
    text.push_str(&resources_text(&fleet));
    text.push_str(&classes_text(&fleet, &rules));
    text.push_str(&operations_text(&operations));
    text.push_str(&supply::text(&fleet));
    text.push_str(&orders_text(&fleet));
    if args.daemons {
        text.push_str(&daemons_text(&fleet));
    }
    let resources: Map<String, Value> = fleet
        .resources()
        .map(|(name, resource)| (name.to_owned(), brief(resource)))
        .collect();
    let mut json = json!({
        "mode": rules.mode,
        "at": fleet.now_ms,
        "health_at": fleet.health.as_ref().map(|h| h["published_at"].clone()),
        "daemons": fleet.pages.len(),
        "slots": slots(&fleet),
        "resources": resources,
        "classes": classes(&fleet, &rules),
        "operations": operations,
        "orders": fleet.orders,
    });
    supply::write(&fleet, &mut json);
    if args.daemons {
        json["pages"] = fleet.pages.clone().into();
    }
    Ok(Report::new(json, text))
}

fn headline(fleet: &Fleet, mode: GateMode) -> String {
    let mode = match mode {
        GateMode::On => "on",
        GateMode::Shadow => "shadow: health holds nothing back",
        GateMode::Off => "off",
    };
    if fleet.health.is_none() && fleet.pages.is_empty() {
        return format!("gate {mode}; no daemon told of itself lately\n");
    }
    let slots = slots(fleet);
    format!(
        "gate {mode}; daemons: {}, slots in use: {} of {}\n",
        fleet.pages.len(),
        slots["used"],
        slots["total"]
    )
}

/// The slots of all daemons.
fn slots(fleet: &Fleet) -> Value {
    let sum = |field| sum(fleet, |page| &page["slots"][field]);
    json!({"total": sum("total"), "used": sum("used")})
}

fn sum<'a>(fleet: &'a Fleet, of: impl Fn(&'a Value) -> &'a Value) -> u64 {
    let each = fleet.pages.iter().filter_map(|page| of(page).as_u64());
    each.sum()
}

/// A resource without each of its signals.
fn brief(resource: &Value) -> Value {
    let mut brief = resource.clone();
    if let Some(fields) = brief.as_object_mut() {
        fields.remove("signals");
    }
    brief
}

fn state_of(resource: &Value) -> GateState {
    serde_json::from_value(resource["state"].clone()).unwrap_or_default()
}

pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn resources_text(fleet: &Fleet) -> String {
    let row = |(name, resource): (&str, &Value)| {
        let worst = &resource["worst"];
        let signal = match (&resource["forced"]["order"], &worst["name"]) {
            (Value::String(order), _) => format!("ordered: {order}"),
            (_, Value::String(signal)) => format!(
                "{signal} {} ({} to {})",
                text_of(&worst["value"]),
                worst["lo"],
                worst["hi"]
            ),
            _ => "-".to_owned(),
        };
        vec![
            name.to_owned(),
            state_of(resource).to_string(),
            text_of(&resource["pressure"]),
            age(resource["state_age_ms"].as_u64().unwrap_or_default()),
            signal,
        ]
    };
    let rows: Vec<Vec<String>> = fleet.resources().map(row).collect();
    section(
        "resource",
        &["state", "pressure", "for", "worst signal"],
        &rows,
    )
}

/// A table under its headings; nothing if it is empty.
pub(super) fn section(first: &str, headings: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let headings: Vec<&str> = std::iter::once(first)
        .chain(headings.iter().copied())
        .collect();
    format!("\n{}", table(&headings, rows))
}

/// Resources under pressure that only jobs which declare them are held back by.
fn pressed(fleet: &Fleet) -> Vec<(&str, GateState)> {
    let all = fleet.resources().map(|(name, r)| (name, state_of(r)));
    let pressed =
        all.filter(|(name, state)| *state > GateState::Ok && ![QUEUE_REDIS, MEMORY].contains(name));
    pressed.collect()
}

/// Of each class: the slots in use and those it may use in all daemons, and what is left to jobs that declare a resource
/// under pressure.
fn classes(fleet: &Fleet, rules: &Rules) -> Value {
    let each = Priority::ALL.into_iter().map(|class| {
        let name = class.as_str();
        let by = fleet.pages.iter().map(|page| &page["classes"][name]["by"]);
        let shares = pressed(fleet).into_iter();
        let shares =
            shares.map(|(resource, state)| (resource.to_owned(), rules.share(class, state).into()));
        let told = json!({
            "used": sum(fleet, |page| &page["classes"][name]["used"]),
            "limit": sum(fleet, |page| &page["classes"][name]["limit"]),
            "by": by.clone().find(|by| !by.is_null()),
            "share_on": Value::Object(shares.collect()),
        });
        (name.to_owned(), told)
    });
    Value::Object(each.collect())
}

fn classes_text(fleet: &Fleet, rules: &Rules) -> String {
    if fleet.pages.is_empty() {
        return String::new();
    }
    let pressed = pressed(fleet);
    let classes = classes(fleet, rules);
    let row = |class: Priority| {
        let told = &classes[class.as_str()];
        let by = match &told["by"]["resource"] {
            Value::String(name) => format!("{name} is {}", text_of(&told["by"]["state"])),
            _ => "-".to_owned(),
        };
        let mut row = vec![
            class.to_string(),
            told["used"].to_string(),
            told["limit"].to_string(),
            by,
        ];
        let shares = pressed
            .iter()
            .map(|(_, state)| format!("{:.0}%", rules.share(class, *state) * 100.0));
        row.extend(shares);
        row
    };
    let rows: Vec<Vec<String>> = Priority::ALL.into_iter().map(row).collect();
    let on: Vec<String> = pressed
        .iter()
        .map(|(name, _)| format!("on {name}"))
        .collect();
    let mut headings = vec!["in use", "may use", "by"];
    headings.extend(on.iter().map(String::as_str));
    section("class", &headings, &rows)
}

/// Breakers and limiters, by handler and resource.
pub(super) fn operations(fleet: &Fleet) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    for (list, field) in [("breakers", "breaker"), ("limiters", "limiter")] {
        for entry in fleet.each(list) {
            let same = |known: &&mut Value| {
                known["handler"] == entry["handler"] && known["resource"] == entry["resource"]
            };
            let detail = entry.clone();
            match found.iter_mut().find(same) {
                Some(known) => known[field] = detail,
                None => {
                    let (handler, resource) = (&entry["handler"], &entry["resource"]);
                    let mut made = json!({"handler": handler, "resource": resource});
                    made[field] = detail;
                    found.push(made);
                }
            }
        }
    }
    for operation in &mut found {
        for field in ["breaker", "limiter"] {
            if let Some(fields) = operation[field].as_object_mut() {
                fields.remove("handler");
                fields.remove("resource");
            }
        }
    }
    found
}

fn operations_text(operations: &[Value]) -> String {
    let row = |operation: &Value| {
        let breaker = &operation["breaker"]["breaker"];
        let limiter = &operation["limiter"];
        // Of all daemons together, where that is told.
        let all = |field: &str| match &limiter["all"][field] {
            Value::Null if field == "limit" => limiter["limit"].clone(),
            Value::Null => limiter["limiter"][field].clone(),
            known => known.clone(),
        };
        let state = breaker_text(breaker);
        let next = breaker["retry_in_ms"].as_u64();
        let calls = match breaker["calls"].as_u64() {
            Some(calls) => format!("{} and {} of {calls}", breaker["failures"], breaker["slow"]),
            None => "-".to_owned(),
        };
        vec![
            format!(
                "{}@{}",
                text_of(&operation["handler"]),
                text_of(&operation["resource"])
            ),
            state,
            calls,
            next.map_or_else(|| "-".to_owned(), age),
            text_of(&all("limit")),
            text_of(&all("inflight")),
            text_of(&limiter["by"]),
        ]
    };
    let rows: Vec<Vec<String>> = operations.iter().map(row).collect();
    let headings = [
        "breaker",
        "failed, slow",
        "next trial",
        "limit",
        "in use",
        "limited by",
    ];
    section("operation", &headings, &rows)
}

/// Its state; if it is not heeded, what it would do, and if it is held open, for how long.
fn breaker_text(breaker: &Value) -> String {
    let state = text_of(&breaker["state"]);
    let forced = breaker["forced_ms"].as_u64();
    match (&breaker["mode"], forced) {
        (Value::String(mode), _) if mode != "on" => {
            format!("{state} ({mode}, would {})", text_of(&breaker["would"]))
        }
        (_, Some(ms)) => format!("{state} (ordered, for {})", age(ms)),
        _ => state,
    }
}

fn orders_text(fleet: &Fleet) -> String {
    let row = |order: &Order| {
        let left = age(order.until.saturating_sub(fleet.now_ms));
        let why = if order.why.is_empty() {
            "-"
        } else {
            &order.why
        };
        vec![
            order.target.to_string(),
            order.order.to_string(),
            order.by.clone(),
            left,
            why.to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = fleet.orders.iter().map(row).collect();
    section("order about", &["is", "by", "ends in", "why"], &rows)
}

fn daemons_text(fleet: &Fleet) -> String {
    let row = |page: &Value| {
        let started = page["started_at"]
            .as_u64()
            .map_or_else(|| "-".to_owned(), rfc3339);
        let queues = page["queues"].as_array().into_iter().flatten();
        let queues: Vec<&str> = queues.filter_map(Value::as_str).collect();
        vec![
            text_of(&page["instance"]),
            text_of(&page["version"]),
            started,
            format!("{} of {}", page["slots"]["used"], page["slots"]["total"]),
            state_of(page).to_string(),
            queues.join(" "),
        ]
    };
    let rows: Vec<Vec<String>> = fleet.pages.iter().map(row).collect();
    section(
        "daemon",
        &["version", "since", "slots in use", "health", "queues"],
        &rows,
    )
}
