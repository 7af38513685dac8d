//! What `tidegate gate show` tells of retry budgets, connections, the reserve and the forecast.

use super::super::fleet::Fleet;
use super::super::forecast;
use super::super::output::age;
use super::show::{section, text_of};
use serde_json::{Value, json};

/// For people: tables, and a sentence for each daemon that forecasts.
pub(super) fn text(fleet: &Fleet) -> String {
    budgets_text(fleet) + &daemons_text(fleet) + &forecasts_text(fleet)
}

/// For programs: the budgets of all together, and of each daemon what is its own.
pub(super) fn write(fleet: &Fleet, to: &mut Value) {
    to["budgets"] = fleet.each("budgets").cloned().collect();
    for (list, field) in [
        ("reserves", "reserve"),
        ("pools", "pool"),
        ("forecasts", "forecast"),
    ] {
        to[list] = own(fleet, field)
            .map(|(page, own)| told(page, own))
            .collect();
    }
}

/// The daemons that tell of a field, with what they tell.
fn own<'a>(fleet: &'a Fleet, field: &str) -> impl Iterator<Item = (&'a Value, &'a Value)> {
    let each = fleet.pages.iter().map(move |page| (page, &page[field]));
    each.filter(|(_, own)| own.is_object())
}

fn told(page: &Value, own: &Value) -> Value {
    let mut told = own.clone();
    told["instance"] = page["instance"].clone();
    told["age_ms"] = page["age_ms"].clone();
    told
}

fn budgets_text(fleet: &Fleet) -> String {
    let percent = |share: &Value| {
        let share = share.as_f64();
        share.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share * 100.0))
    };
    let row = |entry: &Value| {
        let budget = &entry["budget"];
        let since = fleet.since(entry).map(age);
        vec![
            text_of(&entry["resource"]),
            text_of(&budget["state"]),
            since.unwrap_or_else(|| "-".to_owned()),
            percent(&budget["share"]),
            percent(&budget["limit"]),
            text_of(&budget["per_second"]),
            text_of(&budget["held"]),
        ]
    };
    let rows: Vec<Vec<String>> = fleet.each("budgets").map(row).collect();
    let headings = ["is", "for", "retries", "may be", "a second", "told to wait"];
    section("retry budget", &headings, &rows)
}

/// What is kept of the slots of each daemon, and what of its connections is used.
fn daemons_text(fleet: &Fleet) -> String {
    let row = |(page, reserve): (&Value, &Value)| {
        let pool = match page["pool"]["max"].as_u64() {
            Some(max) => format!("{} of {max}", page["pool"]["busy"]),
            None => "-".to_owned(),
        };
        let lend = reserve["lend_below_ms"].as_u64();
        vec![
            text_of(&page["instance"]),
            format!(
                "{} of {}",
                text_of(&reserve["reserved"]),
                text_of(&reserve["slots"])
            ),
            lend.map_or_else(|| "-".to_owned(), age),
            text_of(&reserve["long"]),
            pool,
        ]
    };
    let rows: Vec<Vec<String>> = own(fleet, "reserve").map(row).collect();
    let headings = [
        "reserved slots",
        "lent below",
        "long jobs",
        "connections in use",
    ];
    section("daemon", &headings, &rows)
}

fn forecasts_text(fleet: &Fleet) -> String {
    let line = |(page, forecast): (&Value, &Value)| {
        let told = json!({"instance": page["instance"], "mode": forecast["mode"], "slots": forecast["slots"],
            "trouble": forecast["trouble"]});
        format!("{}\n", forecast::daemon_line(&told))
    };
    let lines: String = own(fleet, "forecast").map(line).collect();
    match lines.is_empty() {
        true => lines,
        false => format!("\nforecast\n{lines}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> Fleet {
        let budget = json!({"state": "holding", "share": 0.31, "limit": 0.2, "per_second": 7.25, "held": 12});
        let mut fleet = Fleet::of(
            json!({"budgets": [{"resource": "http:app", "since": 1_000, "budget": budget}]}),
        );
        fleet.now_ms = 66_000;
        fleet.pages = vec![
            json!({"instance": "web1", "age_ms": 400, "pool": {"max": 10, "open": 4, "busy": 3},
            "reserve": {"slots": 32, "reserved": 3, "lend_below_ms": 1_000, "busy": 20, "long": 17},
            "forecast": {"mode": "on", "slots": {"base": 32, "max": 48, "wanted": 40, "now": 40,
                "last": {"why": "more load is forecast"}}}}),
        ];
        fleet
    }

    #[test]
    fn budgets_reserve_connections_and_forecast_are_shown() {
        let text = text(&fleet());
        for line in [
            "http:app      holding  1m 5s  31%      20%     7.25",
            "web1    3 of 32         1s",
            "3 of 10",
            "web1 has 40 slots (configured 32, at most 48); last change: more load is forecast",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert_eq!(super::text(&Fleet::default()), "");
    }

    #[test]
    fn programs_are_told_whose_it_is_and_how_old() {
        let mut json = json!({});
        write(&fleet(), &mut json);
        for list in ["reserves", "pools", "forecasts"] {
            let own = &json[list][0];
            assert_eq!(
                (&own["instance"], &own["age_ms"]),
                (&json!("web1"), &json!(400))
            );
        }
        assert_eq!(json["budgets"][0]["budget"]["held"], 12);
    }
}
