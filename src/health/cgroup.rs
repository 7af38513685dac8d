//! The control group this process runs in: the part of the machine that is ours.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of our own cgroup (v2), if the kernel has one for us.
pub(super) fn own() -> Option<PathBuf> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let folder = folder(&membership, &mounts)?;
    folder.is_dir().then_some(folder)
}

/// The folder, from `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn folder(membership: &str, mounts: &str) -> Option<PathBuf> {
    // The unified hierarchy is the one with number 0 and no controllers of its own.
    let group = membership
        .lines()
        .find_map(|line| line.strip_prefix("0::"))?;
    let (root, mount_point) = mounts.lines().find_map(cgroup2_mount)?;
    // In a container the mount shows only the part of the tree below `root`.
    let below = Path::new(group)
        .strip_prefix(root)
        .unwrap_or_else(|_| Path::new(group.trim_start_matches('/')));
    Some(Path::new(mount_point).join(below))
}

/// Root and mount point, if this line of mountinfo mounts cgroup v2:
/// `41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw`.
fn cgroup2_mount(line: &str) -> Option<(&str, &str)> {
    let (mount, kind) = line.split_once(" - ")?;
    if kind.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    Some((fields.next()?, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "24 30 0:26 / /proc rw - proc proc rw\n35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
    const CONTAINER: &str = "700 650 0:30 /docker/4f2a /sys/fs/cgroup ro - cgroup2 cgroup rw\n";

    #[test]
    fn the_folder_is_found_on_every_kind_of_host() {
        let found = |membership, mounts| {
            folder(membership, mounts).map(|path| path.to_string_lossy().into_owned())
        };
        let service = "0::/system.slice/tidegate.service\n";
        assert_eq!(
            found(service, UNIFIED).as_deref(),
            Some("/sys/fs/cgroup/system.slice/tidegate.service")
        );
        assert_eq!(
            found("4:memory:/app\n0::/\n", HYBRID).as_deref(),
            Some("/sys/fs/cgroup/unified/")
        );
        assert_eq!(
            found("0::/docker/4f2a/inner\n", CONTAINER).as_deref(),
            Some("/sys/fs/cgroup/inner")
        );
        assert_eq!(
            found("0::/\n", CONTAINER).as_deref(),
            Some("/sys/fs/cgroup/")
        );
        assert_eq!(found("4:memory:/app\n", UNIFIED), None);
        assert_eq!(
            found(service, "24 30 0:26 / /proc rw - proc proc rw\n"),
            None
        );
        assert_eq!(found("", ""), None);
    }

    #[test]
    fn our_own_folder_names_this_process() {
        // A kernel without cgroup v2 has none; where there is one, we are in it.
        let Some(folder) = own() else { return };
        let members = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        let us = std::process::id().to_string();
        assert!(members.lines().any(|pid| pid == us), "{}", folder.display());
    }
}
