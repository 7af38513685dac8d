//! How often alike alerts are sent. Pure: time is an argument.
//!
//! The first alert of a name and subject goes out at once. Those that follow within [`INTERVAL`] are held back and
//! counted; when it is over, the last of them goes out with the count, so that no burst ends untold.

use super::alert::{Alert, AlertName};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Alike alerts are sent at most this often.
const INTERVAL: Duration = Duration::from_secs(60);
/// Subjects remembered at once; alerts about more are not paced, the bounded queue drops what is too much.
const MAX_SUBJECTS: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Pace {
    sent: HashMap<(AlertName, String), Sent>,
}

#[derive(Debug)]
struct Sent {
    at: Instant,
    /// The latest of those held back since.
    held: Option<Alert>,
    /// How many were held back since.
    count: u64,
}

impl Pace {
    /// The alert, if it may go out now.
    pub(super) fn offer(&mut self, now: Instant, mut alert: Alert) -> Option<Alert> {
        let key = (alert.alert, alert.subject.clone());
        let Some(sent) = self.sent.get_mut(&key) else {
            if self.sent.len() < MAX_SUBJECTS {
                self.sent.insert(key, Sent::at(now));
            }
            return Some(alert);
        };
        if now < sent.at + INTERVAL {
            sent.held = Some(alert);
            sent.count += 1;
            return None;
        }
        alert.suppressed = sent.count;
        *sent = Sent::at(now);
        Some(alert)
    }

    /// Held-back alerts whose time has come. Forgets subjects that have been quiet since.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Alert> {
        let mut due = Vec::new();
        self.sent.retain(|_, sent| {
            if now < sent.at + INTERVAL {
                return true;
            }
            let Some(alert) = std::mem::replace(sent, Sent::at(now)).last() else {
                return false;
            };
            due.push(alert);
            true
        });
        due
    }

    /// Everything held back, at the end.
    pub(super) fn take_all(&mut self) -> Vec<Alert> {
        self.sent
            .drain()
            .filter_map(|(_, sent)| sent.last())
            .collect()
    }

    /// When [`Pace::due`] may have something next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let waiting = self.sent.values().filter(|sent| sent.held.is_some());
        waiting.map(|sent| sent.at + INTERVAL).min()
    }
}

impl Sent {
    fn at(now: Instant) -> Self {
        Self {
            at: now,
            held: None,
            count: 0,
        }
    }

    /// The last one held back, standing for the others.
    fn last(self) -> Option<Alert> {
        self.held.map(|mut alert| {
            alert.suppressed = self.count - 1;
            alert
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn dead(kind: &str, message: &str) -> Alert {
        Alert::new(AlertName::JobDead, kind, message)
    }

    #[test]
    fn alike_alerts_go_out_once_a_minute_and_none_untold() {
        let mut pace = Pace::default();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        assert!(pace.offer(start, dead("a", "1")).is_some());
        assert!(
            pace.offer(start, dead("b", "1")).is_some(),
            "another subject"
        );
        assert_eq!(pace.next_due(), None, "nothing is held back");
        for n in 2..=4 {
            assert_eq!(pace.offer(start + second, dead("a", &n.to_string())), None);
        }
        assert_eq!(pace.next_due(), Some(start + INTERVAL));
        assert!(pace.due(start + INTERVAL - second).is_empty());

        let due = pace.due(start + INTERVAL);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].suppressed, 2, "the last one and two before it");
        assert_eq!(pace.offer(start + INTERVAL + second, dead("a", "5")), None);
        let next = pace.offer(start + 2 * INTERVAL, dead("a", "6")).unwrap();
        assert_eq!(next.suppressed, 1);
    }

    #[test]
    fn quiet_subjects_are_forgotten_and_their_number_is_bounded() {
        let mut pace = Pace::default();
        let start = Instant::now();
        for n in 0..2 * MAX_SUBJECTS {
            assert!(pace.offer(start, dead(&n.to_string(), "x")).is_some());
        }
        assert_eq!(pace.sent.len(), MAX_SUBJECTS);
        assert!(pace.due(start + INTERVAL).is_empty());
        assert!(pace.sent.is_empty());
    }

    #[test]
    fn what_is_held_back_can_be_had_at_the_end() {
        let mut pace = Pace::default();
        let start = Instant::now();
        assert!(pace.offer(start, dead("a", "1")).is_some());
        assert!(pace.offer(start, dead("a", "2")).is_none());
        assert_eq!(pace.take_all().len(), 1);
        assert!(pace.take_all().is_empty());
    }
}
