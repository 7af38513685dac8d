//! Health on real servers: a dependency that freezes, dies, is slow to hand out connections, and comes back.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::{PgPool, postgres::PgPoolOptions};
use tidegate::{
    config::{Config, Sources, load},
    health::{
        Answer, HealthView, Monitor, Probe, QUEUE_REDIS, Reason, local_probes, postgres_acquire,
        postgres_ping, redis_rtt, slots_for,
    },
    job::Priority,
    policy::gate::{GateState, Rules},
    queue::connection::{self, Connection},
    stack::{PostgresOptions, PrivatePostgres, PrivateRedis, RedisOptions, Scratch},
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::support::{DEADLINE, fresh_database};

const POSTGRES: &str = "postgres:primary";

/// The defaults, but sampled often and held briefly.
fn config(redis_url: &str) -> Config {
    let mut config = load(&Sources::default()).unwrap();
    config.redis.url = tidegate::config::Secret::new(redis_url);
    config.gate.sample = Duration::from_millis(100);
    config.gate.hold = Duration::from_millis(200);
    config
}

/// A running monitor and the states it told of.
struct Watched {
    view: watch::Receiver<Arc<HealthView>>,
    told: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Watched {
    fn start(config: &Config, probes: Vec<Probe>) -> Self {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&told);
        let (monitor, view) = Monitor::new(&config.gate, probes, move |resource, transition| {
            log.lock()
                .unwrap()
                .push(format!("{resource}: {transition}"));
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(monitor.run(stop.clone()));
        Self {
            view,
            told,
            stop,
            task,
        }
    }

    /// Waits for a view; says what it saw instead if none comes.
    async fn until(&mut self, what: &str, limit: Duration, reached: impl Fn(&HealthView) -> bool) {
        let found = tokio::time::timeout(limit, self.view.wait_for(|view| reached(view)));
        let found = found.await.is_ok();
        let told = self.told.lock().unwrap().join("\n");
        assert!(
            found,
            "not within {limit:?}: {what}; told:\n{told}\nnow: {}",
            self.view.borrow().to_json()
        );
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task)
            .await
            .unwrap()
            .unwrap();
    }
}

fn state(view: &HealthView, resource: &str) -> GateState {
    view.resources[resource].state
}

/// Whether every signal of a resource has been measured.
fn measured(view: &HealthView, resource: &str) -> bool {
    let mut signals = view.resources[resource].signals.iter();
    signals.all(|signal| signal.value.is_some())
}

fn bulk(view: &HealthView, resources: &[&str]) -> (usize, Option<Reason>) {
    let rules = Rules::from(&load(&Sources::default()).unwrap().gate);
    slots_for(view, Priority::Bulk, resources, 8, &rules)
}

async fn ping(mut redis: Connection) -> Answer {
    let pong = redis::cmd("PING").query_async::<String>(&mut redis).await;
    pong.map(drop).map_err(|error| error.to_string())
}

async fn redis_probe(config: &Config) -> Probe {
    let redis = connection::connect(&config.redis).await.unwrap();
    redis_rtt(QUEUE_REDIS, &config.gate.limits, move || {
        ping(redis.clone())
    })
}

fn pool(url: &str, connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .connect_lazy(url)
        .unwrap()
}

async fn acquire(pool: PgPool) -> Answer {
    let connection = pool.acquire().await;
    connection.map(drop).map_err(|error| error.to_string())
}

async fn select_one(pool: PgPool) -> Answer {
    let one = sqlx::query("SELECT 1").execute(&pool).await;
    one.map(drop).map_err(|error| error.to_string())
}

fn postgres_probes(config: &Config, jobs: &PgPool, own: &PgPool) -> Vec<Probe> {
    let (jobs, own) = (jobs.clone(), own.clone());
    let limits = &config.gate.limits;
    vec![
        postgres_acquire(POSTGRES, limits, move || acquire(jobs.clone())),
        postgres_ping(POSTGRES, limits, move || select_one(own.clone())),
    ]
}

#[tokio::test]
async fn a_frozen_redis_closes_the_gate_and_a_thawed_one_opens_it() {
    let scratch = Scratch::new().unwrap();
    let mut server = PrivateRedis::start(RedisOptions::new(scratch.path().join("redis"))).unwrap();
    let config = config(&server.url());
    let mut watched = Watched::start(&config, vec![redis_probe(&config).await]);
    watched
        .until("measured", DEADLINE, |view| measured(view, QUEUE_REDIS))
        .await;

    server.pause().unwrap();
    let frozen = Instant::now();
    watched
        .until("the state leaves ok", Duration::from_secs(5), |view| {
            state(view, QUEUE_REDIS) > GateState::Ok
        })
        .await;
    watched
        .until("critical", DEADLINE, |view| {
            state(view, QUEUE_REDIS) == GateState::Critical
        })
        .await;
    assert!(frozen.elapsed() < Duration::from_secs(10));
    let (slots, reason) = bulk(&watched.view.borrow(), &[]);
    let reason = reason.unwrap();
    assert_eq!((slots, reason.resource.as_str()), (0, QUEUE_REDIS));
    assert!(reason.value.unwrap() >= reason.limit, "{reason:?}");

    server.resume().unwrap();
    watched
        .until("ok again", DEADLINE, |view| {
            state(view, QUEUE_REDIS) == GateState::Ok
        })
        .await;
    assert_eq!(bulk(&watched.view.borrow(), &[]), (8, None));
    watched.end().await;
}

#[tokio::test]
async fn a_redis_that_is_gone_is_critical_by_its_ping() {
    let scratch = Scratch::new().unwrap();
    let mut server = PrivateRedis::start(RedisOptions::new(scratch.path().join("redis"))).unwrap();
    let config = config(&server.url());
    let mut watched = Watched::start(&config, vec![redis_probe(&config).await]);
    watched
        .until("measured", DEADLINE, |view| measured(view, QUEUE_REDIS))
        .await;
    server.kill9().unwrap();
    watched
        .until("critical by its ping", DEADLINE, |view| {
            let view = &view.resources[QUEUE_REDIS];
            view.state == GateState::Critical && view.signals[1].value == Some(1.0)
        })
        .await;
    server.restart().unwrap();
    watched
        .until("ok again", DEADLINE, |view| {
            state(view, QUEUE_REDIS) == GateState::Ok
        })
        .await;
    watched.end().await;
}

#[tokio::test]
async fn a_stopped_postgres_is_critical_for_the_jobs_that_use_it_alone() {
    let scratch = Scratch::new().unwrap();
    let options = PostgresOptions::new(scratch.path().join("postgres"));
    let mut server = PrivatePostgres::start(options).unwrap();
    let config = config("redis://127.0.0.1:1/0");
    let (jobs, own) = (
        pool(&server.url("postgres"), 4),
        pool(&server.url("postgres"), 1),
    );
    let mut watched = Watched::start(&config, postgres_probes(&config, &jobs, &own));
    watched
        .until("measured", DEADLINE, |view| measured(view, POSTGRES))
        .await;

    server.stop().unwrap();
    watched
        .until("critical", Duration::from_secs(10), |view| {
            state(view, POSTGRES) == GateState::Critical
        })
        .await;
    assert_eq!(bulk(&watched.view.borrow(), &[POSTGRES]).0, 0);
    assert_eq!(bulk(&watched.view.borrow(), &[]), (8, None));

    server.restart().unwrap();
    watched
        .until("ok again", DEADLINE, |view| {
            state(view, POSTGRES) == GateState::Ok
        })
        .await;
    watched.end().await;
}

#[tokio::test]
async fn a_pool_without_a_free_connection_is_pressure_though_the_server_is_well() {
    let config = config("redis://127.0.0.1:1/0");
    let url = fresh_database();
    let (jobs, own) = (pool(&url, 1), pool(&url, 1));
    let mut watched = Watched::start(&config, postgres_probes(&config, &jobs, &own));
    watched
        .until("measured", DEADLINE, |view| measured(view, POSTGRES))
        .await;

    let held = jobs.acquire().await.unwrap();
    watched
        .until("overloaded", DEADLINE, |view| {
            state(view, POSTGRES) >= GateState::Overloaded
        })
        .await;
    let view = Arc::clone(&watched.view.borrow());
    let signals = &view.resources[POSTGRES].signals;
    let value = |name: &str| {
        signals
            .iter()
            .find(|signal| signal.name == name)
            .unwrap()
            .value
    };
    assert_eq!(value("postgres_ping_failed"), Some(0.0));
    assert!(value("postgres_acquire_p95_ms").unwrap() >= 250.0);

    drop(held);
    watched
        .until("ok again", DEADLINE, |view| {
            state(view, POSTGRES) == GateState::Ok
        })
        .await;
    watched.end().await;
}

/// What all probes at their default interval cost: run alone, it takes ten seconds.
#[tokio::test]
#[ignore = "measures ten seconds of CPU time; run it alone"]
async fn sampling_costs_less_than_a_hundredth_of_a_core() {
    let mut config = config(&crate::support::redis_url());
    config.gate.sample = Duration::from_secs(1);
    let url = fresh_database();
    let mut probes = local_probes(&config.gate);
    probes.push(redis_probe(&config).await);
    probes.extend(postgres_probes(&config, &pool(&url, 2), &pool(&url, 1)));
    let mut watched = Watched::start(&config, probes);
    watched
        .until("measured", DEADLINE, |view| {
            view.resources.keys().all(|name| measured(view, name))
        })
        .await;

    let (began, before) = (Instant::now(), cpu_time());
    watched
        .until("ten seconds", DEADLINE, |_| {
            began.elapsed() >= Duration::from_secs(10)
        })
        .await;
    let share = (cpu_time() - before).div_duration_f64(began.elapsed());
    println!(
        "{:.3}% of a core; {}",
        share * 100.0,
        watched.view.borrow().to_json()
    );
    assert!(share < 0.01, "{share} of a core");
    watched.end().await;
}

/// The CPU time of all threads of this process so far.
fn cpu_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let on_cpu = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(on_cpu.sum())
}
