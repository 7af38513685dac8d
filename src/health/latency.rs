//! How long a dependency takes to answer, and whether it does. The asking itself is handed in as a closure.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::probe::{DEADLINE, Probe, Reading, Source, quantile};
use crate::clock;
use crate::config::LimitsConfig;
use crate::policy::gate::Signal;

/// What came of asking: an answer, or the dependency's error, which must carry no secret.
pub type Answer = Result<(), String>;

/// So many answers the p95 is taken over: one of twenty may be slow without being pressure.
const WINDOW: usize = 20;

/// Asks the Redis that `resource` names with `ping`: how long it takes, and whether it fails.
pub fn redis_rtt<F, A>(resource: &str, limits: &LimitsConfig, ping: F) -> Probe
where
    F: FnMut() -> A + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let names = ["redis_rtt_p95_ms", "redis_ping_failed"];
    probe(resource, names, limits.redis_rtt, ping)
}

/// Measures how long `acquire` waits for a connection of the job's Postgres pool. It must give the connection back.
pub fn postgres_acquire<F, A>(resource: &str, limits: &LimitsConfig, acquire: F) -> Probe
where
    F: FnMut() -> A + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let names = ["postgres_acquire_p95_ms", "postgres_acquire_failed"];
    probe(resource, names, limits.postgres_acquire, acquire)
}

/// Asks Postgres with `ping`: how long it takes, and whether it fails. Ask on a connection of its own, not on one of
/// the job's pool, or a busy pool looks like a dead server.
pub fn postgres_ping<F, A>(resource: &str, limits: &LimitsConfig, ping: F) -> Probe
where
    F: FnMut() -> A + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let names = ["postgres_rtt_p95_ms", "postgres_ping_failed"];
    probe(resource, names, limits.postgres_rtt, ping)
}

fn probe<F, A>(
    resource: &str,
    [p95, failed]: [&'static str; 2],
    [lo, hi]: [Duration; 2],
    ask: F,
) -> Probe
where
    F: FnMut() -> A + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let signals = [
        Signal::new(p95, millis(lo), millis(hi)),
        // A switch: a failure is full badness, though smoothing still asks for a few of them.
        Signal::new(failed, 1.0, 1.0),
    ];
    // It waits long enough to see the worst latency that makes a difference.
    Probe::new(resource, signals, Latency::new(ask)).within(DEADLINE.max(2 * hi))
}

/// Readings: the p95 of the last answers in milliseconds, and 1 if this one failed, else 0.
struct Latency<F> {
    ask: F,
    recent_ms: VecDeque<f64>,
}

impl<F> Latency<F> {
    fn new(ask: F) -> Self {
        Self {
            ask,
            recent_ms: VecDeque::with_capacity(WINDOW),
        }
    }

    fn answered(&mut self, took: Duration) -> Reading {
        self.recent_ms.truncate(WINDOW - 1);
        self.recent_ms.push_front(millis(took));
        quantile(self.recent_ms.iter().copied(), 0.95).ok_or_else(|| "no answer yet".to_owned())
    }
}

impl<F, A> Source for Latency<F>
where
    F: FnMut() -> A + Send,
    A: Future<Output = Answer> + Send + 'static,
{
    fn sample(&mut self) -> BoxFuture<'_, Vec<Reading>> {
        async {
            let asked = clock::monotonic();
            match (self.ask)().await {
                Ok(()) => {
                    let took = clock::monotonic().duration_since(asked);
                    vec![self.answered(took), Ok(0.0)]
                }
                // How long an error takes says nothing about how long an answer does.
                Err(error) => vec![Err(error), Ok(1.0)],
            }
        }
        .boxed()
    }

    /// It takes at least the deadline, which is known now; among the answers it is not counted, so that the first
    /// answer after an outage shows that it is over.
    fn unanswered(&mut self, deadline: Duration) -> Vec<Reading> {
        vec![Ok(millis(deadline)), Ok(1.0)]
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn ask(port: u16) -> Answer {
        let stream = TcpStream::connect(("127.0.0.1", port)).await;
        let mut stream = stream.map_err(|error| error.to_string())?;
        let answer = stream.read_u8().await.map_err(|error| error.to_string())?;
        if answer == b'+' {
            Ok(())
        } else {
            Err("it answered with an error".to_owned())
        }
    }

    async fn sampled(port: u16) -> Vec<Reading> {
        let limits = [Duration::from_millis(5), Duration::from_millis(25)];
        let mut probe = probe("r", ["p95", "failed"], limits, move || ask(port));
        probe.sample().await
    }

    #[tokio::test]
    async fn an_answer_an_error_a_refusal_and_silence_are_told_apart() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let answers = tokio::spawn(async move {
            for answer in [b'+', b'-'] {
                server
                    .accept()
                    .await
                    .unwrap()
                    .0
                    .write_u8(answer)
                    .await
                    .unwrap();
            }
            server
        });
        let answered = sampled(port).await;
        assert!((0.0..800.0).contains(answered[0].as_ref().unwrap()));
        assert_eq!(answered[1], Ok(0.0));
        let error = sampled(port).await;
        assert!(error[0].is_err());
        assert_eq!(error[1], Ok(1.0));

        // Connections are still accepted by the kernel, and nobody answers.
        let server = answers.await.unwrap();
        assert_eq!(sampled(port).await, [Ok(800.0), Ok(1.0)]);
        drop(server);
        let refused = sampled(port).await;
        assert!(refused[0].is_err());
        assert_eq!(refused[1], Ok(1.0));
    }

    #[test]
    fn one_slow_answer_of_twenty_is_not_pressure_and_two_are() {
        let mut latency = Latency::new(|| std::future::ready(Answer::Ok(())));
        let fast = Duration::from_millis(1);
        for _ in 0..100 {
            assert_eq!(latency.answered(fast), Ok(1.0));
        }
        assert_eq!(latency.answered(100 * fast), Ok(1.0));
        assert_eq!(latency.answered(100 * fast), Ok(100.0));
        assert_eq!(latency.recent_ms.len(), WINDOW);
        for _ in 0..18 {
            assert_eq!(latency.answered(fast), Ok(100.0));
        }
        assert_eq!(latency.answered(fast), Ok(1.0));
    }

    #[test]
    fn the_deadline_leaves_room_for_the_limits() {
        let probe = |hi| {
            let limits = [Duration::from_millis(1), Duration::from_millis(hi)];
            super::probe("r", ["p95", "failed"], limits, || async { Ok(()) })
        };
        assert_eq!(probe(25).deadline(), DEADLINE);
        assert_eq!(probe(2_000).deadline(), Duration::from_secs(4));
    }
}
