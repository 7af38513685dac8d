//! `tidegate forecast`: the load that is expected from the history in Redis, how good such forecasts were, and what a
//! daemon does about it.

use super::output::{age, table};
use super::setup::Global;
use super::store::connect;
use super::{CliError, Report};
use crate::config::{Config, ForecastMode, duration};
use crate::policy::forecast::{
    Cycle, DAY, History, Outlook, Rules, SLOT_MS, View, slot_at, slot_start_ms, slots_for,
};
use crate::queue::load_history::{DAYS, LoadHistory};
use crate::queue::pages;
use crate::services::forecast::{outlook_json, rounded};
use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  tidegate forecast
  tidegate forecast --json | jq '.classes.all.week.error'     0 is perfect; as last week is error_last_week
  tidegate forecast --json | jq '.ahead.all[:12]'             the next hour, five minutes each

A load is told as the number of jobs that run at once on average. `up to` is not exceeded in four of five slots of five
minutes ([forecast.model] quantile); `above` is how often it was, and should be about 20%. `error` is that of the forecasts of the last week, beside
what `as before` (the last five minutes) and `as last week` would have been. Times are UTC.";

/// Half hours of the coming day, each a sign of this row.
const STEPS: u64 = 48;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Flags of `tidegate forecast`: the global ones are all there are.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// Reads the history and forecasts from it, as every daemon does.
///
/// # Errors
/// Configuration, or Redis.
pub async fn run(_: Args, global: &Global) -> Result<Report, CliError> {
    let config = global.load_config()?;
    let conn = connect(&config).await?;
    let stored = LoadHistory::new(conn.clone(), &config.redis.prefix);
    let now_ms = stored.now_ms().await?;
    let now = slot_at(now_ms);
    let today = now / DAY;
    let mut history = History::default();
    for (slot, load) in stored.read(today.saturating_sub(DAYS - 1)..=today).await? {
        history.set(slot, &load);
    }
    let lead = config.forecast.lead.as_millis() as u64;
    let rules = Rules::from(&config.forecast);
    let outlook = Outlook::of(&history, &rules, now, lead.div_ceil(SLOT_MS));
    let pages = pages::read(&conn, &config.redis.prefix).await?;
    let daemons: Vec<Value> = pages.iter().filter_map(|of| told(&of.page)).collect();
    let json = view(&config, &outlook, &daemons);
    let text = text(&config, &outlook, &daemons, now_ms);
    Ok(Report::new(json, text))
}

/// What the page of a daemon says of its forecast; none if it has none.
fn told(page: &str) -> Option<Value> {
    let page: Value = serde_json::from_str(page).ok()?;
    let of = |field: &str| page["forecast"][field].clone();
    page["forecast"].is_object().then(|| {
        json!({
            "instance": page["instance"], "mode": of("mode"), "slots": of("slots"), "trouble": of("trouble"),
        })
    })
}

fn view(config: &Config, outlook: &Outlook, daemons: &[Value]) -> Value {
    let mut json = outlook_json(outlook, outlook.now);
    let ahead = outlook.views.iter().map(|view| {
        let slots = (outlook.now..).zip(&view.demand.ahead);
        let slots = slots.map(|(slot, predicted)| {
            json!({
                "slot": slot_start_ms(slot),
                "expected": predicted.map(|p| rounded(p.expected)),
                "upper": predicted.and_then(|p| p.upper).map(rounded),
            })
        });
        (name(view).to_owned(), slots.collect::<Value>())
    });
    json["ahead"] = Value::Object(ahead.collect());
    json["mode"] = json!(config.forecast.mode);
    json["wanted_slots"] = outlook.wanted(outlook.now).map(slots_for).into();
    json["daemons"] = json!(daemons);
    json
}

fn name(view: &View) -> &'static str {
    view.class.map_or("all", |class| class.as_str())
}

fn text(config: &Config, outlook: &Outlook, daemons: &[Value], now_ms: u64) -> String {
    let headings = [
        "class",
        "last 5m",
        "now",
        "up to",
        "jobs",
        "the next 24 hours, half hours",
        "error",
        "as before",
        "as last week",
        "above",
    ];
    let rows: Vec<Vec<String>> = outlook.views.iter().map(|v| row(v, outlook.now)).collect();
    let mut text = table(&headings, &rows);
    text.push('\n');
    for line in [
        history_line(config, outlook, now_ms),
        peak_line(outlook),
        wanted_line(config, outlook, daemons),
    ] {
        text.push_str(&line);
        text.push('\n');
    }
    for daemon in daemons {
        text.push_str(&daemon_line(daemon));
        text.push('\n');
    }
    text
}

fn row(view: &View, now: u64) -> Vec<String> {
    let number = |n: Option<f64>| n.map_or_else(|| "-".to_owned(), |n| format!("{n:.1}"));
    let percent =
        |n: Option<f64>| n.map_or_else(|| "-".to_owned(), |n| format!("{:.0}%", n * 100.0));
    let predicted = view.demand.at(now);
    let week = &view.demand.week;
    vec![
        name(view).to_owned(),
        number(view.actual),
        number(predicted.map(|p| p.expected)),
        number(predicted.and_then(|p| p.upper)),
        view.jobs
            .map_or_else(|| "-".to_owned(), |n| format!("{n:.0}")),
        spark(view),
        percent(week.error),
        percent(week.error_last_slot),
        percent(week.error_last_week),
        // Without load there is nothing to exceed.
        percent(week.error.and(week.exceeded)),
    ]
}

/// A day as a row of bars, each the most of its half hour; a dot where nothing is known.
fn spark(view: &View) -> String {
    let ahead = &view.demand.ahead;
    let step = (DAY / STEPS) as usize;
    let each = ahead.chunks(step).take(STEPS as usize).map(|slots| {
        let known = slots.iter().flatten().map(|p| p.expected);
        known.max_by(f64::total_cmp)
    });
    let each: Vec<Option<f64>> = each.collect();
    let top = each.iter().flatten().copied().fold(0.0, f64::max);
    let bar = |n: f64| {
        if top <= 0.0 {
            return BARS[0];
        }
        let eighth = (n / top * BARS.len() as f64) as usize;
        BARS[eighth.min(BARS.len() - 1)]
    };
    each.into_iter().map(|n| n.map_or('·', bar)).collect()
}

fn history_line(config: &Config, outlook: &Outlook, now_ms: u64) -> String {
    let model = &config.forecast.model;
    let Some(began) = outlook.began else {
        return "no history yet: daemons record it unless [forecast] mode is off".to_owned();
    };
    let known = age(now_ms.saturating_sub(slot_start_ms(began)));
    let all = outlook.views.first().map(|all| &all.demand);
    match all.and_then(|all| all.cycle.map(|cycle| (cycle, all.level))) {
        None => format!("{known} of history: too little to forecast from, which takes three days"),
        Some((cycle, level)) => {
            let [least, level_over] = [model.weekly_after, model.level_over].map(duration::format);
            let cycle = match cycle {
                Cycle::Day => format!("each day like the days before, until there are {least}"),
                Cycle::Week => format!("each weekday like the last {}", model.weeks),
            };
            format!("{known} of history: {cycle}; the last {level_over} were {level:.2} times that")
        }
    }
}

fn peak_line(outlook: &Outlook) -> String {
    let Some(peak) = outlook.peaks.first() else {
        return "no peak is known in the next 24 hours".to_owned();
    };
    format!(
        "the next known peak: {} to {}, up to {:.1} jobs at once",
        time(slot_start_ms(peak.start)),
        time(slot_start_ms(peak.end)),
        peak.top
    )
}

fn time(ms: u64) -> String {
    let at = i64::try_from(ms)
        .ok()
        .and_then(DateTime::from_timestamp_millis);
    at.map_or_else(String::new, |at| {
        at.to_rfc3339_opts(SecondsFormat::Secs, true)
    })
}

fn wanted_line(config: &Config, outlook: &Outlook, daemons: &[Value]) -> String {
    let lead = duration::format(config.forecast.lead);
    let wanted = match outlook.wanted(outlook.now) {
        Some(load) => format!("the next {lead} want {} slots in all", slots_for(load)),
        None => "no number of slots follows from it yet".to_owned(),
    };
    if !daemons.is_empty() {
        return wanted;
    }
    let mode = match config.forecast.mode {
        ForecastMode::On => "on",
        ForecastMode::Shadow => "shadow",
        ForecastMode::Off => "off",
    };
    format!("{wanted}; no daemon tells of one (here, [forecast] mode is {mode})")
}

/// The slots of one daemon, and why it has them.
pub(super) fn daemon_line(daemon: &Value) -> String {
    let slots = &daemon["slots"];
    let count = |name: &str| slots[name].as_u64().unwrap_or(0);
    let has = if daemon["mode"] == "on" {
        "has"
    } else {
        "would have (mode shadow)"
    };
    let mut line = format!(
        "{} {has} {} slots (configured {}, at most {})",
        daemon["instance"].as_str().unwrap_or("a daemon"),
        count("now"),
        count("base"),
        count("max")
    );
    if let Some(unwell) = slots["unwell"].as_str() {
        line.push_str(&format!("; it raises none: {unwell} is not well"));
    }
    if let Some(trouble) = daemon["trouble"].as_str() {
        line.push_str(&format!("; its history can't be reached: {trouble}"));
    } else if let Some(why) = slots["last"]["why"].as_str() {
        line.push_str(&format!("; last change: {why}"));
    }
    line
}
