//! How many slots a daemon has: raised before the load that is forecast comes, back at once when anything is not well,
//! gently after it.

use crate::config::SlotsConfig;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// How slots come back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StanceRules {
    /// After a return for the sake of health, nothing is raised until all was well for so long: else our own load would
    /// raise and lower the slots in turn.
    pub rest: Duration,
    /// After a peak the slots stay for so long …
    pub linger: Duration,
    /// … or, while all of them are in use, for so long: a peak whose work is not done is not over.
    pub linger_busy: Duration,
    /// Then a share of what is too many goes, each time this has passed.
    pub step: Duration,
    /// That share: one slot at least goes.
    pub step_share: f64,
}

impl Default for StanceRules {
    fn default() -> Self {
        Self {
            rest: Duration::from_secs(300),
            linger: Duration::from_secs(300),
            linger_busy: Duration::from_secs(1_800),
            step: Duration::from_secs(60),
            step_share: 0.25,
        }
    }
}

impl From<&SlotsConfig> for StanceRules {
    fn from(given: &SlotsConfig) -> Self {
        Self {
            rest: given.rest,
            linger: given.linger,
            linger_busy: given.linger_busy,
            step: given.step,
            step_share: given.step_share,
        }
    }
}

/// The slots that a load needs so that little of it waits: the load and its square root, the natural noise of arrivals
/// (Halfin and Whitt, 1981).
#[must_use]
pub fn slots_for(load: f64) -> usize {
    let load = load.max(0.0);
    // Beyond any limit there is; a float as large as that is rounded anyway.
    (load + load.sqrt()).ceil().min(1e9) as usize
}

/// What a daemon's slots go by at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// Its slots without a forecast; never fewer.
    pub base: usize,
    /// The most it may have.
    pub max: usize,
    /// The slots that the forecast asks of it; none if that says nothing.
    pub wanted: Option<usize>,
    /// The resource that is not well, or what else speaks against it.
    pub unwell: Option<&'a str>,
    /// Whether all its slots are in use.
    pub full: bool,
}

/// Why a number of slots changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// A peak is near that needs them.
    Peak,
    /// What was to come has passed.
    Over,
    /// This is not well.
    Unwell(String),
    /// The configured numbers changed.
    Configured,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peak => f.write_str("more load is forecast"),
            Self::Over => f.write_str("the peak is over"),
            Self::Unwell(what) => write!(f, "{what} is not well"),
            Self::Configured => f.write_str("the configured numbers changed"),
        }
    }
}

/// A raise, or the return from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Slots before; at a return, the most there were.
    pub from: usize,
    /// Slots now.
    pub to: usize,
    /// Why.
    pub why: Why,
}

/// The slots of one daemon over time. Times are monotonic milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Stance {
    rules: StanceRules,
    /// Slots beyond the base.
    extra: usize,
    base: usize,
    /// The most since the last return.
    most: usize,
    /// Since when fewer would do.
    over_since: Option<u64>,
    stepped_ms: Option<u64>,
    /// Until when nothing is raised.
    rest_until: u64,
}

impl Stance {
    /// Nothing is raised yet.
    #[must_use]
    pub fn new(rules: StanceRules) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }

    /// The slots now.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.base + self.extra
    }

    /// Whether there are more than the base.
    #[must_use]
    pub const fn is_raised(&self) -> bool {
        self.extra > 0
    }

    /// Takes in how things stand, and says what changed that is worth telling: each raise, and the return to the base.
    pub fn step(&mut self, now_ms: u64, at: &Setting<'_>) -> Option<Change> {
        let room = at.max.saturating_sub(at.base);
        let before = self.slots();
        let moved = self.base != at.base;
        self.base = at.base;
        if let Some(what) = at.unwell {
            self.rest_until = now_ms + millis(self.rules.rest);
            return self.back(Why::Unwell(what.to_owned()));
        }
        if self.extra > room {
            self.extra = room;
            if room == 0 {
                return self.back_from(before, Why::Configured);
            }
        }
        let wanted = at.wanted.unwrap_or(0).saturating_sub(at.base).min(room);
        if wanted >= self.extra {
            self.over_since = None;
        }
        if wanted > self.extra {
            if now_ms < self.rest_until {
                return None;
            }
            let from = if moved { at.base + self.extra } else { before };
            self.extra = wanted;
            self.most = self.most.max(self.slots());
            return Some(Change {
                from,
                to: self.slots(),
                why: Why::Peak,
            });
        }
        if wanted == self.extra {
            return None;
        }
        self.ease(now_ms, wanted, at.full)
    }

    /// One step down, if it is time.
    fn ease(&mut self, now_ms: u64, wanted: usize, full: bool) -> Option<Change> {
        let rules = &self.rules;
        let since = *self.over_since.get_or_insert(now_ms);
        let linger = if full {
            rules.linger_busy
        } else {
            rules.linger
        };
        let last = self.stepped_ms;
        let early = last.is_some_and(|last| now_ms < last + millis(rules.step));
        if early || now_ms.saturating_sub(since) < millis(linger) {
            return None;
        }
        self.stepped_ms = Some(now_ms);
        let too_many = self.extra - wanted;
        let going = (too_many as f64 * rules.step_share).ceil() as usize;
        self.extra -= going.clamp(1, too_many);
        if self.extra == 0 {
            return self.back_from(self.base, Why::Over);
        }
        None
    }

    fn back(&mut self, why: Why) -> Option<Change> {
        if self.extra == 0 {
            return None;
        }
        let from = self.slots();
        self.back_from(from, why)
    }

    fn back_from(&mut self, from: usize, why: Why) -> Option<Change> {
        let most = std::mem::take(&mut self.most).max(from);
        self.extra = 0;
        self.over_since = None;
        Some(Change {
            from: most,
            to: self.base,
            why,
        })
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}
