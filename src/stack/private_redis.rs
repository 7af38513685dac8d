//! A private `redis-server`.

mod config;
mod wire;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use rustix::process::Signal;
use url::Url;

use config::{config_text, write_private};
use wire::{ask, connect_tcp, connect_unix};

use super::{
    StackError, error::on_file, port::with_free_port, program, server::Server, spawn::Launch,
};

/// How long a start may take; loading a large append-only file is part of it.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The socket's name inside the server's folder.
const SOCKET: &str = "redis.sock";

/// The folder of its own disk, inside the server's folder.
const DISK: &str = "disk";

/// Mounts that disk, then becomes the server.
const MOUNT: &str = r#"mount -t tmpfs -o "size=$1" none disk || exit 1; shift; exec "$@""#;

/// Where a private Redis listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Listen {
    /// A free port of the loopback address.
    #[default]
    Tcp,
    /// A Unix socket inside the server's folder, and no port.
    Unix,
}

/// How to start a [`PrivateRedis`]. Make it with [`RedisOptions::new`] and change what differs.
#[derive(Clone)]
pub struct RedisOptions {
    /// The server's folder, created when absent. Data in it is loaded.
    pub dir: PathBuf,
    /// Where it listens; a loopback port unless changed.
    pub listen: Listen,
    /// Whether it keeps an append-only file, synced every second; off unless changed. It never writes snapshots.
    pub append_only: bool,
    /// Its memory limit in bytes, with eviction off; none unless changed.
    pub max_memory: Option<u64>,
    /// The password clients must give. With none, every user of this machine can reach a server on a port.
    pub password: Option<String>,
    /// The size in bytes of a disk of its own for its data, made of memory and mounted for it alone; none unless changed.
    /// Needs `unshare` of util-linux, and a system that lets users mount in a namespace of theirs.
    pub disk: Option<u64>,
    /// Further command-line arguments, such as `["--hz", "100"]`.
    pub extra_args: Vec<String>,
}

impl RedisOptions {
    /// The defaults, in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            listen: Listen::default(),
            append_only: false,
            max_memory: None,
            password: None,
            disk: None,
            extra_args: Vec::new(),
        }
    }
}

/// A Redis server of our own. Dropping it stops it; so does the end of this process, in whatever way.
pub struct PrivateRedis {
    options: RedisOptions,
    program: PathBuf,
    /// 0 when it listens on a socket.
    port: u16,
    server: Option<Server>,
}

impl PrivateRedis {
    /// Starts a server and returns once it answers.
    ///
    /// # Errors
    /// [`StackError`] when Redis is not installed, its folder cannot be written, or it does not come up.
    pub fn start(mut options: RedisOptions) -> Result<Self, StackError> {
        options.dir = absolute(&options.dir).map_err(on_file("resolve", &options.dir))?;
        let program = program::redis_server()?;
        fs::create_dir_all(&options.dir).map_err(on_file("make", &options.dir))?;
        let mut redis = Self {
            options,
            program,
            port: 0,
            server: None,
        };
        match redis.options.listen {
            Listen::Unix => redis.launch()?,
            Listen::Tcp => with_free_port("redis-server", |port| {
                redis.port = port;
                redis.launch()
            })?,
        }
        Ok(redis)
    }

    /// Its address for clients, password included: `redis://127.0.0.1:<port>/0` or `unix:///<folder>/redis.sock`.
    pub fn url(&self) -> String {
        let mut url = match self.options.listen {
            Listen::Tcp => format!("redis://127.0.0.1:{}/0", self.port),
            Listen::Unix => format!("unix://{}", self.socket().display()),
        }
        .parse::<Url>()
        .expect("a scheme and an absolute path, or a host and port, form a URL");
        if let Some(password) = &self.options.password {
            match self.options.listen {
                Listen::Tcp => url
                    .set_password(Some(password))
                    .expect("the URL has a host"),
                Listen::Unix => url.set_query(Some(&pass_query(password))),
            }
        }
        url.into()
    }

    /// Its loopback port; 0 when it listens on a socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id; `None` while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// Stops it in good order: SIGTERM, then SIGKILL if it has not ended within 10 s. Does nothing when it is stopped.
    ///
    /// # Errors
    /// [`StackError::Signal`] or [`StackError::Late`] when it cannot be stopped.
    pub fn stop(&mut self) -> Result<(), StackError> {
        self.server
            .take()
            .map_or(Ok(()), |mut server| server.stop(Signal::TERM))
    }

    /// Kills it with SIGKILL and returns once it is gone.
    ///
    /// # Errors
    /// As [`PrivateRedis::stop`].
    pub fn kill9(&mut self) -> Result<(), StackError> {
        self.server
            .take()
            .map_or(Ok(()), |mut server| server.kill())
    }

    /// Stops it if it runs, and starts it on the same port and folder.
    ///
    /// # Errors
    /// As [`PrivateRedis::start`]; also when somebody else took the port in between.
    pub fn restart(&mut self) -> Result<(), StackError> {
        self.stop()?;
        self.launch()
    }

    /// Freezes it (SIGSTOP): its connections stay open and nothing answers.
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
            program: "redis-server".to_owned(),
        })
    }

    fn launch(&mut self) -> Result<(), StackError> {
        let config = self.options.dir.join("redis.conf");
        write_private(&config, &config_text(&self.options, self.port))
            .map_err(on_file("write", &config))?;
        let (program, mut args) = match self.options.disk {
            None => (self.program.clone(), vec!["redis.conf".into()]),
            Some(bytes) => self.on_own_disk(bytes)?,
        };
        args.extend(self.options.extra_args.iter().map(OsString::from));
        let mut server = Server::start(&Launch {
            program: &program,
            args,
            env: Vec::new(),
            dir: &self.options.dir,
            log: &self.options.dir.join("redis.log"),
            user: None,
            on_parent_death: "KILL",
        })?;
        let pid = server.pid();
        server.wait_ready(READY_LIMIT, || self.answers_as(pid))?;
        self.server = Some(server);
        Ok(())
    }

    /// The program and arguments that mount a disk of this size before they become the server.
    fn on_own_disk(&self, bytes: u64) -> Result<(PathBuf, Vec<OsString>), StackError> {
        let disk = self.options.dir.join(DISK);
        fs::create_dir_all(&disk).map_err(on_file("make", &disk))?;
        let words = ["-Urm", "sh", "-c", MOUNT, "sh"].map(OsString::from);
        let mut args = Vec::from(words);
        args.push(bytes.to_string().into());
        args.push(self.program.clone().into());
        args.extend(["redis.conf", "--dir", DISK].map(OsString::from));
        Ok((program::unshare()?, args))
    }

    /// Whether a server answers PING at our address, and is the one with this process id.
    fn answers_as(&self, pid: u32) -> bool {
        let password = self.options.password.as_deref();
        let answer = match self.options.listen {
            Listen::Tcp => connect_tcp(self.port).and_then(|stream| ask(stream, password)),
            Listen::Unix => connect_unix(&self.socket()).and_then(|stream| ask(stream, password)),
        };
        // A stranger that took the port in a lost race also answers, hence the look at who it is.
        answer.is_ok_and(|text| {
            text.contains("+PONG\r\n") && text.contains(&format!("process_id:{pid}\r\n"))
        })
    }

    fn socket(&self) -> PathBuf {
        self.options.dir.join(SOCKET)
    }
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// The password as a socket URL carries it: percent-encoded, in the query.
fn pass_query(password: &str) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .append_pair("pass", password)
        .finish()
}
