//! One face for all breakers: leave to call, and how the call ended.

use tidegate::policy::breaker::{Breaker, BreakerConfig, CallResult, Outlook, State, Verdict};

use super::rival::{Row, Share};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Good,
    /// The dependency answered with an error.
    Failed,
    /// It could not be reached.
    Refused,
    /// It gave no answer in time. To the daemon that is a slow call, to the others a failed one.
    Hung,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Ours,
    RowOfSix,
    HalfOf100,
    HalfOf10,
}

impl Who {
    pub const ALL: [Who; 4] = [Who::Ours, Who::RowOfSix, Who::HalfOf100, Who::HalfOf10];

    pub fn name(self) -> &'static str {
        match self {
            Who::Ours => "tidegate",
            Who::RowOfSix => "row of six",
            Who::HalfOf100 => "half of 100",
            Who::HalfOf10 => "half of 10",
        }
    }
}

pub enum Any {
    Ours(Box<Breaker>),
    Row(Row),
    Share(Share),
}

/// What a call is to be reported with.
pub type Ticket = u64;

impl Any {
    pub fn new(who: Who) -> Self {
        match who {
            Who::Ours => Any::Ours(Box::new(Breaker::new(BreakerConfig::default()))),
            Who::RowOfSix => Any::Row(Row::default()),
            Who::HalfOf100 => Any::Share(Share::of(100)),
            Who::HalfOf10 => Any::Share(Share::of(10)),
        }
    }

    /// Lets time do its part. `busy`: calls run.
    pub fn tick(&mut self, now: f64, busy: bool) {
        if let Any::Ours(breaker) = self {
            breaker.tick(ms(now), busy);
        }
    }

    pub fn admit(&mut self, now: f64) -> Option<Ticket> {
        match self {
            Any::Ours(breaker) => match breaker.admit(ms(now)).0 {
                Verdict::Allow { epoch, .. } => Some(epoch),
                Verdict::Trial(permit) => Some(permit.epoch),
                Verdict::Refuse { .. } => None,
            },
            Any::Row(row) => row.admit(now),
            Any::Share(share) => share.admit(now),
        }
    }

    /// How many of `slots` calls may run at once.
    pub fn limit(&self, now: f64, slots: usize) -> usize {
        match self {
            Any::Ours(breaker) => match breaker.peek(ms(now)) {
                Outlook::Allow { limit: Some(share) } => ((slots as f64 * share) as usize).max(1),
                _ => slots,
            },
            Any::Row(_) | Any::Share(_) => slots,
        }
    }

    /// Reports a call; whether it opened thereby.
    pub fn record(&mut self, now: f64, ticket: Ticket, call: Call, jitter: f64) -> bool {
        match self {
            Any::Ours(breaker) => {
                let result = match call {
                    Call::Good => CallResult::Success { slow: false },
                    Call::Hung => CallResult::Success { slow: true },
                    Call::Failed => CallResult::DependencyFailure { connect: false },
                    Call::Refused => CallResult::DependencyFailure { connect: true },
                };
                let change = breaker.record(ms(now), ticket, result, jitter);
                change.is_some_and(|change| change.to == State::Open)
            }
            Any::Row(row) => row.record(now, ticket, call != Call::Good),
            Any::Share(share) => share.record(now, ticket, call != Call::Good),
        }
    }

    /// When it makes sense to ask again, if it refuses now.
    pub fn retry_at(&self, now: f64) -> Option<f64> {
        match self {
            Any::Ours(breaker) => match breaker.peek(ms(now)) {
                Outlook::Refuse { retry_at_ms } => Some(retry_at_ms as f64 / 1_000.0),
                _ => None,
            },
            Any::Row(row) => row.retry_at(now),
            Any::Share(share) => share.retry_at(now),
        }
    }

    pub fn is_closed(&self, now: f64) -> bool {
        match self {
            Any::Ours(breaker) => breaker.state(ms(now)) == State::Closed,
            Any::Row(row) => row.is_closed(),
            Any::Share(share) => share.is_closed(),
        }
    }
}

pub fn ms(seconds: f64) -> u64 {
    (seconds * 1_000.0).round() as u64
}
