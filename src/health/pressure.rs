//! Pressure stall information: the share of time in which tasks waited for the CPU, memory or the disk.
//!
//! Linux counts it per cgroup and for the whole machine. Ours comes first: it is what holds *us* up. The files are
//! served from the kernel's memory in microseconds, so they are read in place.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::probe::{Reading, Source};
use crate::clock;

/// Which tasks waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// At least one, while others worked.
    Some,
    /// All that wanted to work.
    Full,
}

impl Waiting {
    const fn label(self) -> &'static str {
        match self {
            Self::Some => "some",
            Self::Full => "full",
        }
    }
}

/// Readings: percent of the time since the last sample, for each kind of waiting.
pub(super) struct Pressure {
    file: PathBuf,
    kinds: Vec<Waiting>,
    last: (Instant, Vec<u64>),
}

impl Pressure {
    /// Opens the pressure of `what` (`cpu`, `memory` or `io`): that of `cgroup` if it has one, else the machine's.
    ///
    /// # Errors
    /// This kernel does not measure it; says why.
    pub(super) fn open(
        cgroup: Option<&Path>,
        what: &str,
        kinds: &[Waiting],
    ) -> Result<Self, String> {
        let own = cgroup.map(|folder| folder.join(format!("{what}.pressure")));
        let whole = PathBuf::from(format!("/proc/pressure/{what}"));
        let mut reason = String::new();
        for file in own.into_iter().chain([whole]) {
            match read(&file, kinds) {
                Ok(totals) => {
                    return Ok(Self {
                        file,
                        kinds: kinds.to_vec(),
                        last: (clock::monotonic(), totals),
                    });
                }
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }

    fn take(&mut self) -> Result<Vec<Reading>, String> {
        let totals = read(&self.file, &self.kinds)?;
        let now = clock::monotonic();
        let (then, before) = std::mem::replace(&mut self.last, (now, totals.clone()));
        let passed = now.duration_since(then);
        let pairs = before.into_iter().zip(totals);
        Ok(pairs
            .map(|(before, after)| percent(before, after, passed))
            .collect())
    }
}

impl Source for Pressure {
    fn sample(&mut self) -> BoxFuture<'_, Vec<Reading>> {
        let readings = self
            .take()
            .unwrap_or_else(|reason| vec![Err(reason); self.kinds.len()]);
        std::future::ready(readings).boxed()
    }
}

fn read(file: &Path, kinds: &[Waiting]) -> Result<Vec<u64>, String> {
    let named = |reason: &dyn std::fmt::Display| format!("{}: {reason}", file.display());
    let text = fs::read_to_string(file).map_err(|error| named(&error))?;
    kinds
        .iter()
        .map(|kind| {
            total(&text, *kind).ok_or_else(|| named(&format!("no total of {}", kind.label())))
        })
        .collect()
}

/// The microseconds waited ever, of a line like `some avg10=0.66 avg60=1.22 avg300=3.02 total=40570495`.
fn total(text: &str, kind: Waiting) -> Option<u64> {
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    let fields = lines.find_map(|mut fields| (fields.next()? == kind.label()).then_some(fields))?;
    fields
        .filter_map(|field| field.strip_prefix("total="))
        .find_map(|number| number.parse().ok())
}

/// The counter's rise in microseconds, as a percentage of the time that passed.
fn percent(before: u64, after: u64, passed: Duration) -> Reading {
    let waited = after
        .checked_sub(before)
        .map(Duration::from_micros)
        .ok_or_else(|| format!("the counter went back from {before} to {after}"))?;
    if passed.is_zero() {
        return Err("no time has passed".to_owned());
    }
    Ok((100.0 * waited.div_duration_f64(passed)).min(100.0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CAPTURED: &str = "some avg10=0.66 avg60=1.22 avg300=3.02 total=40570495\n\
        full avg10=0.00 avg60=0.00 avg300=0.00 total=17\n";

    #[test]
    fn totals_are_found_by_name() {
        assert_eq!(total(CAPTURED, Waiting::Some), Some(40_570_495));
        assert_eq!(total(CAPTURED, Waiting::Full), Some(17));
        // Kernels before 5.13 have no `full` for the CPU.
        let some_only = CAPTURED.lines().next().unwrap();
        assert_eq!(total(some_only, Waiting::Full), None);
        for text in [
            "",
            "some",
            "some total=",
            "some total=-1",
            "somewhat total=1",
        ] {
            assert_eq!(total(text, Waiting::Some), None, "{text:?}");
        }
    }

    #[test]
    fn a_rise_becomes_percent_of_the_time() {
        let second = Duration::from_secs(1);
        assert_eq!(percent(1_000, 251_000, second), Ok(25.0));
        assert_eq!(percent(5, 5, second), Ok(0.0));
        // Counter and clock are not read at the same instant.
        assert_eq!(percent(0, 1_010_000, second), Ok(100.0));
        assert!(percent(5, 4, second).is_err());
        assert!(percent(5, 6, Duration::ZERO).is_err());
    }

    #[tokio::test]
    async fn the_pressure_file_of_a_cgroup_comes_first_and_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.pressure");
        fs::write(&file, CAPTURED).unwrap();
        let kinds = [Waiting::Some, Waiting::Full];
        let mut pressure = Pressure::open(Some(folder.path()), "memory", &kinds).unwrap();
        assert_eq!(pressure.file, file);
        // A hundred hours more of waiting than can have passed.
        fs::write(&file, CAPTURED.replace("total=17", "total=360000000017")).unwrap();
        assert_eq!(pressure.sample().await, [Ok(0.0), Ok(100.0)]);
        fs::remove_file(&file).unwrap();
        let gone = pressure.sample().await;
        assert!(
            gone.len() == 2 && gone.iter().all(Result::is_err),
            "{gone:?}"
        );
    }

    #[tokio::test]
    async fn this_machine_is_measured_where_the_kernel_can() {
        let cgroup = super::super::cgroup::own();
        for what in ["cpu", "memory", "io"] {
            let opened = Pressure::open(cgroup.as_deref(), what, &[Waiting::Some]);
            // The kernel's own word for whether it counts.
            let counted = fs::read_to_string(format!("/proc/pressure/{what}")).is_ok();
            if !counted {
                continue;
            }
            let sample = opened.unwrap().sample().await;
            assert!((0.0..=100.0).contains(sample[0].as_ref().unwrap()));
        }
    }

    #[test]
    fn what_no_kernel_measures_is_refused_with_its_file() {
        let refused = Pressure::open(None, "patience", &[Waiting::Some])
            .err()
            .unwrap();
        assert!(refused.contains("/proc/pressure/patience"), "{refused}");
    }
}
