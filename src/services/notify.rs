//! What is told to systemd: READY, RELOADING, STOPPING, and that the watchdog need not bite.
//!
//! Owns the messages. Must not know when to send them: the watchdog in particular is fed by whoever sees that the
//! scheduler makes progress. Without systemd (no `NOTIFY_SOCKET`) everything here does nothing.

use sd_notify::NotifyState;
use std::time::Duration;

/// Start-up is over; also the end of a reload.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// A reload begins; [`ready`] ends it. The time tells systemd which reload this is (`Type=notify-reload`).
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(event = "notify_failed", %error, "no monotonic time"),
    }
}

/// The daemon drains and will exit.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Feeds the watchdog.
pub fn pet() {
    send(&[NotifyState::Watchdog]);
}

/// How often to [`pet`]: half of what systemd asks for, as it advises. None if it does not watch this process.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
        .map(|limit| limit / 2)
        .filter(|interval| !interval.is_zero())
}

/// A supervisor that cannot be reached is no reason to stop working.
fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(event = "notify_failed", %error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    //! The environment decides, and cannot be changed safely from within: the test runs itself as a child with the
    //! environment of a unit, and is the supervisor that listens.
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    const CHILD: &str = "services::notify::tests::as_a_unit";

    #[test]
    #[ignore = "run by the test below, as a child"]
    fn as_a_unit() {
        assert_eq!(watchdog_interval(), Some(Duration::from_secs(10)));
        ready();
        pet();
        reloading();
        ready();
        stopping();
    }

    #[test]
    fn systemd_hears_of_every_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();

        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", CHILD])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "20000000")
            .env_remove("WATCHDOG_PID")
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");

        let heard: Vec<String> = (0..5).map(|_| datagram(&socket)).collect();
        assert_eq!(heard[0], "READY=1\n");
        assert_eq!(heard[1], "WATCHDOG=1\n");
        let monotonic = heard[2]
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap();
        assert!(monotonic.trim().parse::<u64>().unwrap() > 0);
        assert_eq!(heard[3], "READY=1\n");
        assert_eq!(heard[4], "STOPPING=1\n");
    }

    fn datagram(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    }
}
