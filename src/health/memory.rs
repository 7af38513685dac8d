//! How much of the memory our cgroup may use is in use.

use std::fs;
use std::path::{Path, PathBuf};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::probe::{Reading, Source};

/// What `memory.max` holds where there is no limit.
const UNLIMITED: &str = "max";

/// Reading: the working set as a percentage of the limit.
///
/// The working set is what is charged to the cgroup without the file cache that has not been used lately. The kernel
/// drops that cache when it needs room, so a cgroup that has read large files is *charged* up to its limit and is well.
pub(super) struct Memory {
    folder: PathBuf,
}

impl Memory {
    /// Opens the memory of the cgroup at `folder`.
    ///
    /// # Errors
    /// It has no limit, or the kernel does not say; says which.
    pub(super) fn open(folder: &Path) -> Result<Self, String> {
        let memory = Self {
            folder: folder.to_path_buf(),
        };
        match memory.read("memory.max")?.trim() {
            UNLIMITED => Err("the cgroup has no memory limit".to_owned()),
            _ => memory.percent().map(|_| memory),
        }
    }

    fn percent(&self) -> Reading {
        let limit = self.read("memory.max")?;
        // There was one, and it was lifted.
        if limit.trim() == UNLIMITED {
            return Ok(0.0);
        }
        let charged = self.read("memory.current")?;
        let stat = self.read("memory.stat")?;
        percent(&limit, &charged, &stat)
            .ok_or_else(|| format!("{}: memory files make no sense", self.folder.display()))
    }

    fn read(&self, name: &str) -> Result<String, String> {
        let file = self.folder.join(name);
        fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))
    }
}

impl Source for Memory {
    fn sample(&mut self) -> BoxFuture<'_, Vec<Reading>> {
        std::future::ready(vec![self.percent()]).boxed()
    }
}

/// From the texts of `memory.max`, `memory.current` and `memory.stat`, in bytes.
#[allow(clippy::cast_precision_loss)] // of bytes, in a percentage
fn percent(limit: &str, charged: &str, stat: &str) -> Option<f64> {
    let limit: u64 = limit.trim().parse().ok().filter(|limit| *limit > 0)?;
    let charged: u64 = charged.trim().parse().ok()?;
    let droppable: u64 = stat
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file "))?
        .parse()
        .ok()?;
    Some(100.0 * charged.saturating_sub(droppable) as f64 / limit as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const STAT: &str = "anon 268435456\nfile 536870912\ninactive_anon 4096\nactive_file 12288\n\
        inactive_file 524288000\nslab 65536\n";

    #[test]
    fn cache_that_can_be_dropped_is_not_in_use() {
        let gib = "1073741824\n";
        assert_eq!(percent(gib, "1061158912\n", STAT), Some(50.0));
        assert_eq!(percent(gib, "1048576\n", STAT), Some(0.0));
        for (limit, charged, stat) in [
            ("max", "1", STAT),
            ("0", "1", STAT),
            (gib, "", STAT),
            (gib, "1", "anon 1\n"),
            (gib, "1", "inactive_file x\n"),
        ] {
            assert_eq!(percent(limit, charged, stat), None);
        }
    }

    #[tokio::test]
    async fn a_folder_is_followed_and_one_without_a_limit_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert!(Memory::open(folder.path()).is_err());
        write("memory.max", "max\n");
        write("memory.current", "1000\n");
        write("memory.stat", "inactive_file 100\n");
        let refused = Memory::open(folder.path()).err().unwrap();
        assert!(refused.contains("no memory limit"), "{refused}");

        write("memory.max", "1000\n");
        let mut memory = Memory::open(folder.path()).unwrap();
        assert_eq!(memory.sample().await, [Ok(90.0)]);
        write("memory.current", "500\n");
        assert_eq!(memory.sample().await, [Ok(40.0)]);
        write("memory.max", "max\n");
        assert_eq!(memory.sample().await, [Ok(0.0)], "it was lifted");
    }
}
