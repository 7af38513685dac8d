//! Planning a claim, making it, taking in what it brought.

use super::Feeder;
use crate::catalog::JobSpec;
use crate::clock::{self, ServerClock};
use crate::job::Priority;
use crate::policy::gate::GateState;
use crate::queue::claim::{RawDelivery, Stand};
use crate::queue::look::Cursor;
use crate::queue::settle::Ending;
use crate::queue::ties::Notice;
use crate::queue::{Claimed, Control, Flow, FlowAllowance, QueueError, Settlement, Terms};
use crate::runner::feeder::Phase;
use crate::runner::pipeline::Run;
use crate::runner::registry::Registry;
use crate::runner::settler::Ended;
use crate::runner::slots::{Ask, Reserved};
use arc_swap::Guard;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc::error::SendError;

/// The most jobs of one claim.
const CLAIM_MAX: usize = 256;
/// The flows that a claim looks at, however few jobs it may take: some of them may hold less than was thought.
const CLAIM_FLOWS: usize = 32;

impl Feeder {
    /// Claims what may run now; true if something came, or may come next.
    pub(super) async fn claim(&mut self, incarnation: &Arc<str>) -> Result<bool, QueueError> {
        self.found_empty.clear();
        if self.phase() != Phase::Running || self.heads.is_empty() {
            return Ok(false);
        }
        if self.context.control.load().paused.is_some() {
            return Ok(false);
        }
        if self.heads.is_cut() {
            self.read_on().await?;
        }
        let plan = self.plan();
        let asks: Vec<Ask> = plan.iter().map(|(_, ask)| ask.clone()).collect();
        let reserved = self.reserve(&asks);
        if reserved.limit == 0 {
            return Ok(false);
        }
        let allowed = self.allow(plan, &reserved);
        self.claim_number += 1;
        let number = self.claim_number;
        let context = Arc::clone(&self.context);
        let answer = context
            .queue
            .claim(incarnation, number, reserved.limit, &allowed)
            .await;
        let jobs = answer.as_ref().map_or(&[][..], |claimed| &claimed.jobs);
        let taken = count_by_flow(jobs, allowed.len());
        let slots = &context.shared.slots;
        slots.settle_claim(&context.queue.name, &reserved, &asks, &taken);
        let came = match answer {
            Ok(claimed) => Ok(self.take_in(incarnation, &allowed, &asks, claimed).await),
            Err(e) => Err(e),
        };
        // Only now may the sweep take entries of this claim that we do not hold for lost.
        context.resolved_claim.store(number, Ordering::Release);
        came
    }

    /// Where only the first flows of a class are known and most of these are closed, those behind them are read: a few
    /// pages between two polls.
    async fn read_on(&mut self) -> Result<(), QueueError> {
        let slots = &self.context.shared.slots;
        if slots.busy() >= slots.total() {
            return Ok(());
        }
        for class in Priority::ALL {
            while let Some(from) = self.next_page(class) {
                let (page, next) = self.context.queue.look_further(class, from).await?;
                let mut heads = std::mem::take(&mut self.heads);
                let mut asks = Asks::of(self);
                heads.read_on(class, page, next, |flow| asks.get(flow).is_some());
                self.heads = heads;
            }
        }
        Ok(())
    }

    fn next_page(&self, class: Priority) -> Option<Cursor> {
        let mut asks = Asks::of(self);
        self.heads.next_page(class, |flow| asks.get(flow).is_some())
    }

    /// The flows that may be claimed from, in order, with what each may take.
    fn plan(&self) -> Vec<(Flow, Ask)> {
        let mut asks = Asks::of(self);
        let mut open = 0;
        let slots = &self.context.shared.slots;
        let free = slots.total().saturating_sub(slots.busy());
        let flows = self.heads.first(
            free.clamp(CLAIM_FLOWS, CLAIM_MAX),
            self.redis_clock.now_ms(),
            self.context.queue.aging_after(),
            |flow| {
                let ask = asks.get(flow)?;
                open += 1;
                Some(ask.ages)
            },
        );
        // Who takes turns may take several in one claim only if nobody is left out of it.
        let left_out = open > flows.len() || self.heads.is_cut();
        let others = flows.len();
        let with_ask = |flow: Flow| {
            let mut ask = asks.get(&flow)?.clone();
            if asks.registry.get(&flow.kind)?.spec.fair {
                let limits = ask.operations.iter().map(|of| of.limit);
                let room = limits.fold(free.min(ask.kind_limit), usize::min);
                let room = room.min(ask.class_limit);
                let share = if left_out { 1 } else { (room / others).max(1) };
                ask.flow_limit = ask.flow_limit.min(share);
            }
            Some((flow, ask))
        };
        flows.into_iter().filter_map(with_ask).collect()
    }

    /// What may be asked for from a flow; none if its kind is not known here, or paused, or its limit, gate or operations
    /// close it.
    fn ask(&self, registry: &Registry, control: &Control, flow: &Flow) -> Option<Ask> {
        let shared = &self.context.shared;
        let kind = registry.get(&flow.kind)?;
        if control.is_paused(&flow.kind) || self.shut.contains_key(&flow.kind) {
            return None;
        }
        let slots = shared.slots.total();
        let (state, _) = (shared.standing)(&kind.spec);
        let per_daemon = control.limits_of(&kind.spec).per_daemon;
        let urgent = flow.priority == Priority::Critical || kind.spec.is_never_shed();
        let ask = Ask {
            kind: Arc::clone(&kind.spec.kind),
            class: flow.priority,
            kind_limit: per_daemon.unwrap_or(usize::MAX),
            class_limit: (shared.gate)(&kind.spec, flow.priority, slots),
            flow_limit: usize::MAX,
            operations: shared.operations.limits(&kind.operations),
            urgent,
            long: !urgent && self.is_long(&kind.spec),
            ages: state < GateState::Overloaded,
        };
        shared.slots.has_room(&ask).then_some(ask)
    }

    /// Whether jobs may take long, for all that is known.
    fn is_long(&self, spec: &JobSpec) -> bool {
        let rule = self.context.shared.slots.short_rule();
        !self
            .context
            .telemetry(&spec.kind)
            .lengths
            .usually_short(rule)
    }

    /// The flows of a plan with what was reserved for each, and what else holds for their jobs.
    fn allow(&self, plan: Vec<(Flow, Ask)>, reserved: &Reserved) -> Vec<FlowAllowance> {
        let registry = self.context.shared.registry.load();
        let control = self.context.control.load();
        let allowance = |((flow, ask), allowance): ((Flow, Ask), &usize)| FlowAllowance {
            terms: registry
                .get(&flow.kind)
                .map(|kind| Terms::of(&flow, &kind.spec, &control).stay(!ask.ages))
                .unwrap_or_default(),
            flow,
            allowance: *allowance,
        };
        plan.into_iter()
            .zip(&reserved.allowances)
            .map(allowance)
            .collect()
    }

    /// Takes slots for a claim. Deliveries whose settlement Redis has not confirmed yet count against new ones, so that
    /// they stay bounded when settling is slow.
    fn reserve(&self, asks: &[Ask]) -> Reserved {
        let context = &self.context;
        let limit = context.limit();
        let bound = limit * 2 + CLAIM_MAX;
        let most = bound.saturating_sub(context.inflight.len()).min(CLAIM_MAX);
        let slots = &context.shared.slots;
        slots.reserve(&context.queue.name, limit, most, asks)
    }

    /// Takes in what a claim brought; true if there was anything, or there may be with the next one.
    async fn take_in(
        &mut self,
        incarnation: &Arc<str>,
        allowed: &[FlowAllowance],
        asks: &[Ask],
        claimed: Claimed,
    ) -> bool {
        self.redis_clock = ServerClock::at(claimed.now_ms);
        // What was closed just now may have kept others out of the plan.
        let closed = !claimed.shut.is_empty() || claimed.heads.contains(&Stand::Parked);
        let others = allowed.len() >= CLAIM_FLOWS || self.heads.is_cut();
        for shut in claimed.shut {
            self.shut.insert(shut.kind, shut.until_ms);
        }
        self.next_due_ms = self.with_shut(claimed.next_due_ms);
        let taken = count_by_flow(&claimed.jobs, allowed.len());
        for ((f, stand), taken) in allowed.iter().zip(&claimed.heads).zip(taken) {
            let place = match stand {
                Stand::Waits(place) => Some(*place),
                Stand::Empty | Stand::Parked => None,
            };
            self.heads.seen(&f.flow, place);
            if *stand == Stand::Empty && taken == 0 {
                self.found_empty.push(f.flow.clone());
            }
        }
        self.context.progress.look(clock::monotonic());
        let came = !claimed.jobs.is_empty() || claimed.dropped > 0 || (closed && others);
        let mut runs = Vec::with_capacity(claimed.jobs.len());
        for raw in claimed.jobs {
            let (Some(FlowAllowance { flow, .. }), Some(ask)) =
                (allowed.get(raw.flow), asks.get(raw.flow))
            else {
                continue;
            };
            let holds = ask.holds();
            match self.open(&raw, flow, &holds, claimed.now_ms) {
                Ok(run) => runs.push(run),
                Err(settlement) => {
                    let slots = &self.context.shared.slots;
                    let queue = &self.context.queue.name;
                    slots.release(queue, &flow.kind, flow.priority, &holds);
                    self.settler.send(Ended::Unrun {
                        settlement: *settlement,
                        kind: Arc::clone(&flow.kind),
                    });
                }
            }
        }
        // They are held by now: who told everything held to stop before that did not mean these.
        let may_run = self.phase() != Phase::Stopping
            && self.context.lease.current().as_ref() == Some(incarnation);
        if !may_run {
            self.turn_back(runs);
        } else if !runs.is_empty()
            && let Err(SendError(runs)) = self.worker.send(runs).await
        {
            self.turn_back(runs);
        }
        came
    }

    /// Hands back what was claimed too late to be run here.
    fn turn_back(&self, runs: Vec<Run>) {
        for run in runs {
            let Run {
                delivery,
                passage,
                holds,
                ..
            } = run;
            // Permits before slots: who finds a slot free is let through.
            drop(passage);
            let job = &delivery.job;
            let slots = &self.context.shared.slots;
            slots.release(&job.queue, &job.kind, job.priority, &holds);
            let ending = Ending::HandedBack {
                flow: delivery.flow.clone(),
                history: None,
                counter: "handed_back",
            };
            self.settler.send(Ended::Unrun {
                settlement: Settlement {
                    id: job.id.shared(),
                    token: Arc::clone(&job.token),
                    ending,
                    notice: Notice::default(),
                    slots: Arc::clone(&delivery.slots),
                    told: false,
                },
                kind: Arc::clone(&job.kind),
            });
        }
    }
}

/// What may be asked for from flows, found once for each kind and class.
struct Asks<'a> {
    feeder: &'a Feeder,
    registry: Guard<Arc<Registry>>,
    control: Guard<Arc<Control>>,
    known: HashMap<Arc<str>, [Option<Option<Ask>>; 5]>,
}

impl<'a> Asks<'a> {
    fn of(feeder: &'a Feeder) -> Self {
        Self {
            feeder,
            registry: feeder.context.shared.registry.load(),
            control: feeder.context.control.load(),
            known: HashMap::new(),
        }
    }

    fn get(&mut self, flow: &Flow) -> Option<&Ask> {
        if !self.known.contains_key(&flow.kind) {
            self.known
                .insert(Arc::clone(&flow.kind), Default::default());
        }
        let of_kind = self.known.get_mut(&flow.kind)?;
        of_kind[flow.priority.index()]
            .get_or_insert_with(|| self.feeder.ask(&self.registry, &self.control, flow))
            .as_ref()
    }
}

fn count_by_flow(jobs: &[RawDelivery], flows: usize) -> Vec<usize> {
    let mut taken = vec![0; flows];
    for job in jobs {
        if let Some(count) = taken.get_mut(job.flow) {
            *count += 1;
        }
    }
    taken
}
