//! How often the kernel stops our cgroup because its CPU quota is used up.

use std::fs;
use std::path::{Path, PathBuf};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::probe::{Reading, Source};

/// Reading: percent of the quota's periods since the last sample in which the cgroup was stopped.
pub(super) struct Throttle {
    file: PathBuf,
    last: Periods,
}

/// Periods of the quota, ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Periods {
    passed: u64,
    throttled: u64,
}

impl Throttle {
    /// Opens the CPU controller of the cgroup at `folder`.
    ///
    /// # Errors
    /// It has no quota, or the kernel does not say; says which.
    pub(super) fn open(folder: &Path) -> Result<Self, String> {
        let quota = folder.join("cpu.max");
        let text =
            fs::read_to_string(&quota).map_err(|error| format!("{}: {error}", quota.display()))?;
        if text.split_ascii_whitespace().next() == Some("max") {
            return Err("the cgroup has no CPU quota".to_owned());
        }
        let file = folder.join("cpu.stat");
        let last = read(&file)?;
        Ok(Self { file, last })
    }

    fn take(&mut self) -> Reading {
        let now = read(&self.file)?;
        let before = std::mem::replace(&mut self.last, now);
        percent(before, now)
    }
}

impl Source for Throttle {
    fn sample(&mut self) -> BoxFuture<'_, Vec<Reading>> {
        std::future::ready(vec![self.take()]).boxed()
    }
}

fn read(file: &Path) -> Result<Periods, String> {
    let named = |reason: &dyn std::fmt::Display| format!("{}: {reason}", file.display());
    let text = fs::read_to_string(file).map_err(|error| named(&error))?;
    periods(&text).ok_or_else(|| named(&"no periods of a quota"))
}

/// From lines like `nr_periods 1204` and `nr_throttled 7`.
fn periods(text: &str) -> Option<Periods> {
    let number = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find_map(|(key, value)| (key == name).then(|| value.trim().parse().ok())?)
    };
    Some(Periods {
        passed: number("nr_periods")?,
        throttled: number("nr_throttled")?,
    })
}

#[allow(clippy::cast_precision_loss)] // of periods, in a percentage
fn percent(before: Periods, now: Periods) -> Reading {
    let passed = now.passed.checked_sub(before.passed);
    let throttled = now.throttled.checked_sub(before.throttled);
    match passed.zip(throttled) {
        None => Err("the counters went back".to_owned()),
        // Periods pass only while there is work: none means that nobody was stopped.
        Some((0, _)) => Ok(0.0),
        Some((passed, throttled)) => Ok((100.0 * throttled as f64 / passed as f64).min(100.0)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Recorded from a cgroup with a quota of half a processor.
    const STAT: &str = "usage_usec 1533201\nuser_usec 1201000\nsystem_usec 332201\n\
        nr_periods 40\nnr_throttled 10\nthrottled_usec 1004110\nnr_bursts 0\nburst_usec 0\n";

    #[test]
    fn periods_become_percent() {
        let stat = periods(STAT).unwrap();
        let counted = |passed, throttled| Periods { passed, throttled };
        assert_eq!(stat, counted(40, 10));
        assert_eq!(percent(stat, counted(60, 15)), Ok(25.0));
        assert_eq!(percent(stat, stat), Ok(0.0));
        assert!(percent(counted(60, 15), stat).is_err());
        for text in ["", "nr_periods 4\n", "nr_periods x\nnr_throttled 1\n"] {
            assert_eq!(periods(text), None, "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_quota_is_followed_and_a_cgroup_without_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert!(Throttle::open(folder.path()).is_err());
        write("cpu.max", "max 100000\n");
        write("cpu.stat", STAT);
        let refused = Throttle::open(folder.path()).err().unwrap();
        assert!(refused.contains("no CPU quota"), "{refused}");

        write("cpu.max", "50000 100000\n");
        let mut throttle = Throttle::open(folder.path()).unwrap();
        let later = STAT
            .replace("periods 40", "periods 50")
            .replace("throttled 10", "throttled 15");
        write("cpu.stat", &later);
        assert_eq!(throttle.sample().await, [Ok(50.0)]);
        // Without the controller there are no periods.
        write("cpu.stat", "usage_usec 1\n");
        assert!(throttle.sample().await[0].is_err());
    }
}
