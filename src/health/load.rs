//! The load average of this machine: how many tasks run or wait, for each of its processors.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::probe::{Reading, Source};

/// Where Linux tells it.
const FILE: &str = "/proc/loadavg";

/// Reading: the load average of the last minute for each processor this process may use.
pub(super) struct Load {
    file: PathBuf,
    processors: f64,
}

impl Load {
    /// Opens the load of this machine.
    ///
    /// # Errors
    /// This kernel does not tell it; says why.
    pub(super) fn open() -> Result<Self, String> {
        Self::of(
            Path::new(FILE),
            available_parallelism().map_or(1, NonZero::get),
        )
    }

    #[allow(clippy::cast_precision_loss)] // a number of processors
    fn of(file: &Path, processors: usize) -> Result<Self, String> {
        let load = Self {
            file: file.to_path_buf(),
            processors: processors as f64,
        };
        load.take().map(|_| load)
    }

    fn take(&self) -> Reading {
        let named = |reason: &dyn std::fmt::Display| format!("{}: {reason}", self.file.display());
        let text = fs::read_to_string(&self.file).map_err(|error| named(&error))?;
        let load = last_minute(&text).ok_or_else(|| named(&"no load average"))?;
        Ok(load / self.processors)
    }
}

impl Source for Load {
    fn sample(&mut self) -> BoxFuture<'_, Vec<Reading>> {
        std::future::ready(vec![self.take()]).boxed()
    }
}

/// The first number of a line like `5.25 4.45 4.55 2/182 25544`.
fn last_minute(text: &str) -> Option<f64> {
    let load: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    (load.is_finite() && load >= 0.0).then_some(load)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_last_minute_is_read_and_nonsense_is_not() {
        assert_eq!(last_minute("5.25 4.45 4.55 2/182 25544\n"), Some(5.25));
        for text in ["", "x 1 2", "-1 0 0", "nan 0 0", "inf"] {
            assert_eq!(last_minute(text), None, "{text:?}");
        }
    }

    #[tokio::test]
    async fn it_is_shared_by_the_processors() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("loadavg");
        assert!(Load::of(&file, 4).is_err());
        fs::write(&file, "6.00 1.00 1.00 1/1 1\n").unwrap();
        let mut load = Load::of(&file, 4).unwrap();
        assert_eq!(load.sample().await, [Ok(1.5)]);
        fs::remove_file(&file).unwrap();
        assert!(load.sample().await[0].is_err());
    }

    #[tokio::test]
    async fn this_machine_has_a_load() {
        let load = Load::open().unwrap().sample().await[0].clone().unwrap();
        assert!((0.0..10_000.0).contains(&load), "{load}");
    }
}
