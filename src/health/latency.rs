//! How long a dependency takes to answer, and whether it does. The asking itself is handed in as a closure.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::probe::{DEADLINE, Probe, Reading, Source};
use crate::clock;
use crate::config::LimitsConfig;
use crate::policy::gate::Signal;

/// What came of asking: an answer, or the dependency's error, which must carry no secret.
pub type Answer = Result<(), String>;

/// One of so many answers may be slow without being pressure.
const WINDOW: usize = 20;

/// How often an asking process should have its turn, and how exact its timers are.
const TURN: Duration = Duration::from_millis(2);
const GRAIN: Duration = Duration::from_millis(1);

/// What it means that no answer came within the deadline.
#[derive(Clone, Copy)]
enum Silence {
    /// The dependency failed; how long an answer takes is not known.
    Failure,
    /// The wait is what is measured: it takes at least so long.
    LongWait,
}

/// Asks the Redis that `resource` names with `ping`: how long it takes, and whether it fails.
pub fn redis_rtt<F, A>(resource: &str, limits: &LimitsConfig, ping: F) -> Probe
where
    F: FnMut() -> A + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let names = ["redis_rtt_p95_ms", "redis_ping_failed"];
    probe(resource, names, limits.redis_rtt, Silence::Failure, ping)
}

/// Measures how long `acquire` waits for a connection of the job's Postgres pool. It must give the connection back.
pub fn postgres_acquire<F, A>(resource: &str, limits: &LimitsConfig, acquire: F) -> Probe
where
    F: FnMut() -> A + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let names = ["postgres_acquire_p95_ms", "postgres_acquire_failed"];
    let silence = Silence::LongWait;
    probe(resource, names, limits.postgres_acquire, silence, acquire)
}

/// Asks Postgres with `ping`: how long it takes, and whether it fails. Ask on a connection of its own, not on one of
/// the job's pool, or a busy pool looks like a dead server.
pub fn postgres_ping<F, A>(resource: &str, limits: &LimitsConfig, ping: F) -> Probe
where
    F: FnMut() -> A + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let names = ["postgres_rtt_p95_ms", "postgres_ping_failed"];
    probe(resource, names, limits.postgres_rtt, Silence::Failure, ping)
}

fn probe<F, A>(
    resource: &str,
    [p95, failed]: [&'static str; 2],
    [lo, hi]: [Duration; 2],
    silence: Silence,
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
    Probe::new(resource, signals, Latency::new(ask, silence)).within(DEADLINE.max(2 * hi))
}

/// Readings: how long the answer took in milliseconds, and 1 if there was none but an error, else 0.
///
/// The slowest of the last twenty answers is excused: it counts like the one next to it. Apart from that each answer
/// counts once, when it comes. A quantile over the window would show the same slow answer again and again until it has
/// left the window, and smoothing would take each time for new evidence.
struct Latency<F> {
    ask: F,
    silence: Silence,
    recent_ms: VecDeque<f64>,
}

impl<F> Latency<F> {
    fn new(ask: F, silence: Silence) -> Self {
        Self {
            ask,
            silence,
            recent_ms: VecDeque::with_capacity(WINDOW),
        }
    }

    /// What an answer counts as; the first alone can't be judged, and it opens a connection besides.
    fn answered(&mut self, took: Duration) -> Option<f64> {
        let took_ms = millis(took);
        self.recent_ms.truncate(WINDOW - 1);
        self.recent_ms.push_front(took_ms);
        let mut sorted: Vec<f64> = self.recent_ms.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let slowest_but_one = sorted.iter().rev().nth(1)?;
        Some(took_ms.min(*slowest_but_one))
    }
}

impl<F, A> Source for Latency<F>
where
    F: FnMut() -> A + Send,
    A: Future<Output = Answer> + Send + 'static,
{
    fn sample(&mut self) -> BoxFuture<'_, Vec<Reading>> {
        async {
            // Twice in the first sample, once afterwards.
            loop {
                let (answer, took) = timed((self.ask)()).await;
                if let Err(error) = answer {
                    // How long an error takes says nothing about how long an answer does.
                    return vec![Err(error), Ok(1.0)];
                }
                if let Some(counts_as) = self.answered(took) {
                    return vec![Ok(counts_as), Ok(0.0)];
                }
            }
        }
        .boxed()
    }

    /// Among the answers it is not counted, so that the first answer after an outage shows that it is over.
    fn unanswered(&mut self, deadline: Duration) -> Vec<Reading> {
        let waited = match self.silence {
            Silence::Failure => Err(format!("no answer within {deadline:?}")),
            Silence::LongWait => Ok(millis(deadline)),
        };
        vec![waited, Ok(1.0)]
    }
}

/// What came of asking, and how long it took without the time in which this process had no turn: a busy machine makes us
/// late, not the dependency. A timer beside it shows how long that was.
async fn timed<A: Future>(asking: A) -> (A::Output, Duration) {
    let mut asking = pin!(asking);
    let began = clock::monotonic();
    let (mut seen, mut late) = (began, Duration::ZERO);
    loop {
        let answer = tokio::select! {
            biased;
            answer = &mut asking => Some(answer),
            () = tokio::time::sleep(TURN) => None,
        };
        let now = clock::monotonic();
        late += now.duration_since(seen).saturating_sub(TURN + GRAIN);
        seen = now;
        if let Some(answer) = answer {
            return (answer, now.duration_since(began).saturating_sub(late));
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Sources, load};
    use crate::policy::gate::{GateState, ResourceGauge, Tuning};
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
        let names = ["p95", "failed"];
        let mut probe = probe("r", names, limits, Silence::Failure, move || ask(port));
        probe.sample().await
    }

    #[tokio::test]
    async fn an_answer_an_error_a_refusal_and_silence_are_told_apart() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let answers = tokio::spawn(async move {
            // The first sample asks twice.
            for answer in [b'+', b'+', b'-'] {
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
        let silent = sampled(port).await;
        assert!(silent[0].is_err());
        assert_eq!(silent[1], Ok(1.0));
        drop(server);
        let refused = sampled(port).await;
        assert!(refused[0].is_err());
        assert_eq!(refused[1], Ok(1.0));
    }

    /// On a runtime of one thread, whoever does not yield holds up every answer.
    #[tokio::test]
    async fn the_time_in_which_we_have_no_turn_is_not_the_dependencys() {
        let blocker = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            std::thread::sleep(Duration::from_millis(200));
        };
        let quick = timed(tokio::time::sleep(Duration::from_millis(5)));
        let (((), took), ()) = tokio::join!(quick, blocker);
        assert!(took < Duration::from_millis(100), "{took:?}");
        let ((), took) = timed(tokio::time::sleep(Duration::from_millis(300))).await;
        assert!(took > Duration::from_millis(100), "{took:?}");
    }

    fn latency() -> Latency<impl FnMut() -> std::future::Ready<Answer>> {
        Latency::new(|| std::future::ready(Answer::Ok(())), Silence::Failure)
    }

    const FAST: Duration = Duration::from_millis(1);
    const SLOW: Duration = Duration::from_millis(100);

    #[test]
    fn one_slow_answer_of_twenty_is_excused_and_each_further_one_counts_once() {
        let mut latency = latency();
        assert_eq!(latency.answered(FAST), None);
        for _ in 0..100 {
            assert_eq!(latency.answered(FAST), Some(1.0));
        }
        assert_eq!(latency.answered(SLOW), Some(1.0));
        assert_eq!(latency.answered(2 * SLOW), Some(100.0));
        assert_eq!(latency.answered(FAST), Some(1.0));
        assert_eq!(latency.recent_ms.len(), WINDOW);
        for _ in 0..18 {
            assert_eq!(latency.answered(FAST), Some(1.0));
        }
        assert_eq!(latency.answered(SLOW), Some(1.0));
    }

    /// The states of the gauge over one answer a second.
    fn states(answers: impl IntoIterator<Item = Duration>) -> Vec<GateState> {
        let signal = Signal::new("redis_rtt_p95_ms", 5.0, 25.0);
        let tuning = Tuning::from(&load(&Sources::default()).unwrap().gate);
        let mut gauge = ResourceGauge::new(0, tuning, [signal]);
        let mut latency = latency();
        let mut now_ms = 0;
        let mut second = |took| {
            now_ms += 1_000;
            gauge.sample(now_ms, signal.name, latency.answered(took));
            gauge.tick(now_ms);
            gauge.state()
        };
        answers.into_iter().map(&mut second).collect()
    }

    #[test]
    fn a_few_slow_answers_do_not_shut_the_gate_long_after_they_are_over() {
        use std::iter::repeat_n;
        // As at the start of a daemon on a busy machine.
        let slow_start = states(repeat_n(SLOW, 2).chain(repeat_n(FAST, 100)));
        assert_eq!(slow_start.iter().max(), Some(&GateState::Elevated));
        assert_eq!(slow_start[50], GateState::Ok);
        // Two hiccups far apart.
        let hiccup = || repeat_n(FAST, 12).chain([SLOW]);
        let hiccups = states(hiccup().chain(hiccup()).chain(repeat_n(FAST, 60)));
        assert_eq!(hiccups.iter().max(), Some(&GateState::Elevated));
        assert_eq!(hiccups.last(), Some(&GateState::Ok));
        // What stays slow still closes it within seconds.
        let lasting = states(repeat_n(FAST, 30).chain(repeat_n(SLOW, 6)));
        assert_eq!(lasting[29], GateState::Ok);
        assert_eq!(lasting[35], GateState::Critical);
        // And so does every second answer.
        let half = states((0..40).map(|n| if n % 2 == 0 { SLOW } else { FAST }));
        assert!(half.last() >= Some(&GateState::Overloaded), "{half:?}");
    }

    #[test]
    fn the_deadline_leaves_room_for_the_limits() {
        let probe = |hi| {
            let limits = [Duration::from_millis(1), Duration::from_millis(hi)];
            let silence = Silence::Failure;
            super::probe("r", ["p95", "failed"], limits, silence, || async { Ok(()) })
        };
        assert_eq!(probe(25).deadline(), DEADLINE);
        assert_eq!(probe(2_000).deadline(), Duration::from_secs(4));
    }
}
