//! Schedules with their next runs, in plain words and for programs.

use super::super::output::{age, table};
use super::super::store::Store;
use super::super::{CliError, Report};
use super::{Board, boards};
use crate::catalog::schedules::{Scheduled, Source, Unserved};
use crate::policy::schedule::Misfire;
use crate::queue::schedules::any_last_tick;
use serde_json::{Value, json};

/// Lists the schedules of all queues.
pub(super) async fn run(store: &Store, next: usize) -> Result<Report, CliError> {
    let (mut views, mut rows) = (Vec::new(), Vec::new());
    for board in boards(store).await? {
        for scheduled in &board.schedules {
            let view = view(&board, scheduled, next);
            rows.push(row(&board, scheduled, &view));
            views.push(view);
        }
        for Unserved { name, reason } in &board.unserved {
            let queue = &*board.queue.name;
            views.push(
                json!({"name": name, "queue": queue, "source": Source::Added, "problem": reason}),
            );
            let row = [name, queue, "-", "-", reason, "added"];
            rows.push(row.map(str::to_owned).to_vec());
        }
        // A pause outlives its definition, so that it still counts when that comes back.
        let known = |name: &str| board.schedules.iter().any(|s| *s.name == *name);
        for name in board.stored.paused.keys().filter(|name| !known(name)) {
            let problem = "paused, but defined nowhere here";
            let queue = &*board.queue.name;
            views.push(json!({"name": name, "queue": queue, "problem": problem}));
            rows.push(
                [name, queue, "-", "-", problem, "-"]
                    .map(str::to_owned)
                    .to_vec(),
            );
        }
    }
    let text = if rows.is_empty() {
        "nothing runs by itself: give a definition a [schedule], or see `tidegate cron add --help`\n".to_owned()
    } else {
        table(
            &["schedule", "queue", "kind", "when", "next", "from"],
            &rows,
        )
    };
    Ok(Report::new(json!({"schedules": views}), text))
}

fn view(board: &Board, scheduled: &Scheduled, next: usize) -> Value {
    let schedule = &scheduled.spec.schedule;
    let now_ms = board.stored.glance.now_ms;
    let runs = std::iter::successors(schedule.next_after(now_ms), |t| schedule.next_after(*t));
    let record = board.stored.records.get(&*scheduled.name);
    let paused = board.stored.paused.get(&*scheduled.name);
    let mut view = json!({
        "name": &*scheduled.name,
        "queue": &*board.queue.name,
        "kind": &*scheduled.kind,
        "source": scheduled.source,
        "cron": schedule.to_string(),
        "timezone": schedule.zone(),
        "when": schedule.describe(),
        "misfire": scheduled.spec.misfire,
        "paused": paused.is_some(),
        "last": record.and_then(|r| any_last_tick(r)),
        "next": runs.take(next).collect::<Vec<u64>>(),
    });
    if let Some(since) = paused {
        view["paused_at"] = (*since).into();
    }
    if scheduled.spec.misfire == Misfire::All {
        view["catch_up"] = scheduled.spec.catch_up.into();
    }
    if !scheduled.args.is_empty() {
        view["args"] = Value::Object(scheduled.args.clone());
    }
    view
}

fn row(board: &Board, scheduled: &Scheduled, view: &Value) -> Vec<String> {
    let schedule = &scheduled.spec.schedule;
    let now_ms = board.stored.glance.now_ms;
    let next = match (view["paused_at"].as_u64(), view["next"][0].as_u64()) {
        (Some(since), _) => format!("paused for {}", age(now_ms.saturating_sub(since))),
        (None, Some(at)) => format!("{}, in {}", schedule.say(at, now_ms), age(at - now_ms)),
        (None, None) => "never again".to_owned(),
    };
    let from = match scheduled.source {
        Source::Definition => "definition",
        Source::Added => "added",
    };
    vec![
        scheduled.name.to_string(),
        board.queue.name.to_string(),
        scheduled.kind.to_string(),
        format!("{} ({})", schedule.describe(), schedule.zone()),
        next,
        from.to_owned(),
    ]
}
