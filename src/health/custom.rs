//! A signal that a user defines: one number, from wherever.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::asked::Asked;
use super::probe::Probe;
use crate::config::{ProbeConfig, ProbesConfig, Worst};
use crate::policy::gate::{GateState, Signal};

/// What the probe's own deadline adds to the time an answer may take, so that who asks can say why none came.
const GRACE: Duration = Duration::from_millis(500);

/// The signal that `own` defines, as `ask` answers it.
pub fn custom<F, A>(own: &ProbeConfig, defaults: &ProbesConfig, ask: F) -> Probe
where
    F: FnMut() -> A + Send + 'static,
    A: Future<Output = Result<f64, String>> + Send + 'static,
{
    let cap = match own.worst.unwrap_or(defaults.worst) {
        Worst::Elevated => GateState::Elevated,
        Worst::Overloaded => GateState::Overloaded,
        Worst::Critical => GateState::Critical,
    };
    let signal = Signal::new(signal_name(&own.name), own.lo, own.hi).capped(cap);
    let number = |number: f64| vec![Ok(number)];
    Probe::new(own.resource.as_str(), [signal], Asked::new(1, ask, number))
        .within(own.timeout.unwrap_or(defaults.timeout) + GRACE)
        .every(own.every.unwrap_or(defaults.every))
}

/// The name of its signal. It lives as long as the program, as all names of signals do; each only once.
fn signal_name(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let name = format!("probe_{name}");
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name.as_str()) {
        return known;
    }
    let name: &'static str = Box::leak(name.into_boxed_str());
    names.insert(name);
    name
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Sources, load};

    #[test]
    fn a_name_is_kept_once() {
        assert_eq!(signal_name("mails"), "probe_mails");
        assert!(std::ptr::eq(signal_name("mails"), signal_name("mails")));
    }

    #[tokio::test]
    async fn its_settings_are_its_own_or_those_of_all() {
        let defaults = load(&Sources::default()).unwrap().probes;
        let mut own: ProbeConfig =
            toml::from_str("name = \"mails\"\nresource = \"smtp:main\"\nlo = 1\nhi = 2\n").unwrap();
        let probe = custom(&own, &defaults, || async { Ok(1.5) });
        assert_eq!(probe.signals[0].cap, GateState::Critical);
        assert_eq!(probe.signals[0].every_ms, 10_000);
        own.worst = Some(Worst::Elevated);
        own.every = Some(Duration::from_secs(60));
        let mut probe = custom(&own, &defaults, || async { Err("no route".to_owned()) });
        assert_eq!(probe.signals[0].cap, GateState::Elevated);
        assert_eq!(probe.signals[0].every_ms, 60_000);
        assert_eq!(probe.sample().await, [Err("no route".to_owned())]);
    }
}
