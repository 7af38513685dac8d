//! Our breaker beside simple ones: how often each opens for nothing, how long it takes to notice an outage, how many
//! calls it wastes, and how it comes back. The same for the same seeds.
//!
//! The others are written from the published definitions and defaults of what they stand for: *row of six* is a count of
//! failures in a row (gobreaker: more than five, 60 s open, one trial), *half of 100* and *half of 10* a share of the last
//! calls (resilience4j: 50% of 100, 60 s open, ten trials; the second with a window of 10).

mod call;
mod fleet;
mod outage;
mod rival;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use call::{Any, Call, Who};
use outage::{Death, Outage};

/// Calls a minute.
const RATES: [f64; 4] = [1.0, 10.0, 100.0, 1_000.0];
/// Shares of calls that fail though the dependency is as well as ever.
const SHARES: [f64; 3] = [0.01, 0.1, 0.3];
const DAY_S: f64 = 86_400.0;
const OUTAGE_SEEDS: [u64; 5] = [3, 5, 7, 11, 13];

/// Openings a day while nothing changes: calls come at random, and each fails with the same chance.
fn false_opens(who: Who, rate: f64, share: f64, connect: bool, days: f64, seed: u64) -> f64 {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut breaker = Any::new(who);
    let (mut now, mut opened) = (0.0, 0_u32);
    while now < days * DAY_S {
        now += exponential(&mut rng, rate / 60.0);
        let Some(ticket) = breaker.admit(now) else {
            continue;
        };
        let call = match (rng.random_bool(share), connect) {
            (false, _) => Call::Good,
            (true, false) => Call::Failed,
            (true, true) => Call::Refused,
        };
        opened += u32::from(breaker.record(now, ticket, call, rng.random()));
    }
    f64::from(opened) / days
}

fn exponential(rng: &mut StdRng, rate: f64) -> f64 {
    -(1.0 - rng.random::<f64>()).ln() / rate
}

/// Days simulated at a rate: rare openings need many calls.
fn days(rate: f64, effort: f64) -> f64 {
    (effort * 2_000.0 / rate).min(200.0)
}

/// Prints all tables.
pub fn print() {
    print_false_opens();
    print_outages();
    fleet::print();
}

fn print_false_opens() {
    println!("\nOpenings a day for nothing: calls a minute / share of calls that fail\n");
    print!("| breaker | failures |");
    for share in SHARES {
        for rate in RATES {
            print!(" {rate:.0}/min {:.0}% |", share * 100.0);
        }
    }
    println!("\n|---|---|{}", "---:|".repeat(SHARES.len() * RATES.len()));
    let mut jobs = Vec::new();
    for who in Who::ALL {
        for connect in [false, true] {
            jobs.push(move || {
                let each = SHARES.iter().flat_map(|share| {
                    // Those that open often need no long look.
                    let effort = if who == Who::Ours { 0.5 } else { 0.1 };
                    RATES.map(|rate| false_opens(who, rate, *share, connect, days(rate, effort), 1))
                });
                (who, connect, each.collect::<Vec<f64>>())
            });
        }
    }
    for (who, connect, cells) in in_parallel(jobs) {
        let failures = if connect { "connect errors" } else { "answers" };
        let cells: Vec<String> = cells.iter().map(|x| number(*x)).collect();
        println!("| {} | {failures} | {} |", who.name(), cells.join(" | "));
    }
}

fn print_outages() {
    println!(
        "\nAn outage of ten minutes, and a dependency that comes back slowly: the mean of {} runs\n",
        OUTAGE_SEEDS.len()
    );
    println!(
        "| outage | calls/min | breaker | noticed after s | calls wasted | relapses | well again after s |"
    );
    println!("|---|---:|---|---:|---:|---:|---:|");
    let mut jobs = Vec::new();
    for death in Death::ALL {
        for rate in [10.0, 100.0, 1_000.0] {
            for who in Who::ALL {
                jobs.push(move || {
                    (
                        death,
                        rate,
                        who,
                        outage::mean(death, rate, who, &OUTAGE_SEEDS),
                    )
                });
            }
        }
    }
    for (
        death,
        rate,
        who,
        Outage {
            noticed,
            wasted,
            relapses,
            well,
        },
    ) in in_parallel(jobs)
    {
        let noticed = noticed.map_or("never".to_owned(), |s| format!("{s:.1}"));
        println!(
            "| {} | {rate:.0} | {} | {noticed} | {wasted:.0} | {relapses:.1} | {well:.0} |",
            death.name(),
            who.name()
        );
    }
}

/// Runs all of them, and keeps their order.
fn in_parallel<T: Send, F: Fn() -> T + Send + Sync>(jobs: Vec<F>) -> Vec<T> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let done = std::sync::Mutex::new(Vec::new());
    let work = || {
        while let Some((place, job)) = {
            let place = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            jobs.get(place).map(|job| (place, job))
        } {
            let result = job();
            done.lock().unwrap().push((place, result));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

fn number(x: f64) -> String {
    match x {
        0.0 => "0".to_owned(),
        x if x < 10.0 => format!("{x:.2}"),
        x => format!("{x:.0}"),
    }
}

/// What has become worse: a short form of the above for our breaker alone. The bounds are what is reached and a little
/// more.
pub fn worse() -> Vec<String> {
    let mut worse = Vec::new();
    let mut bound = |what: String, value: f64, most: f64| {
        if value > most {
            worse.push(format!("{what}: {value:.2} is more than {most}"));
        }
    };
    for connect in [false, true] {
        for share in SHARES {
            for rate in RATES {
                let opens = false_opens(Who::Ours, rate, share, connect, days(rate, 0.08), 1);
                let what = format!("false opens at {rate}/min, {share}, connect {connect}");
                bound(what, opens, 0.1);
            }
        }
    }
    for (death, noticed_s, wasted_most) in [
        (Death::Refuses, 4.5, 90.0),
        (Death::Fails, 12.0, 90.0),
        (Death::MostFail, 30.0, 400.0),
        (Death::Hangs, 25.0, 130.0),
    ] {
        let Outage {
            noticed,
            wasted,
            relapses,
            well,
        } = outage::mean(death, 100.0, Who::Ours, &OUTAGE_SEEDS[..2]);
        let name = death.name();
        bound(
            format!("{name}: noticed"),
            noticed.unwrap_or(f64::INFINITY),
            noticed_s,
        );
        bound(format!("{name}: calls wasted"), wasted, wasted_most);
        bound(format!("{name}: relapses"), relapses, 0.5);
        bound(format!("{name}: well again"), well, 120.0);
    }
    let sick = fleet::one_sick(0.05);
    bound(
        "fleet openings for one sick daemon".to_owned(),
        sick.opened,
        0.0,
    );
    bound(
        "seconds until a fleet is open".to_owned(),
        fleet::all_die(),
        8.0,
    );
    worse
}
