//! What a service manager is to a daemon: it hears its signs of life, and kills and starts again one that gives none.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The socket a daemon tells its state to.
pub struct Supervisor {
    socket: UnixDatagram,
    path: PathBuf,
    limit: Duration,
    last_pet: Instant,
    pets: u64,
}

impl Supervisor {
    /// Listens in a folder; a daemon that is silent for `limit` is stuck.
    pub fn new(folder: &Path, name: &str, limit: Duration) -> Self {
        let path = folder.join(format!("{name}.notify"));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            socket,
            path,
            limit,
            last_pet: Instant::now(),
            pets: 0,
        }
    }

    /// Makes a daemon tell its state here.
    pub fn watch(&mut self, command: &mut Command) {
        self.last_pet = Instant::now();
        command
            .env("NOTIFY_SOCKET", &self.path)
            .env("WATCHDOG_USEC", self.limit.as_micros().to_string());
    }

    /// Signs of life so far.
    pub fn pets(&mut self) -> u64 {
        let mut buffer = [0; 256];
        while let Ok(n) = self.socket.recv(&mut buffer) {
            let told = String::from_utf8_lossy(&buffer[..n]);
            self.last_pet = Instant::now();
            self.pets += u64::from(told.contains("WATCHDOG=1"));
        }
        self.pets
    }

    /// Whether it gave no sign of life for too long.
    pub fn is_silent(&mut self) -> bool {
        self.pets();
        self.last_pet.elapsed() > self.limit
    }
}
