//! Planning a claim, making it, taking in what it brought.

use super::Feeder;
use crate::clock;
use crate::queue::settle::Ending;
use crate::queue::ties::Notice;
use crate::queue::{Claimed, Flow, FlowAllowance, QueueError, Settlement, Terms};
use crate::runner::feeder::Phase;
use crate::runner::pipeline::Run;
use crate::runner::registry::Registry;
use crate::runner::settler::Ended;
use crate::runner::slots::{Ask, Reserved};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc::error::SendError;

/// The most jobs of one claim.
const CLAIM_MAX: usize = 256;
/// The most flows of one claim.
const CLAIM_FLOWS: usize = 32;

impl Feeder {
    /// Claims what may run now; true if something came.
    pub(super) async fn claim(&mut self, incarnation: &Arc<str>) -> Result<bool, QueueError> {
        self.found_empty.clear();
        if self.phase() != Phase::Running || self.heads.is_empty() {
            return Ok(false);
        }
        let (flows, asks) = self.plan();
        let reserved = self.reserve(&asks);
        if reserved.limit == 0 {
            return Ok(false);
        }
        let allowed: Vec<FlowAllowance> = flows
            .into_iter()
            .zip(&reserved.allowances)
            .map(|(flow, allowance)| FlowAllowance {
                flow,
                allowance: *allowance,
                terms: Terms::default(),
            })
            .collect();
        self.claim_number += 1;
        let number = self.claim_number;
        let context = Arc::clone(&self.context);
        let answer = context
            .queue
            .claim(incarnation, number, reserved.limit, &allowed)
            .await;
        let taken = count_by_flow(answer.as_ref().ok(), allowed.len());
        let slots = &context.shared.slots;
        slots.settle_claim(&context.queue.name, &reserved, &asks, &taken);
        let came = match answer {
            Ok(claimed) => Ok(self.take_in(incarnation, &allowed, claimed).await),
            Err(e) => Err(e),
        };
        // Only now may the sweep take entries of this claim that we do not hold for lost.
        context.resolved_claim.store(number, Ordering::Release);
        came
    }

    /// The flows that may be claimed from, in order, with what each may take.
    fn plan(&self) -> (Vec<Flow>, Vec<Ask>) {
        let registry = self.context.shared.registry.load();
        let mut asks = HashMap::new();
        let flows = self.heads.first(
            CLAIM_FLOWS,
            self.redis_clock.now_ms(),
            self.context.queue.aging_after(),
            |flow| {
                let ask = self.ask(&registry, flow);
                let open = ask.is_some();
                asks.extend(ask.map(|ask| (flow.clone(), ask)));
                open
            },
        );
        let asks = flows.iter().filter_map(|flow| asks.remove(flow)).collect();
        (flows, asks)
    }

    /// What may be asked for from a flow; none if its kind is not known here, or gate, breakers or its own limit close
    /// it.
    fn ask(&self, registry: &Registry, flow: &Flow) -> Option<Ask> {
        let shared = &self.context.shared;
        let kind = registry.get(&flow.kind)?;
        let slots = shared.slots.total();
        let ask = Ask {
            kind: Arc::clone(&flow.kind),
            class: flow.priority,
            kind_limit: {
                let c = &kind.spec.concurrency;
                c.per_daemon.or(c.limit).unwrap_or(usize::MAX)
            },
            class_limit: (shared.gate)(&kind.spec, flow.priority, slots),
            flow_limit: shared.breakers.outlook(&kind.breakers, slots),
        };
        shared.slots.has_room(&ask).then_some(ask)
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

    /// Takes in what a claim brought; true if there was anything.
    async fn take_in(
        &mut self,
        incarnation: &Arc<str>,
        allowed: &[FlowAllowance],
        claimed: Claimed,
    ) -> bool {
        self.redis_clock.set(claimed.now_ms);
        self.next_due_ms = claimed.next_due_ms;
        let taken = count_by_flow(Some(&claimed), allowed.len());
        for ((f, head), taken) in allowed.iter().zip(&claimed.heads).zip(taken) {
            self.heads.seen(&f.flow, *head);
            if head.is_none() && taken == 0 {
                self.found_empty.push(f.flow.clone());
            }
        }
        self.context.progress.look(clock::monotonic(), None);
        let came = !claimed.jobs.is_empty();
        let mut runs = Vec::with_capacity(claimed.jobs.len());
        for raw in claimed.jobs {
            let Some(flow) = allowed.get(raw.flow).map(|f| &f.flow) else {
                continue;
            };
            match self.open(&raw, flow, claimed.now_ms) {
                Ok(run) => runs.push(run),
                Err(settlement) => {
                    let slots = &self.context.shared.slots;
                    slots.release(&self.context.queue.name, &flow.kind, flow.priority);
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
        for Run { delivery, .. } in runs {
            let job = &delivery.job;
            let slots = &self.context.shared.slots;
            slots.release(&job.queue, &job.kind, job.priority);
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

fn count_by_flow(claimed: Option<&Claimed>, flows: usize) -> Vec<usize> {
    let mut taken = vec![0; flows];
    for job in claimed.iter().flat_map(|c| &c.jobs) {
        if let Some(count) = taken.get_mut(job.flow) {
            *count += 1;
        }
    }
    taken
}
