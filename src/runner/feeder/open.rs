//! From a claimed entry to a run, or to what becomes of it instead.

use super::Feeder;
use crate::job::{Event, History, What};
use crate::queue::claim::{RawDelivery, Unfit};
use crate::queue::settle::{Ending, Record};
use crate::queue::{Delivery, Flow, Settlement};
use crate::runner::inflight::SuspectTurn;
use crate::runner::pipeline::Run;
use crate::runner::slots::Holds;
use crate::runner::stop::Stop;
use std::sync::Arc;
use std::time::Duration;

/// How long a suspect waits while another one runs.
const SUSPECT_WAIT: Duration = Duration::from_secs(1);
/// Crashes that make a job a suspect.
const SUSPECT_CRASHES: u32 = 2;

impl Feeder {
    /// Makes a claimed job ready to run, or says what is to become of it instead.
    pub(super) fn open(
        &self,
        raw: &RawDelivery,
        flow: &Flow,
        holds: &Holds,
        now_ms: u64,
    ) -> Result<Run, Box<Settlement>> {
        let token: Arc<str> = raw.token.as_str().into();
        let stop = Stop::default();
        let hold = |turn| {
            let id: Arc<str> = raw.id.as_str().into();
            let inflight = &self.context.inflight;
            inflight.hold(id, Arc::clone(&token), stop.clone(), turn);
        };
        hold(None);
        let prepared = self.prepare(raw, flow, holds, now_ms, &stop);
        let (run, turn) = prepared.map_err(|ending| {
            Box::new(Settlement {
                id: raw.id.as_str().into(),
                token: Arc::clone(&token),
                notice: raw.notice(&flow.kind, &ending, now_ms),
                ending,
                slots: Arc::clone(&raw.slots),
                told: false,
            })
        })?;
        if turn.is_some() {
            hold(turn);
        }
        let telemetry = self.context.telemetry(&flow.kind);
        let metrics = &telemetry.metrics;
        metrics.started(1);
        metrics.observe_wait(Duration::from_millis(now_ms.saturating_sub(raw.ready_ms)));
        Ok(run)
    }

    fn prepare(
        &self,
        raw: &RawDelivery,
        flow: &Flow,
        holds: &Holds,
        now_ms: u64,
        stop: &Stop,
    ) -> Result<(Run, Option<SuspectTurn>), Ending> {
        let context = &self.context;
        let registry = context.shared.registry.load();
        let back = || Ending::HandedBack {
            flow: flow.clone(),
            history: None,
            counter: "put_off",
        };
        // A reload took the kind away between the plan and the claim: the next plan leaves it to others.
        let kind = registry.get(&flow.kind).ok_or_else(back)?;
        let delivery = raw
            .open(&context.queue, &registry.catalog, now_ms)
            .map_err(|unfit| unfit_ending(unfit, raw, flow, now_ms))?;
        let put_off = |delay, why| Ending::Later {
            delay,
            history: Box::new(put_off_for(&delivery, now_ms, delay, why)),
            counter: "put_off",
        };
        let turn =
            if is_suspect(delivery.history.as_ref()) {
                let turn = Arc::clone(&context.shared.suspect_turn).try_acquire_owned();
                Some(turn.map_err(|_| {
                    put_off(SUSPECT_WAIT, "another job that crashed its daemons runs")
                })?)
            } else {
                None
            };
        let passage = if kind.operations.is_empty() {
            None
        } else {
            let passed = context.shared.operations.pass(&kind.operations);
            Some(passed.ok_or_else(back)?)
        };
        // What snoozed or made room was counted at its first start: coming again, it is no new work.
        let is_new = !delivery.history.as_ref().is_some_and(History::has_run);
        if is_new && delivery.job.attempt == 1 {
            context.shared.budgets.fresh(&kind.budgets);
        }
        let run = Run {
            delivery: Arc::new(delivery),
            kind: Arc::clone(kind),
            stop: stop.clone(),
            told: Arc::clone(&context.told),
            passage,
            holds: holds.clone(),
        };
        Ok((run, turn))
    }
}

fn is_suspect(history: Option<&History>) -> bool {
    history.is_some_and(|h| h.crashes >= SUSPECT_CRASHES)
}

fn put_off_for(delivery: &Delivery, now_ms: u64, delay: Duration, why: &str) -> History {
    let fresh = || {
        let flow = delivery.flow.clone();
        History::of(&flow.kind, flow.priority).begun(delivery.enqueued_ms, delivery.ready_ms)
    };
    let mut history = delivery.history.clone().unwrap_or_else(fresh);
    history.key.clone_from(&delivery.flow.key);
    let due_ms = now_ms.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
    history.push(Event::new(now_ms, What::PutOff).due(due_ms).note(why));
    history
}

/// What becomes of a claimed entry that can't run.
fn unfit_ending(unfit: Unfit, raw: &RawDelivery, flow: &Flow, now_ms: u64) -> Ending {
    match unfit {
        Unfit::Rejected(reject) => Ending::Quarantined(reject),
        Unfit::Expired { given } => {
            let record = Record {
                id: &raw.id,
                kind: &flow.kind,
                priority: flow.priority,
                state: "expired",
                attempts: 0,
                at_ms: now_ms,
                duration_ms: 0,
            };
            let history = History::parse(&raw.history).map(|mut history| {
                history.push(Event::new(now_ms, What::Expired));
                Box::new(history)
            });
            Ending::Finished {
                record: record.encode(),
                counter: "expired",
                given,
                history,
            }
        }
    }
}
