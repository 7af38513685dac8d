//! Running jobs: what is claimed, how it runs, how its end goes back, and the lease under which all that is done.
//!
//! Owns: the claim loop, concurrency limits, operations, the pipeline around handlers, settlement, rescue. Must not know
//! how a job is stored, what a handler does, or where health comes from.

mod advice;
pub mod context;
mod ending;
pub mod feeder;
mod heads;
pub mod inflight;
mod keeper;
pub mod lease;
pub mod load;
pub mod operations;
pub mod pipeline;
mod progress;
pub mod registry;
mod report;
pub mod settler;
pub mod slots;
pub mod stop;

pub use context::{QueueContext, Shared};
pub use feeder::Phase;
pub use registry::Registry;
pub use report::heal;

use crate::clock;
use crate::config::RedisConfig;
use crate::handlers::Adviser;
use crate::queue::backend::{self, ClaimedBackend};
use apalis_core::monitor::Monitor;
use apalis_core::worker::builder::WorkerBuilder;
use feeder::Feeder;
use parking_lot::Mutex;
use pipeline::{DeadlineLayer, Dispatch, Run, SettleLayer};
use settler::SettlerHandle;
use std::sync::Arc;
use std::time::Duration;
use stop::StopReason;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often the task that runs handlers shows that it has its turn.
const PULSE: Duration = Duration::from_millis(500);
/// How long the last settlements may take at the end.
const SETTLE_DEADLINE: Duration = Duration::from_secs(5);
/// How long handlers may take to end after they were told to hand back.
const HAND_BACK_DEADLINE: Duration = Duration::from_secs(3);
/// How long it may take to drop those that did not.
const DROP_DEADLINE: Duration = Duration::from_secs(1);

/// All queues of this daemon at work.
pub struct Runner {
    queues: Vec<Arc<QueueContext>>,
    phase: watch::Sender<Phase>,
    feeders: Vec<JoinHandle<()>>,
    workers: JoinHandle<()>,
    settlers: Vec<(SettlerHandle, JoinHandle<()>)>,
    keepers: Vec<JoinHandle<()>>,
    keepers_stop: CancellationToken,
}

impl Runner {
    /// Starts work on the given queues: one apalis worker each, under one monitor.
    #[must_use]
    pub fn start(queues: Vec<Arc<QueueContext>>, redis: &RedisConfig) -> Self {
        let phase = watch::Sender::new(Phase::Running);
        let keepers_stop = CancellationToken::new();
        let mut monitor = Monitor::new();
        let (mut feeders, mut settlers, mut keepers) = (Vec::new(), Vec::new(), Vec::new());
        for context in &queues {
            let (sender, backend) = backend::channel();
            let settler = SettlerHandle::default();
            monitor = register(monitor, context, backend, settler.clone());
            let feeder = Feeder::new(
                Arc::clone(context),
                redis.clone(),
                sender,
                settler.clone(),
                phase.subscribe(),
            );
            feeders.push(tokio::spawn(feeder.run()));
            let task = tokio::spawn(settler::run(Arc::clone(context), settler.clone()));
            settlers.push((settler, task));
            let keeper = keeper::run(Arc::clone(context), keepers_stop.clone());
            keepers.push(tokio::spawn(keeper));
            let teller = progress::run(Arc::clone(context), keepers_stop.clone());
            keepers.push(tokio::spawn(teller));
        }
        let watched = queues.clone();
        let workers = tokio::spawn(async move {
            // In the same task: a handler that never yields stops both.
            tokio::select! {
                ended = monitor.run() => if let Err(e) = ended {
                    tracing::error!(error = %e, "a worker ended with an error");
                },
                () = pulse(&watched) => {}
            }
        });
        Self {
            queues,
            phase,
            feeders,
            workers,
            settlers,
            keepers,
            keepers_stop,
        }
    }

    /// The queues it works on.
    #[must_use]
    pub fn queues(&self) -> &[Arc<QueueContext>] {
        &self.queues
    }

    /// Whether everything that should run does.
    ///
    /// # Errors
    /// A task that only a defect can end has ended.
    pub fn is_whole(&self) -> Result<(), String> {
        let settlers = self.settlers.iter().map(|(_, task)| task);
        let mut tasks = self.feeders.iter().chain(settlers).chain(&self.keepers);
        if self.workers.is_finished() || tasks.any(JoinHandle::is_finished) {
            return Err("a task of the runner ended by itself".to_owned());
        }
        Ok(())
    }

    /// Stops claiming new jobs, or goes on with it; admission goes on in either case.
    pub fn set_quiet(&self, quiet: bool) {
        let phase = if quiet { Phase::Quiet } else { Phase::Running };
        self.phase.send_replace(phase);
    }

    /// Stops claiming, lets running jobs finish until `drain` has passed or `hurry` is cancelled, hands back what still
    /// runs, settles everything and takes leave.
    pub async fn stop(mut self, drain: Duration, hurry: CancellationToken) {
        self.phase.send_replace(Phase::Stopping);
        tokio::select! {
            _ = &mut self.workers => {}
            () = tokio::time::sleep(drain) => {}
            () = hurry.cancelled() => {}
        }
        if !self.workers.is_finished() {
            for queue in &self.queues {
                queue.inflight.stop_all(StopReason::Shutdown);
            }
            let _ = tokio::time::timeout(HAND_BACK_DEADLINE, &mut self.workers).await;
        }
        for feeder in &self.feeders {
            feeder.abort();
        }
        // Whatever a handler holds is dropped with the workers, before its job is handed back.
        if !self.workers.is_finished() {
            self.workers.abort();
            let _ = tokio::time::timeout(DROP_DEADLINE, &mut self.workers).await;
        }
        let (handles, settlers): (Vec<SettlerHandle>, Vec<_>) = self.settlers.into_iter().unzip();
        for handle in &handles {
            handle.close();
        }
        if !end(settlers, SETTLE_DEADLINE).await {
            tracing::error!("not everything could be settled; the lease will return the rest");
        }
        self.keepers_stop.cancel();
        end(self.keepers, SETTLE_DEADLINE).await;
    }
}

/// Notes that the task it is part of has its turn, again and again.
async fn pulse(queues: &[Arc<QueueContext>]) {
    let mut ticks = tokio::time::interval(PULSE);
    loop {
        ticks.tick().await;
        for context in queues {
            context.progress.pulse(clock::monotonic());
        }
    }
}

/// Waits for tasks to end, all at once; what has not ended by the deadline is dropped. False if anything was.
async fn end(tasks: Vec<JoinHandle<()>>, deadline: Duration) -> bool {
    let aborts: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
    let all = futures::future::join_all(tasks);
    let ended = tokio::time::timeout(deadline, all).await.is_ok();
    for task in aborts {
        task.abort();
    }
    ended
}

fn register(
    monitor: Monitor,
    context: &Arc<QueueContext>,
    backend: ClaimedBackend<Run>,
    settler: SettlerHandle,
) -> Monitor {
    let name = context.queue.name.to_string();
    let settle = SettleLayer {
        settler,
        slots: Arc::clone(&context.shared.slots),
    };
    let adviser: Arc<dyn Adviser> = Arc::new(advice::OfGate(context.shared.clone()));
    // apalis asks for a factory, in case a worker is to be restarted. Ours are not: a second one would find no jobs.
    let backend = Mutex::new(Some(backend));
    monitor.register(move |_| {
        let backend = backend
            .lock()
            .take()
            .unwrap_or_else(|| backend::channel().1);
        WorkerBuilder::new(name.as_str())
            .backend(backend)
            .layer(settle.clone())
            .layer(DeadlineLayer)
            .layer(pipeline::catch_panic())
            .build(Dispatch {
                adviser: Arc::clone(&adviser),
            })
    })
}
