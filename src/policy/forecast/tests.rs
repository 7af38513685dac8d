//! What the model must say of loads that are known, and how a daemon's slots follow.

#![allow(clippy::unwrap_used, clippy::panic)]
use super::synthetic::{Noise, batches, office, shop, weeks};
use super::*;
use crate::job::Priority;

const NOW: u64 = 5 * WEEK;
/// Ten minutes.
const LEAD: u64 = 2;

fn fit(series: &Series, now: u64) -> Model {
    Model::fit(series, &Rules::default(), now, LEAD)
}

/// The first part of a series.
fn until(series: &Series, from: u64, to: u64) -> Series {
    let mut part = Series::default();
    for slot in from..to {
        part.set(slot, series.get(slot));
    }
    part
}

/// `cargo test --lib forecast::tests::table -- --nocapture` prints the table of `docs/GATE.md`.
#[test]
fn table() {
    let growing = |slot| office(slot) * 1.02_f64.powf(slot as f64 / DAY as f64);
    let plants = [
        ("office", weeks(office, 0.15, 0.0, 1)),
        ("office, days differ", weeks(office, 0.15, 0.25, 2)),
        ("office, grows 2% a day", weeks(growing, 0.15, 0.1, 3)),
        ("shop", weeks(shop, 0.15, 0.1, 4)),
        ("batches to the minute", weeks(batches, 0.15, 0.0, 5)),
        ("few jobs", weeks(|s| office(s) / 20.0, 0.3, 0.2, 6)),
        ("very noisy", weeks(shop, 0.5, 0.2, 7)),
        ("no season", weeks(|_| 5.0, 0.3, 0.0, 8)),
    ];
    println!("| season | forecast | as the last slot | as last week | above the bound |");
    for (name, series) in plants {
        let week = fit(&series, NOW).week;
        let [own, last_slot, last_week, exceeded] = [
            week.error,
            week.error_last_slot,
            week.error_last_week,
            week.exceeded,
        ]
        .map(Option::unwrap);
        println!(
            "| {name} | {own:.3} | {last_slot:.3} | {last_week:.3} | {:.0}% |",
            100.0 * exceeded
        );
        assert!(own < last_slot && own < last_week, "{name}: {week:?}");
        assert!((0.14..=0.27).contains(&exceeded), "{name}: {week:?}");
    }
}

#[test]
fn an_odd_week_does_not_spoil_the_usual() {
    let plain = weeks(office, 0.0, 0.0, 1);
    let mut odd = plain.clone();
    let holiday = NOW - 2 * WEEK;
    for slot in holiday..holiday + 5 * DAY {
        odd.set(slot, Some(0.5));
    }
    let (plain, odd) = (fit(&plain, NOW), fit(&odd, NOW));
    for (a, b) in plain.ahead.iter().zip(&odd.ahead) {
        let (a, b) = (a.unwrap().usual, b.unwrap().usual);
        assert!((a - b).abs() <= 0.1 * a + 0.3, "{a} became {b}");
    }
}

#[test]
fn growth_is_caught_up_with_by_the_level() {
    let doubled = |slot: u64| office(slot) * if slot >= NOW - WEEK { 1.6 } else { 1.0 };
    let series = weeks(doubled, 0.05, 0.0, 1);
    let now = NOW - 5 * DAY + 10 * 12;
    let model = fit(&until(&series, 0, now), now);
    assert!((1.3..=1.7).contains(&model.level), "{}", model.level);
    let next = model.at(now + LEAD).unwrap();
    let actual = doubled(now + LEAD);
    assert!((next.expected - actual).abs() < 0.25 * actual, "{next:?}");
    assert!(next.usual < 0.8 * actual, "{next:?}");
}

#[test]
fn the_level_stays_within_its_bounds() {
    for factor in [0.01, 100.0] {
        let series = weeks(
            |slot| office(slot) * if slot >= NOW - 12 { factor } else { 1.0 },
            0.0,
            0.0,
            1,
        );
        let level = fit(&series, NOW).level;
        assert!((0.5..=2.0).contains(&level), "{factor}: {level}");
    }
}

#[test]
fn after_a_shift_of_the_local_clock_a_peak_is_expected_at_its_old_time_until_most_weeks_know_the_new_one()
 {
    let shifted = NOW - 2 * WEEK;
    let peak = |slot: u64| {
        let local = if slot >= shifted { slot + 12 } else { slot };
        office(local)
    };
    let series = weeks(peak, 0.0, 0.0, 1);
    let off = |now: u64| {
        let model = fit(&until(&series, 0, now), now);
        let wrong = (now..now + DAY).map(|s| (model.at(s).unwrap().usual - peak(s)).abs());
        wrong.sum::<f64>()
    };
    let mut later = series.clone();
    for slot in NOW..NOW + 2 * WEEK {
        later.set(slot, Some(peak(slot)));
    }
    let [first, second] = [off(shifted), off(shifted + WEEK)];
    let model = fit(&until(&later, WEEK, shifted + 3 * WEEK), shifted + 3 * WEEK);
    let fourth: f64 = (model.now..model.now + DAY)
        .map(|s| (model.at(s).unwrap().usual - peak(s)).abs())
        .sum();
    assert!(second > 0.5 * first, "{first} {second}");
    assert!(fourth < 0.2 * first, "{first} {fourth}");
}

#[test]
fn where_nobody_looked_nothing_is_known_and_no_work_is_not_that() {
    let seen = SlotLoad {
        up_ms: 300_000,
        ..SlotLoad::default()
    };
    assert_eq!(seen.demand(None), Some(0.0));
    assert_eq!(SlotLoad::default().demand(None), None);
    let mut history = History::default();
    history.set(10, &seen);
    history.set(11, &SlotLoad::default());
    assert_eq!(history.demand(Some(Priority::Bulk)).get(10), Some(0.0));
    assert_eq!(history.demand(None).get(11), None);

    // A week in which no daemon ran is left out, and does not count as a quiet one.
    let whole = weeks(office, 0.05, 0.0, 1);
    let mut gap = whole.clone();
    for slot in NOW - 2 * WEEK..NOW - WEEK {
        gap.set(slot, None);
    }
    let (whole, gap) = (fit(&whole, NOW), fit(&gap, NOW));
    let sum = |model: &Model| model.ahead.iter().map(|p| p.unwrap().usual).sum::<f64>();
    let (a, b) = (sum(&whole), sum(&gap));
    assert!((a - b).abs() < 0.03 * a, "{a} {b}");
}

#[test]
fn little_history_says_nothing_then_a_day_repeats_then_a_week() {
    let series = weeks(office, 0.05, 0.0, 1);
    let of = |days: u64| fit(&until(&series, 0, days * DAY), days * DAY);
    assert!(of(0).cycle.is_none());
    assert!(of(2).ahead.iter().all(Option::is_none));
    assert_eq!(of(4).cycle, Some(Cycle::Day));
    assert!(of(4).at(4 * DAY).unwrap().upper.is_some());
    assert_eq!(of(13).cycle, Some(Cycle::Day));
    assert_eq!(of(14).cycle, Some(Cycle::Week));
}

#[test]
fn forecasts_do_not_know_the_future() {
    let series = weeks(office, 0.15, 0.1, 9);
    let mut other = series.clone();
    for slot in NOW - DAY..NOW {
        other.set(slot, Some(1_000.0));
    }
    let at = NOW - DAY;
    let (a, b) = (fit(&series, at), fit(&other, at));
    assert_eq!(a.ahead, b.ahead);
    assert_eq!(a.week, b.week);
}

#[test]
fn whatever_the_history_forecasts_are_finite_and_not_negative() {
    let mut random = Noise(77);
    for round in 0..30 {
        let mut series = Series::default();
        let now = 1_000 + round * 397;
        for slot in 0..now {
            let value = random.normal();
            let known = value > -0.5;
            series.set(slot, known.then(|| (value * 1e3).max(0.0)));
        }
        let model = fit(&series, now);
        for predicted in model.ahead.iter().flatten() {
            let upper = predicted.upper.unwrap_or(0.0);
            for number in [predicted.usual, predicted.expected, upper] {
                assert!(number.is_finite() && number >= 0.0, "{predicted:?}");
            }
        }
    }
}

#[test]
fn a_series_keeps_five_weeks_whatever_order_it_is_filled_in() {
    let mut series = Series::default();
    series.set(5_000, Some(1.0));
    series.set(4_990, Some(2.0));
    series.set(5_010, Some(3.0));
    assert_eq!(
        [4_990, 4_991, 5_000, 5_010, 5_011].map(|s| series.get(s)),
        [Some(2.0), None, Some(1.0), Some(3.0), None]
    );
    for slot in 5_011..5_000 + 2 * KEPT {
        series.set(slot, Some(4.0));
    }
    assert_eq!(series.get(5_010), None);
    series.set(0, Some(9.0));
    assert_eq!(series.get(0), None, "too long ago");
    series.set(u64::MAX / 2, Some(5.0));
    assert_eq!(series.get(u64::MAX / 2), Some(5.0));
}

#[test]
fn peaks_are_found_where_the_day_stands_out() {
    // Monday.
    let model = fit(&weeks(office, 0.05, 0.0, 1), NOW);
    let found = peaks(&model, &PeakRules::default());
    assert_eq!(found.len(), 2, "the long dip at noon parts them: {found:?}");
    let start = (found[0].start - NOW) as f64 / 12.0;
    assert!((7.5..=9.5).contains(&start), "{start}");
    let flat = fit(&weeks(|_| 5.0, 0.1, 0.0, 1), NOW);
    assert!(peaks(&flat, &PeakRules::default()).is_empty());
    let nothing = fit(&Series::default(), NOW);
    assert!(peaks(&nothing, &PeakRules::default()).is_empty());
    // In the middle of it its start is not known.
    let now = NOW - 7 * DAY + 10 * 12;
    let within = fit(&weeks(office, 0.05, 0.0, 1), now);
    let found = peaks(&within, &PeakRules::default());
    assert!(found.iter().all(|p| p.start > now + 12));
    // What is a peak is a matter of the rules.
    let strict = PeakRules {
        above: 50.0,
        ..PeakRules::default()
    };
    assert!(peaks(&model, &strict).is_empty());
    let idle = fit(&weeks(|_| 0.0, 0.0, 0.0, 1), NOW);
    let lax = PeakRules {
        above: 1.0,
        part: 0.1,
        least: 0.0,
    };
    assert!(peaks(&idle, &lax).is_empty(), "nothing to prepare for");
}

const MINUTE: u64 = 60_000;

fn setting(wanted: usize) -> Setting<'static> {
    Setting {
        base: 8,
        max: 20,
        wanted: Some(wanted),
        unwell: None,
        full: false,
    }
}

#[test]
fn slots_rise_at_once_and_come_back_gently() {
    let mut stance = Stance::default();
    assert_eq!(stance.step(0, &setting(5)), None);
    assert_eq!(stance.slots(), 8, "never lower");
    let change = stance.step(1, &setting(16)).unwrap();
    assert_eq!((change.from, change.to, change.why), (8, 16, Why::Peak));
    assert_eq!(stance.step(2, &setting(50)).unwrap().to, 20, "never past");
    let mut last = stance.slots();
    let mut returned = None;
    for minute in 1..40 {
        let change = stance.step(minute * MINUTE, &setting(4));
        let now = stance.slots();
        assert!(now <= last && last - now <= 3, "{last} to {now}");
        assert!(minute > 5 || now == 20, "it lingers");
        last = now;
        returned = returned.or(change);
    }
    let returned = returned.unwrap();
    assert_eq!(
        (returned.from, returned.to, returned.why),
        (20, 8, Why::Over)
    );
    assert_eq!(stance.slots(), 8);
}

#[test]
fn a_peak_whose_work_is_not_done_is_not_over_for_half_an_hour() {
    let mut stance = Stance::default();
    stance.step(0, &setting(20));
    let full = Setting {
        full: true,
        ..setting(0)
    };
    for minute in 1..=30 {
        stance.step(minute * MINUTE, &full);
        assert_eq!(stance.slots(), 20, "minute {minute}");
    }
    for minute in 31..70 {
        stance.step(minute * MINUTE, &full);
    }
    assert_eq!(stance.slots(), 8);
}

#[test]
fn what_is_not_well_ends_it_at_once_and_for_a_while() {
    let mut stance = Stance::default();
    stance.step(0, &setting(20));
    let sick = Setting {
        unwell: Some("host"),
        ..setting(20)
    };
    let change = stance.step(10, &sick).unwrap();
    assert_eq!((change.from, change.to), (20, 8));
    assert_eq!(change.why.to_string(), "host is not well");
    assert_eq!(stance.step(20, &sick), None, "told once");
    assert_eq!(stance.step(4 * MINUTE, &setting(20)), None);
    assert_eq!(stance.slots(), 8);
    assert!(stance.step(6 * MINUTE, &setting(20)).is_some());
}

#[test]
fn a_reload_moves_the_base_and_the_room() {
    let mut stance = Stance::default();
    stance.step(0, &setting(20));
    let larger = Setting {
        base: 12,
        ..setting(20)
    };
    stance.step(1, &larger);
    assert_eq!(stance.slots(), 20);
    let none = Setting {
        base: 24,
        ..setting(20)
    };
    let change = stance.step(2, &none).unwrap();
    assert_eq!((change.to, change.why), (24, Why::Configured));
    assert_eq!(stance.slots(), 24);
}

#[test]
fn slots_never_leave_the_range_from_base_to_most() {
    let mut random = Noise(5);
    let mut stance = Stance::default();
    for step in 0..20_000_u64 {
        let mut pick = |n: f64| ((random.normal().abs() * n) as usize).min(60);
        let base = 1 + pick(8.0);
        let at = Setting {
            base,
            max: pick(30.0),
            wanted: Some(pick(20.0)),
            unwell: (pick(1.0) > 1).then_some("memory"),
            full: pick(1.0) > 0,
        };
        stance.step(step * 10_000, &at);
        assert!(stance.slots() >= base && stance.slots() <= base.max(at.max));
        assert!(at.unwell.is_none() || stance.slots() == base);
    }
}

#[test]
fn a_load_needs_its_slots_and_some_for_its_noise() {
    assert_eq!([0.0, 1.0, 16.0, 100.0].map(slots_for), [0, 2, 20, 110]);
    assert_eq!(slots_for(f64::NAN), 0);
    assert_eq!(slots_for(-1.0), 0);
}
