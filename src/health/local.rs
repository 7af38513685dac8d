//! The probes of this machine and process.

use super::cgroup;
use super::lag::RuntimeLag;
use super::load::Load;
use super::memory::Memory;
use super::pressure::{Pressure, Waiting};
use super::probe::{Probe, Source};
use super::throttle::Throttle;
use super::{HOST, MEMORY};
use crate::config::GateConfig;
use crate::policy::gate::{GateState, Signal};

/// Everything this host lets us measure, on the resources [`HOST`] and [`MEMORY`]. What it does not is left out and
/// logged: a signal that does not exist is not missing.
pub fn local_probes(gate: &GateConfig) -> Vec<Probe> {
    let limits = &gate.limits;
    let cgroup = cgroup::own();
    let pressure = |what: &str, kinds: &[Waiting]| Pressure::open(cgroup.as_deref(), what, kinds);
    let percent = |name, [lo, hi]: [f64; 2]| Signal::new(name, lo, hi);
    let [lag_lo, lag_hi] = limits
        .runtime_lag
        .map(|limit| limit.as_secs_f64() * 1_000.0);

    let cpu = percent("psi_cpu_some", limits.psi_cpu).capped(GateState::Elevated);
    // A busy CPU makes timers late, so lateness goes no further than the CPU itself may.
    let lag = Signal::new("runtime_lag_p99_ms", lag_lo, lag_hi).capped(GateState::Elevated);
    let load = Signal::new("load_per_cpu", limits.load[0], limits.load[1]);
    let load = load.capped(GateState::Elevated);
    let throttled = percent("cpu_throttled_percent", limits.cpu_throttled);
    let throttled = throttled.capped(GateState::Elevated);
    let disk = percent("psi_io_full", limits.psi_io_full);
    let stalls = [
        percent("psi_memory_some", limits.psi_memory_some),
        percent("psi_memory_full", limits.psi_memory_full),
    ];
    let used = percent("memory_used_percent", limits.memory);

    let own = cgroup
        .as_deref()
        .ok_or_else(|| "this process is in no cgroup v2".to_owned());
    let memory = own.clone().and_then(Memory::open);
    let throttle = own.and_then(Throttle::open);
    [
        measured(HOST, &[cpu], pressure("cpu", &[Waiting::Some])),
        measured(HOST, &[throttled], throttle),
        measured(HOST, &[load], Load::open()),
        measured(HOST, &[disk], pressure("io", &[Waiting::Full])),
        measured(HOST, &[lag], Ok(RuntimeLag::new(gate.sample))),
        measured(
            MEMORY,
            &stalls,
            pressure("memory", &[Waiting::Some, Waiting::Full]),
        ),
        measured(MEMORY, &[used], memory),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn measured(
    resource: &str,
    signals: &[Signal],
    source: Result<impl Source + 'static, String>,
) -> Option<Probe> {
    match source {
        Ok(source) => Some(Probe::new(resource, signals, source)),
        Err(reason) => {
            let signal = signals.first().map_or("none", |signal| signal.name);
            tracing::info!(event = "probe", resource, signal, %reason, "not measured on this host");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Sources, load};

    #[tokio::test]
    async fn every_probe_of_this_machine_gives_what_it_promises() {
        let gate = load(&Sources::default()).unwrap().gate;
        let mut probes = local_probes(&gate);
        assert!(
            probes
                .iter()
                .any(|probe| probe.signals[0].name == "runtime_lag_p99_ms")
        );
        for probe in &mut probes {
            let readings = probe.sample().await;
            assert_eq!(readings.len(), probe.signals.len());
            assert!(readings.iter().all(Result::is_ok), "{readings:?}");
        }
        // The CPU of this host never stops anything.
        for signal in probes.iter().flat_map(|probe| &probe.signals) {
            let of_the_cpu = matches!(
                signal.name,
                "psi_cpu_some" | "runtime_lag_p99_ms" | "load_per_cpu" | "cpu_throttled_percent"
            );
            assert_eq!(
                signal.cap == GateState::Elevated,
                of_the_cpu,
                "{}",
                signal.name
            );
        }
    }
}
