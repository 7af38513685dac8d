//! The files of a private Postgres: its folder, its data, and whom both belong to.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::geteuid;

use super::{
    StackError,
    error::on_file,
    program,
    server::Server,
    spawn::{Launch, User},
};

/// The superuser every private cluster has.
pub(super) const SUPERUSER: &str = "postgres";

/// How long a tool or the start of the server may take: seconds on an idle machine, far longer on a small busy one.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(120);

/// A folder with a database cluster, the programs that work on it, and the user they run as.
pub(super) struct Cluster {
    dir: PathBuf,
    bin: PathBuf,
    /// `None` when they run as ourselves; set when we are root, as which Postgres refuses to run.
    user: Option<User>,
}

impl Cluster {
    /// Opens the cluster in `dir`, making one, whose superuser has `password`, if there is none.
    pub(super) fn open(dir: &Path, password: Option<&str>) -> Result<Self, StackError> {
        let cluster = Self::at(dir)?;
        if !cluster.data().join("PG_VERSION").exists() {
            cluster.prepare_folder()?;
            cluster.init(password)?;
        }
        Ok(cluster)
    }

    fn at(dir: &Path) -> Result<Self, StackError> {
        let user = if geteuid().is_root() {
            Some(unprivileged_user()?)
        } else {
            None
        };
        Ok(Self {
            dir: dir.to_path_buf(),
            bin: program::postgres_bin()?,
            user,
        })
    }

    /// Makes in `dir` the cluster of a standby: a copy of the server on a loopback port, which it will follow.
    pub(super) fn follow(
        dir: &Path,
        port: u16,
        password: Option<&str>,
    ) -> Result<Self, StackError> {
        let cluster = Self::at(dir)?;
        cluster.prepare_folder()?;
        let mut args: Vec<OsString> = vec!["--pgdata".into(), cluster.data().into()];
        args.extend(["--host=127.0.0.1", "--username", SUPERUSER].map(Into::into));
        args.extend(["--port".into(), port.to_string().into()]);
        args.extend(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"].map(Into::into));
        let env = password.map(|password| ("PGPASSWORD", password.to_owned()));
        let log = dir.join("basebackup.log");
        cluster
            .start("pg_basebackup", args, env.into_iter().collect(), &log)?
            .wait_done(READY_LIMIT)?;
        Ok(cluster)
    }

    /// The folder, open to its user alone.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the data lies.
    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Starts one of Postgres's programs, its output appended to `log`.
    pub(super) fn start(
        &self,
        program: &str,
        args: Vec<OsString>,
        env: Vec<(&'static str, String)>,
        log: &Path,
    ) -> Result<Server, StackError> {
        self.start_program(&self.bin.join(program), args, env, log)
    }

    fn start_program(
        &self,
        program: &Path,
        args: Vec<OsString>,
        env: Vec<(&'static str, String)>,
        log: &Path,
    ) -> Result<Server, StackError> {
        Server::start(&Launch {
            program,
            args,
            env,
            dir: &self.dir,
            log,
            user: self.user.as_ref(),
            // An immediate shutdown: the server takes its sessions with it, even frozen ones, and frees its shared
            // memory. SIGKILL would leave both behind.
            on_parent_death: "QUIT",
        })
    }

    /// Makes the folder, which must be empty, and hands it to the user Postgres runs as.
    fn prepare_folder(&self) -> Result<(), StackError> {
        let dir = &self.dir;
        fs::create_dir_all(dir).map_err(on_file("make", dir))?;
        if fs::read_dir(dir)
            .map_err(on_file("read", dir))?
            .next()
            .is_some()
        {
            return Err(StackError::FolderTaken(dir.clone()));
        }
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
            .map_err(on_file("restrict", dir))?;
        self.user
            .as_ref()
            .map_or(Ok(()), |user| self.hand_over(user))
    }

    fn hand_over(&self, user: &User) -> Result<(), StackError> {
        let dir = &self.dir;
        chown(dir, Some(user.uid), Some(user.gid)).map_err(on_file("hand over", dir))?;
        // Owning a folder is not enough: each one above it must let the user pass.
        let enter = ["-c", "cd -- \"$1\"", "sh"].map(Into::into);
        let args = enter.into_iter().chain([dir.into()]).collect();
        let sh = self.start_program(Path::new("sh"), args, Vec::new(), &dir.join("enter.log"))?;
        match sh.wait_done(READY_LIMIT) {
            Err(StackError::Ended { .. }) => Err(StackError::Unreachable {
                user: user.name.clone(),
                path: dir.clone(),
            }),
            outcome => outcome,
        }
    }

    fn init(&self, password: Option<&str>) -> Result<(), StackError> {
        let mut args: Vec<OsString> = vec!["--pgdata".into(), self.data().into()];
        args.extend(["--username", SUPERUSER, "--encoding=UTF8", "--locale=C"].map(Into::into));
        args.extend(["--no-sync", "--no-instructions", "--auth-local=trust"].map(Into::into));
        let log = self.dir.join("initdb.log");
        let Some(password) = password else {
            args.push("--auth-host=trust".into());
            return self
                .start("initdb", args, Vec::new(), &log)?
                .wait_done(READY_LIMIT);
        };
        let file = self.dir.join("password");
        self.write_private(&file, password)
            .map_err(on_file("write", &file))?;
        args.extend(["--auth-host=scram-sha-256".into(), "--pwfile".into()]);
        args.push(file.clone().into());
        let outcome = self
            .start("initdb", args, Vec::new(), &log)?
            .wait_done(READY_LIMIT);
        fs::remove_file(&file).map_err(on_file("remove", file))?;
        outcome
    }

    /// Writes a file that only the user Postgres runs as can read.
    fn write_private(&self, path: &Path, text: &str) -> io::Result<()> {
        // The folder is already closed to others, so there is no moment in which they could read it.
        fs::write(path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let Some(user) = &self.user else {
            return Ok(());
        };
        chown(path, Some(user.uid), Some(user.gid))
    }
}

/// The user that runs Postgres when we are root: the packages' own, else `nobody`.
fn unprivileged_user() -> Result<User, StackError> {
    ["postgres", "nobody"]
        .into_iter()
        .find_map(look_up)
        .ok_or(StackError::NoUser)
}

fn look_up(name: &str) -> Option<User> {
    let id = |flag: &str| -> Option<u32> {
        let output = Command::new("id").args([flag, name]).output().ok()?;
        std::str::from_utf8(&output.stdout)
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    Some(User {
        name: name.to_owned(),
        uid: id("-u")?,
        gid: id("-g")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_looked_up_by_name() {
        assert!(look_up("root").is_some_and(|root| (root.uid, root.gid) == (0, 0)));
        assert!(look_up("tidegate-no-such-user").is_none());
    }
}
