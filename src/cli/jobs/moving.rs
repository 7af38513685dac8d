//! Moving jobs to another queue, so that whoever is cut short at any point loses and doubles none.

use super::super::CliError;
use super::super::store::Store;
use super::super::who::who;
use super::act::Tally;
use super::filter::Matched;
use crate::clock;
use crate::job::{Envelope, Event, History, What};
use crate::queue::admit::flow_of;
use crate::queue::scan::{Shelved, State};
use crate::queue::{Queue, QueueError};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A move from one queue to another.
pub(super) struct Moving<'a> {
    store: &'a Store,
    from: &'a Queue,
    to: Queue,
    by: String,
}

impl<'a> Moving<'a> {
    /// From one queue of the store to another.
    pub(super) fn new(store: &'a Store, from: &'a Queue, to: &str) -> Self {
        Self {
            store,
            from,
            to: store.queue(to),
            by: who(),
        }
    }

    /// The event of a job that is on its way to the other queue.
    pub(super) fn begun<'j>(&self, job: &'j Matched) -> Option<&'j Event> {
        let last = job.seen.history.events.last()?;
        let here = job.seen.state == State::Dead && last.event == What::Moving;
        (here && last.note.as_deref() == Some(&*self.to.name)).then_some(last)
    }

    /// When a job is due in the other queue; none for now.
    fn due_ms(&self, job: &Matched) -> Option<u64> {
        match job.seen.state {
            State::Delayed => job.seen.at_ms,
            _ => self.begun(job)?.due,
        }
    }

    /// Takes jobs out of their queue, where they can't run any more, and brings them to the other one.
    pub(super) async fn start(&self, jobs: &[Matched]) -> Result<Tally, CliError> {
        let mut tally = Tally::default();
        // What was begun before was finished first.
        let jobs: Vec<&Matched> = jobs
            .iter()
            .filter(|job| self.begun(job).is_none())
            .collect();
        let ids: Vec<&str> = jobs.iter().map(|job| job.seen.id.as_str()).collect();
        let known = self.to.knows(&ids).await?;
        let free = jobs.into_iter().zip(known);
        let (known, free): (Vec<_>, Vec<_>) = free.partition(|(_, known)| *known);
        (tally.known_there, tally.chosen) = (known.len() as u64, known.len() as u64);
        for state in [State::Pending, State::Delayed, State::Dead] {
            let here = free.iter().map(|(job, _)| *job);
            let here: Vec<&Matched> = here.filter(|job| job.seen.state == state).collect();
            if here.is_empty() {
                continue;
            }
            let shelved = self.shelve(state, &here).await?;
            let of = |wanted| move |(_, what): &(&Matched, Shelved)| *what == wanted;
            let (taken, others): (Vec<_>, Vec<_>) =
                here.into_iter().zip(shelved).partition(of(Shelved::Taken));
            let bound = others.iter().filter(|job| of(Shelved::Bound)(job)).count() as u64;
            tally.add(Tally {
                chosen: others.len() as u64,
                changed: others.len() as u64 - bound,
                bound,
                ..Tally::default()
            });
            let taken: Vec<&Matched> = taken.into_iter().map(|(job, _)| job).collect();
            tally.add(self.finish(&taken).await?);
        }
        Ok(tally)
    }

    /// Puts jobs among the dead, with a word of where they go.
    async fn shelve(&self, state: State, jobs: &[&Matched]) -> Result<Vec<Shelved>, CliError> {
        let begin = |job: &&Matched| {
            let envelope = Envelope::parse(&job.seen.raw).unwrap_or_default();
            let flow = flow_of(&envelope, &self.store.catalog);
            let mut event = Event::new(clock::unix_ms(), What::Moving).by(&self.by);
            event.due = self.due_ms(job);
            let fresh = History::of(&job.kind.as_str().into(), flow.priority);
            (fresh, event.note(&self.to.name))
        };
        let begun: Vec<(&str, History, Event)> = jobs
            .iter()
            .map(|job| {
                let (fresh, event) = begin(job);
                (job.seen.id.as_str(), fresh, event)
            })
            .collect();
        Ok(self.from.shelve(state, &begun).await?)
    }

    /// Pushes jobs that are on their way, then removes them here. A repetition is no second job: the other queue knows
    /// the id by then.
    pub(super) async fn finish(&self, jobs: &[&Matched]) -> Result<Tally, CliError> {
        if jobs.is_empty() {
            return Ok(Tally::default());
        }
        let envelopes: Result<Vec<_>, CliError> = jobs
            .iter()
            .map(|job| Ok((job.seen.id.as_str(), moved_envelope(job, self.due_ms(job))?)))
            .collect();
        let unfinished = |e: QueueError| {
            let message = format!(
                "{e}; jobs on their way to {} are among the dead of {}: the same command again finishes the move",
                self.to.name, self.from.name
            );
            CliError::failed("unfinished", message)
        };
        self.to.enqueue(&envelopes?).await.map_err(unfinished)?;
        let ids: Vec<String> = jobs.iter().map(|job| job.seen.id.clone()).collect();
        let removed = self.from.bury_moved(&ids, &self.to.name, &self.by).await;
        removed.map_err(unfinished)?;
        // What somebody else removed here meanwhile was moved all the same.
        Ok(Tally::of(jobs.len(), jobs.len() as u64))
    }
}

/// The envelope for the other queue: with its id, without the old queue's name, and due when it was due. All else stays
/// as it was written.
fn moved_envelope(job: &Matched, due_ms: Option<u64>) -> Result<Vec<u8>, CliError> {
    let unreadable = |e: serde_json::Error| {
        let message = format!("{}: its envelope can't be read: {e}", job.seen.id);
        CliError::failed("malformed", message)
    };
    let mut fields: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(&job.seen.raw).map_err(unreadable)?;
    for field in ["queue", "delay_ms", "run_at"] {
        fields.remove(field);
    }
    let id = serde_json::value::to_raw_value(&job.seen.id).map_err(unreadable)?;
    fields.insert("id".to_owned(), id);
    if let Some(due) = due_ms {
        let due = serde_json::value::to_raw_value(&due).map_err(unreadable)?;
        fields.insert("run_at".to_owned(), due);
    }
    serde_json::to_vec(&fields).map_err(unreadable)
}
