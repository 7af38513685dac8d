//! Free loopback ports.

use std::net::{Ipv4Addr, TcpListener};

use super::StackError;

/// Where ports are drawn from: above the well-known ones and below 32768, where Linux starts handing out ports to
/// outgoing connections. A port from that upper range could be taken by any client while our server restarts.
const RANGE: std::ops::Range<u16> = 16_384..32_768;

/// How many ports to try before giving up; a collision is rare, so this many in a row means something else is wrong.
const ATTEMPTS: u32 = 20;

/// Calls `start` with free ports until it succeeds or fails for another reason than a port lost to somebody else.
pub(super) fn with_free_port<T>(
    program: &'static str,
    mut start: impl FnMut(u16) -> Result<T, StackError>,
) -> Result<T, StackError> {
    for _ in 0..ATTEMPTS {
        let port = rand::random_range(RANGE);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
            continue;
        }
        // The port is free now, but anyone may take it before the server binds it: then try the next.
        match start(port) {
            Err(error) if error.is_port_taken() => {}
            outcome => return outcome,
        }
    }
    Err(StackError::NoPort {
        program,
        attempts: ATTEMPTS,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn lost_race() -> StackError {
        let log = "bind: Address already in use".to_owned();
        StackError::Ended {
            program: "server".to_owned(),
            status: ExitStatus::from_raw(256),
            log,
        }
    }

    #[test]
    fn a_lost_race_is_tried_again_on_another_port() {
        let mut tried = Vec::new();
        let port = with_free_port("server", |port| {
            tried.push(port);
            if tried.len() < 3 {
                Err(lost_race())
            } else {
                Ok(port)
            }
        })
        .unwrap();
        assert_eq!(tried.len(), 3);
        assert_eq!(tried[2], port);
        assert!(RANGE.contains(&port));
    }

    #[test]
    fn endless_lost_races_end_in_an_error() {
        let outcome = with_free_port("server", |_| Err::<(), _>(lost_race()));
        assert!(matches!(
            outcome,
            Err(StackError::NoPort {
                attempts: ATTEMPTS,
                ..
            })
        ));
    }

    #[test]
    fn another_failure_is_not_tried_again() {
        let mut tried = 0;
        let outcome = with_free_port("server", |_| {
            tried += 1;
            Err::<(), _>(StackError::NoUser)
        });
        assert!(matches!(outcome, Err(StackError::NoUser)));
        assert_eq!(tried, 1);
    }
}
