//! Waiting on a state, with a bound.

use std::{thread, time::Duration};

/// Time between two looks: short against the start of a server, long against the cost of a look.
const POLL: Duration = Duration::from_millis(10);

/// Looks until `probe` answers, for about `limit` (the time the looks themselves take is not counted).
pub(super) fn wait_for<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let looks = limit.as_millis() / POLL.as_millis();
    for _ in 0..looks {
        if let Some(found) = probe() {
            return Some(found);
        }
        thread::sleep(POLL);
    }
    probe()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_as_soon_as_the_probe_does() {
        let mut looks = 0;
        let found = wait_for(Duration::from_secs(60), || {
            looks += 1;
            (looks == 3).then_some("ready")
        });
        assert_eq!((found, looks), (Some("ready"), 3));
    }

    #[test]
    fn gives_up_after_the_limit() {
        let mut looks = 0;
        let found: Option<()> = wait_for(POLL * 2, || {
            looks += 1;
            None
        });
        assert_eq!((found, looks), (None, 3));
    }
}
