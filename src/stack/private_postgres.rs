//! A private Postgres server.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf, absolute},
};

use rustix::process::Signal;
use url::Url;

use super::{
    StackError,
    cluster::{Cluster, READY_LIMIT, SUPERUSER},
    error::on_file,
    port::with_free_port,
    server::Server,
};

/// The longest folder in which a socket named `.s.PGSQL.<port>` still fits the system's 107 bytes.
const SOCKET_DIR_MAX: usize = 90;

/// Keeps every piece of shared memory inside the server's folder or anonymous, so that nothing outlives it; the time
/// zone and the write-ahead log's size do not depend on the machine.
const SETTINGS: [(&str, &str); 6] = [
    ("listen_addresses", "127.0.0.1"),
    ("dynamic_shared_memory_type", "mmap"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("min_wal_size", "32MB"),
    ("max_wal_size", "256MB"),
];

/// Trades surviving a power cut, of no use to scratch data, for speed. A commit still survives the server being killed:
/// with `fsync` off, `synchronous_commit` costs next to nothing and stays on.
const FAST: [(&str, &str); 2] = [("fsync", "off"), ("full_page_writes", "off")];

/// How to start a [`PrivatePostgres`]. Make it with [`PostgresOptions::new`] and change what differs.
#[derive(Clone)]
pub struct PostgresOptions {
    /// The server's own folder, created when absent. A cluster that an earlier run left in it is started as it is;
    /// otherwise the folder must be empty.
    pub dir: PathBuf,
    /// Whether commits survive a power cut, by being synced to the disk; off unless changed. They always survive a
    /// kill of the server.
    pub durable: bool,
    /// Its page cache in MiB; 32 unless changed.
    pub shared_buffers_mb: u32,
    /// How many connections it takes; 100 unless changed.
    pub max_connections: u32,
    /// The superuser's password over the loopback port, set when the cluster is made. With none, every user of this
    /// machine can connect as superuser.
    pub password: Option<String>,
    /// Further settings, name and value; they win over those above.
    pub settings: Vec<(String, String)>,
}

impl PostgresOptions {
    /// The defaults, in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            durable: false,
            shared_buffers_mb: 32,
            max_connections: 100,
            password: None,
            settings: Vec::new(),
        }
    }
}

/// A Postgres server of our own. Dropping it stops it; so does the end of this process, in whatever way.
pub struct PrivatePostgres {
    options: PostgresOptions,
    cluster: Cluster,
    port: u16,
    server: Option<Server>,
}

impl PrivatePostgres {
    /// Makes a cluster if the folder holds none, starts it, and returns once it takes connections.
    ///
    /// # Errors
    /// [`StackError`] when Postgres is not installed, its folder cannot be used, or it does not come up.
    pub fn start(options: PostgresOptions) -> Result<Self, StackError> {
        let dir = absolute(&options.dir).map_err(on_file("resolve", &options.dir))?;
        let cluster = Cluster::open(&dir, options.password.as_deref())?;
        Self::on(cluster, options)
    }

    /// Starts a hot standby of this server, which follows it, in a folder of its own; the rest is as with this one.
    ///
    /// # Errors
    /// As [`PrivatePostgres::start`]; also when this server does not let itself be copied.
    pub fn standby(&self, dir: impl Into<PathBuf>) -> Result<Self, StackError> {
        let mut options = self.options.clone();
        options.dir = dir.into();
        let dir = absolute(&options.dir).map_err(on_file("resolve", &options.dir))?;
        let cluster = Cluster::follow(&dir, self.port, options.password.as_deref())?;
        Self::on(cluster, options)
    }

    fn on(cluster: Cluster, options: PostgresOptions) -> Result<Self, StackError> {
        let mut postgres = Self {
            options,
            cluster,
            port: 0,
            server: None,
        };
        with_free_port("postgres", |port| {
            postgres.port = port;
            postgres.launch()
        })?;
        Ok(postgres)
    }

    /// The address of one of its databases, password included: `postgres://postgres@127.0.0.1:<port>/<database>`.
    pub fn url(&self, database: &str) -> String {
        let mut url = Url::parse(&format!("postgres://{SUPERUSER}@127.0.0.1:{}", self.port))
            .expect("a user, a host and a port form a URL");
        url.set_path(database);
        url.set_password(self.options.password.as_deref())
            .expect("the URL has a host");
        url.into()
    }

    /// Makes an empty database.
    ///
    /// # Errors
    /// [`StackError::Ended`] with the server's words, for one when the database exists.
    pub fn create_database(&self, name: &str) -> Result<(), StackError> {
        let log = self
            .dir()
            .join(format!("createdb-{}.log", name.replace('/', "_")));
        let mut args: Vec<OsString> = vec!["--port".into(), self.port.to_string().into()];
        args.extend(["--host=127.0.0.1", "--username", SUPERUSER, "--no-password"].map(Into::into));
        // Nobody connects to template0, so many databases can be made at once.
        args.extend(["--template=template0", "--", name].map(Into::into));
        let password = self.options.password.clone();
        let env = password.map(|password| ("PGPASSWORD", password));
        let createdb = self
            .cluster
            .start("createdb", args, env.into_iter().collect(), &log)?;
        createdb.wait_done(READY_LIMIT)?;
        fs::remove_file(&log).map_err(on_file("remove", log))
    }

    /// Its loopback port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its main process's id; `None` while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// Its folder, which also holds its Unix socket (unless the folder's name is too long for one).
    pub fn dir(&self) -> &Path {
        self.cluster.dir()
    }

    /// Stops it in good order: a fast shutdown, then SIGKILL if it has not ended within 10 s. Does nothing when it is
    /// stopped.
    ///
    /// # Errors
    /// [`StackError::Signal`] or [`StackError::Late`] when it cannot be stopped.
    pub fn stop(&mut self) -> Result<(), StackError> {
        // SIGINT ends open sessions; SIGTERM would wait for clients to leave.
        self.server
            .take()
            .map_or(Ok(()), |mut server| server.stop(Signal::INT))
    }

    /// Kills it and all its sessions with SIGKILL and returns once they are gone.
    ///
    /// # Errors
    /// As [`PrivatePostgres::stop`].
    pub fn kill9(&mut self) -> Result<(), StackError> {
        self.server
            .take()
            .map_or(Ok(()), |mut server| server.kill())
    }

    /// Stops it if it runs, and starts it on the same port and data.
    ///
    /// # Errors
    /// As [`PrivatePostgres::start`]; also when somebody else took the port in between.
    pub fn restart(&mut self) -> Result<(), StackError> {
        self.stop()?;
        self.launch()
    }

    /// Freezes it and all its sessions (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    /// [`StackError::Stopped`] or [`StackError::Signal`].
    pub fn pause(&mut self) -> Result<(), StackError> {
        self.running()?.freeze().map(drop)
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// [`StackError::Stopped`] or [`StackError::Signal`].
    pub fn resume(&mut self) -> Result<(), StackError> {
        self.running()?.thaw()
    }

    fn running(&mut self) -> Result<&mut Server, StackError> {
        self.server.as_mut().ok_or_else(|| StackError::Stopped {
            program: "postgres".to_owned(),
        })
    }

    fn launch(&mut self) -> Result<(), StackError> {
        let log = self.dir().join("postgres.log");
        let mut server = self
            .cluster
            .start("postgres", self.server_args(), Vec::new(), &log)?;
        let pid = server.pid();
        let lock_file = self.cluster.data().join("postmaster.pid");
        server.wait_ready(READY_LIMIT, || {
            fs::read_to_string(&lock_file).is_ok_and(|text| is_ready(&text, pid))
        })?;
        self.server = Some(server);
        Ok(())
    }

    fn server_args(&self) -> Vec<OsString> {
        let options = &self.options;
        // The last of two values for a setting wins.
        let mut settings: Vec<(&str, String)> = Vec::new();
        let fast = FAST.iter().filter(|_| !options.durable);
        settings.extend(
            SETTINGS
                .iter()
                .chain(fast)
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        settings.push(("port", self.port.to_string()));
        settings.push(("max_connections", options.max_connections.to_string()));
        settings.push(("shared_buffers", format!("{}MB", options.shared_buffers_mb)));
        settings.extend(
            options
                .settings
                .iter()
                .map(|(name, value)| (name.as_str(), value.clone())),
        );

        let mut args: Vec<OsString> = vec!["-D".into(), self.cluster.data().into()];
        args.extend(["-c".into(), self.socket_setting()]);
        for (name, value) in settings {
            args.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        args
    }

    fn socket_setting(&self) -> OsString {
        let mut setting = OsString::from("unix_socket_directories=");
        if self.dir().as_os_str().len() <= SOCKET_DIR_MAX {
            setting.push(self.dir());
        }
        setting
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Whether `postmaster.pid`, which the server writes into its own folder, says that process `pid` takes connections:
/// the id is its first line, the status its eighth.
fn is_ready(lock_file: &str, pid: u32) -> bool {
    let mut lines = lock_file.lines();
    lines.next() == Some(&pid.to_string())
        && lines.nth(6).is_some_and(|status| status.trim() == "ready")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_read_from_our_own_lock_file_only() {
        let lock_file = |status: &str| {
            format!("71\n/dir/data\n1700000000\n5432\n/dir\n127.0.0.1\n  1 2\n{status}\n")
        };
        assert!(is_ready(&lock_file("ready   "), 71));
        assert!(!is_ready(&lock_file("starting"), 71));
        assert!(
            !is_ready(&lock_file("ready   "), 72),
            "a lock file that another run left behind"
        );
        assert!(!is_ready("71\n", 71), "half written");
    }
}
