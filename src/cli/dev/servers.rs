//! The private servers of `tidegate dev` and the folder they live in. Everything here blocks.

use super::failed;
use crate::cli::CliError;
use crate::config::{Config, Secret};
use crate::stack::{PostgresOptions, PrivatePostgres, PrivateRedis, RedisOptions, Scratch};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The database that every cluster has from its beginning.
const DATABASE: &str = "postgres";

/// The servers at work. Dropped in this order: the folder goes last.
pub(super) struct Servers {
    postgres: Option<PrivatePostgres>,
    redis: PrivateRedis,
    home: Home,
}

/// Where the data is.
enum Home {
    /// In a folder that is removed at the end.
    Temporary(Scratch),
    /// In the user's, which nobody else may use as long as it is locked.
    Kept { dir: PathBuf, _lock: File },
}

impl Servers {
    /// Starts them, in `dir` if there is one.
    pub(super) fn start(dir: Option<PathBuf>, with_postgres: bool) -> Result<Self, CliError> {
        let home = dir.map_or_else(Home::temporary, Home::kept)?;
        // Whoever may push a job may run commands as us, so other users of this machine must not get in.
        let password = password(home.dir())?;
        let mut redis = RedisOptions::new(home.dir().join("redis"));
        redis.append_only = true;
        redis.password = Some(password.clone());
        let mut postgres = PostgresOptions::new(home.dir().join("postgres"));
        postgres.password = Some(password);
        let postgres = with_postgres.then(|| PrivatePostgres::start(postgres));
        Ok(Self {
            postgres: postgres.transpose().map_err(failed)?,
            redis: PrivateRedis::start(redis).map_err(failed)?,
            home,
        })
    }

    /// Makes a configuration one of these servers.
    pub(super) fn overrule(&self, config: &mut Config) {
        config.redis.move_to(Secret::new(self.redis_url()));
        if let Some(url) = self.postgres_url() {
            config.database.url = Secret::new(url);
        }
    }

    pub(super) fn redis_url(&self) -> String {
        self.redis.url()
    }

    pub(super) fn postgres_url(&self) -> Option<String> {
        self.postgres
            .as_ref()
            .map(|postgres| postgres.url(DATABASE))
    }

    pub(super) const fn has_postgres(&self) -> bool {
        self.postgres.is_some()
    }

    pub(super) fn dir(&self) -> &Path {
        self.home.dir()
    }

    pub(super) const fn keeps_data(&self) -> bool {
        matches!(self.home, Home::Kept { .. })
    }

    /// Stops them in good order; the folder goes too, if it is a temporary one.
    pub(super) fn stop(mut self) -> Result<(), CliError> {
        let postgres = self.postgres.as_mut().map_or(Ok(()), PrivatePostgres::stop);
        let redis = self.redis.stop();
        postgres.and(redis).map_err(failed)
    }
}

impl Home {
    fn temporary() -> Result<Self, CliError> {
        Scratch::new().map(Self::Temporary).map_err(failed)
    }

    fn kept(dir: PathBuf) -> Result<Self, CliError> {
        let dir = std::path::absolute(dir).map_err(failed)?;
        let told = |e: &dyn std::fmt::Display| failed(format!("--dir {}: {e}", dir.display()));
        // Others may pass through it, as the user does that Postgres runs as, but not list it.
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&dir);
        made.map_err(|e| told(&e))?;
        let lock = File::create(dir.join("lock")).map_err(|e| told(&e))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| told(&"another `tidegate dev` uses it"))?;
        Ok(Self::Kept { dir, _lock: lock })
    }

    fn dir(&self) -> &Path {
        match self {
            Self::Temporary(scratch) => scratch.path(),
            Self::Kept { dir, .. } => dir,
        }
    }
}

/// The password of the servers in this folder, the same as long as it exists.
fn password(dir: &Path) -> Result<String, CliError> {
    let file = dir.join("password");
    match fs::read_to_string(&file) {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        read => return read.map(|text| text.trim().to_owned()).map_err(failed),
    }
    let made = Uuid::new_v4().simple().to_string();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(&file).map_err(failed)?;
    file.write_all(made.as_bytes()).map_err(failed)?;
    Ok(made)
}
