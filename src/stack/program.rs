//! Finding the installed server programs.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::StackError;

/// Folders outside `PATH` under which distributions keep one folder of Postgres programs per major version
/// (Debian and Ubuntu; PGDG on Red Hat; Alpine).
const POSTGRES_HOMES: [(&str, &str); 3] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr", "bin"),
    ("/usr/libexec", ""),
];

/// Finds `redis-server`, or its compatible successor `valkey-server`, on `PATH`.
pub(super) fn redis_server() -> Result<PathBuf, StackError> {
    on_path("redis-server")
        .or_else(|| on_path("valkey-server"))
        .ok_or(StackError::Missing {
            program: "redis-server",
            packages: "apt: redis-server, dnf: redis or valkey, apk: redis, brew: redis",
        })
}

/// Finds util-linux's `setpriv`, which ties a child's life to ours.
pub(super) fn setpriv() -> Result<PathBuf, StackError> {
    on_path("setpriv").ok_or(StackError::Missing {
        program: "setpriv",
        packages: "apt and dnf: util-linux, apk: setpriv; there is none outside Linux",
    })
}

/// Finds util-linux's `unshare`, which gives a program mounts of its own.
pub(super) fn unshare() -> Result<PathBuf, StackError> {
    on_path("unshare").ok_or(StackError::Missing {
        program: "unshare",
        packages: "apt, dnf and apk: util-linux; there is none outside Linux",
    })
}

/// Finds the folder that holds `initdb`, `postgres` and `createdb`: through `PATH`, else the newest version installed.
pub(super) fn postgres_bin() -> Result<PathBuf, StackError> {
    // Some systems put a link to `initdb` on PATH; its siblings are where it points.
    let linked = on_path("initdb").and_then(|found| fs::canonicalize(found).ok());
    let on_path = linked
        .as_deref()
        .and_then(Path::parent)
        .map(Path::to_path_buf);
    on_path
        .into_iter()
        .chain(versioned_bins())
        .find(|bin| is_complete(bin))
        .ok_or(StackError::Missing {
            program: "initdb",
            packages: "apt: postgresql, dnf: postgresql-server, apk: postgresql, brew: postgresql",
        })
}

fn is_complete(bin: &Path) -> bool {
    ["initdb", "postgres", "createdb"]
        .iter()
        .all(|program| bin.join(program).is_file())
}

/// Every versioned Postgres folder, the highest version first.
fn versioned_bins() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = POSTGRES_HOMES
        .iter()
        .flat_map(|(home, bin)| {
            let entries = fs::read_dir(home).into_iter().flatten().flatten();
            entries.filter_map(move |entry| {
                let version = major_version(entry.file_name().to_str()?)?;
                Some((version, entry.path().join(bin)))
            })
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, bin)| bin).collect()
}

/// The major version in a folder's name: `15`, `pgsql-16` or `postgresql17`.
fn major_version(name: &str) -> Option<u32> {
    let digits = ["postgresql", "pgsql-"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name);
    digits.parse().ok()
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_every_naming_scheme() {
        assert_eq!(major_version("15"), Some(15));
        assert_eq!(major_version("pgsql-16"), Some(16));
        assert_eq!(major_version("postgresql17"), Some(17));
        assert_eq!(major_version("lib"), None);
        assert_eq!(major_version("postgresql"), None);
    }

    #[test]
    fn what_no_folder_holds_is_not_found() {
        assert_eq!(on_path("tidegate-no-such-program"), None);
    }
}
