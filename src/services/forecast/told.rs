//! How the forecast is told: in the JSON of health, as gauges.

use super::Forecaster;
use crate::config::duration;
use crate::policy::forecast::{Accuracy, Outlook, Peak, View, slot_at, slot_start_ms};
use arc_swap::ArcSwap;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The last that a forecaster told, as JSON; null before that, and where there is none.
pub type Told = Arc<ArcSwap<Value>>;

/// The name of a class, or of all together.
fn name(view: &View) -> &'static str {
    view.class.map_or("all", |class| class.as_str())
}

/// A forecast as JSON, at the slot `at`, which is the one it was made in or a later one. Loads are jobs at once on average.
#[must_use]
pub fn outlook_json(outlook: &Outlook, at: u64) -> Value {
    let views = outlook.views.iter();
    let classes: Map<String, Value> = views
        .map(|view| (name(view).to_owned(), view_json(view, at)))
        .collect();
    let cycle = outlook.views.first().and_then(|all| all.demand.cycle);
    json!({
        "slot": slot_start_ms(at),
        "lead_slots": outlook.lead,
        "history": {"began": outlook.began.map(slot_start_ms), "cycle": cycle},
        "peaks": outlook.peaks.iter().map(peak_json).collect::<Vec<_>>(),
        "classes": classes,
    })
}

fn view_json(view: &View, at: u64) -> Value {
    let predicted = view.demand.at(at);
    json!({
        "actual": view.actual.map(rounded),
        "expected": predicted.map(|p| rounded(p.expected)),
        "upper": predicted.and_then(|p| p.upper).map(rounded),
        "usual": predicted.map(|p| rounded(p.usual)),
        "level": rounded(view.demand.level),
        "jobs": view.jobs.map(rounded),
        "day": accuracy_json(&view.demand.day),
        "week": accuracy_json(&view.demand.week),
    })
}

fn accuracy_json(of: &Accuracy) -> Value {
    json!({
        "slots": of.slots,
        "error": of.error.map(rounded),
        "error_last_slot": of.error_last_slot.map(rounded),
        "error_last_week": of.error_last_week.map(rounded),
        "exceeded": of.exceeded.map(rounded),
    })
}

fn peak_json(peak: &Peak) -> Value {
    json!({
        "start": slot_start_ms(peak.start),
        "end": slot_start_ms(peak.end),
        "top": rounded(peak.top),
    })
}

/// To three decimals: more is noise.
#[must_use]
pub fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

impl Forecaster {
    /// Tells how it sees things now.
    pub(super) fn tell(&self, now_ms: u64) {
        let wanted = self.wanted(now_ms);
        self.gauge(now_ms, wanted);
        let base = (self.desk.base)();
        let config = &self.desk.config.forecast;
        let mut json = match &self.outlook {
            Some(outlook) => outlook_json(outlook, slot_at(now_ms)),
            None => json!({}),
        };
        json["trouble"] = self.trouble.iter().flatten().next().cloned().into();
        json["mode"] = json!(config.mode);
        json["lead"] = duration::format(config.lead).into();
        json["daemons"] = self.fleet.map(|fleet| fleet.daemons).into();
        // In shadow mode `now` is what it would be.
        json["slots"] = json!({
            "base": base,
            "max": config.max_slots(base),
            "wanted": wanted,
            "now": self.stance.slots(),
            "raised": self.stance.is_raised(),
            "unwell": self.unwell(),
            "last": self.last.as_ref().map(|(why, at)| json!({"why": why.to_string(), "at": at})),
        });
        self.desk.told.store(Arc::new(json));
    }

    fn gauge(&self, now_ms: u64, wanted: Option<usize>) {
        let metrics = self.desk.shared.metrics.forecast();
        metrics.slots("base", (self.desk.base)());
        metrics.slots("now", self.stance.slots());
        metrics.slots("wanted", wanted.unwrap_or(0));
        let Some(outlook) = &self.outlook else {
            return;
        };
        for view in &outlook.views {
            let class = name(view);
            let predicted = view.demand.at(slot_at(now_ms));
            metrics.demand(class, "actual", view.actual);
            metrics.demand(class, "expected", predicted.map(|p| p.expected));
            metrics.demand(class, "upper", predicted.and_then(|p| p.upper));
            let week = &view.demand.week;
            metrics.error(class, "forecast", week.error);
            metrics.error(class, "last_slot", week.error_last_slot);
            metrics.error(class, "last_week", week.error_last_week);
            metrics.error(class, "exceeded", week.exceeded);
        }
    }
}
