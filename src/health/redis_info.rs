//! What a Redis tells of itself: memory, evictions, persistence, replicas. All of it from one `INFO` a sample.
//!
//! Full memory and a lagging replica bring about no more than they can be helped by: see the caps below.

use std::collections::BTreeMap;
use std::future::Future;

use super::asked::Asked;
use super::probe::{Probe, Reading};
use crate::config::LimitsConfig;
use crate::policy::gate::{GateState, Signal};

/// The sections of `INFO` that are read.
pub const REDIS_SECTIONS: [&str; 4] = ["memory", "stats", "persistence", "replication"];

/// Reads the text of `INFO` for [`REDIS_SECTIONS`], which `info` asks the Redis of `resource` for.
pub fn redis_info<F, A>(resource: &str, limits: &LimitsConfig, info: F) -> Probe
where
    F: FnMut() -> A + Send + 'static,
    A: Future<Output = Result<String, String>> + Send + 'static,
{
    let percent = |name, [lo, hi]: [f64; 2]| Signal::new(name, lo, hi);
    let [lag_lo, lag_hi] = limits
        .redis_replica_lag
        .map(|limit| limit.as_secs_f64() * 1_000.0);
    let signals = [
        // Jobs that wait are what fills the memory, and only running them frees it: a gate that closed on it would
        // stay closed.
        percent("redis_memory_used_percent", limits.redis_memory).capped(GateState::Elevated),
        // Where the server would evict, full memory costs jobs: it counts sooner.
        percent(
            "redis_memory_evicting_percent",
            limits.redis_memory_evicting,
        )
        .capped(GateState::Overloaded),
        percent("redis_evictions_percent", limits.redis_evictions).capped(GateState::Overloaded),
        // It refuses all writes by now, or will.
        Signal::new("redis_aof_write_failed", 1.0, 1.0),
        Signal::new("redis_save_failed", 1.0, 1.0).capped(GateState::Elevated),
        percent("redis_fork_copied_percent", limits.redis_fork).capped(GateState::Overloaded),
        // A replica that lags is no primary that fails: less writing is all it needs.
        Signal::new("redis_replica_lag_ms", lag_lo, lag_hi).capped(GateState::Overloaded),
    ];
    let mut before = None;
    let read = move |text: String| readings(&Info::of(&text), &mut before);
    Probe::new(resource, signals, Asked::new(signals.len(), info, read))
}

/// The fields of an `INFO`.
struct Info<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Info<'a> {
    fn of(text: &'a str) -> Self {
        let lines = text.lines();
        Self(
            lines
                .filter_map(|line| line.trim_end().split_once(':'))
                .collect(),
        )
    }

    fn text(&self, field: &str) -> Result<&'a str, String> {
        let text = self.0.get(field).copied();
        text.ok_or_else(|| format!("INFO has no {field}"))
    }

    fn number(&self, field: &str) -> Result<f64, String> {
        let text = self.text(field)?;
        let number: Option<f64> = text.parse().ok();
        number.ok_or_else(|| format!("INFO has {text:?} as {field}"))
    }

    /// What the server's memory is measured against: its own limit, or else the machine's memory; none if it tells
    /// neither, as some that are rented do.
    fn memory_limit(&self) -> Result<Option<f64>, String> {
        let limit = self.number("maxmemory")?;
        let all = || self.number("total_system_memory").unwrap_or_default();
        let limit = if limit > 0.0 { limit } else { all() };
        Ok((limit > 0.0).then_some(limit))
    }

    /// A number of bytes as percent of that limit; 0 where there is nothing to measure it against.
    fn percent_of_memory(&self, bytes: &str) -> Reading {
        let bytes = self.number(bytes)?;
        let limit = self.memory_limit()?;
        Ok(limit.map_or(0.0, |limit| 100.0 * bytes / limit))
    }

    /// Memory in use where the policy is to evict when it is short, and there is a limit to it; else 0.
    fn evicting(&self) -> Reading {
        let bounded = self.number("maxmemory")? > 0.0;
        match self.text("maxmemory_policy")? {
            "noeviction" => Ok(0.0),
            _ if bounded => self.percent_of_memory("used_memory"),
            _ => Ok(0.0),
        }
    }

    fn aof_write_failed(&self) -> Reading {
        let keeps = self.number("aof_enabled")? > 0.0;
        Ok(switch(keeps && self.text("aof_last_write_status")? != "ok"))
    }

    fn save_failed(&self) -> Reading {
        Ok(switch(self.text("rdb_last_bgsave_status")? != "ok"))
    }

    /// What a snapshot or rewrite under way has copied of the memory: it counts in no other number.
    fn fork_copied(&self) -> Reading {
        let forked = ["rdb_bgsave_in_progress", "aof_rewrite_in_progress"]
            .into_iter()
            .try_fold(0.0, |sum, field| {
                Ok::<f64, String>(sum + self.number(field)?)
            })?;
        if forked == 0.0 {
            return Ok(0.0);
        }
        self.percent_of_memory("current_cow_size")
    }

    /// The longest time for which a connected replica has confirmed nothing, in milliseconds; 0 without one.
    fn replica_lag_ms(&self) -> Reading {
        let replicas = self.0.iter().filter(|(field, value)| {
            let number = field.strip_prefix("slave").unwrap_or_default();
            number.parse::<u32>().is_ok() && value.contains("state=online")
        });
        let lag_s = |value: &str| {
            let mut parts = value.split(',');
            let lag = parts.find_map(|part| part.strip_prefix("lag="));
            // -1 is one that never confirmed anything.
            lag.and_then(|lag| lag.parse::<f64>().ok())
        };
        let lags = replicas.filter_map(|(_, value)| lag_s(value));
        Ok(lags.fold(0.0, f64::max) * 1_000.0)
    }
}

/// Counters of the sample before.
#[derive(Clone, Copy)]
struct Counters {
    evicted: f64,
    commands: f64,
}

/// Evictions per hundred commands since the sample before; since the server started, if it is another one by now. The first
/// sample says nothing: what was evicted long ago is no trouble of today.
fn evictions(info: &Info<'_>, before: &mut Option<Counters>) -> Reading {
    let now = Counters {
        evicted: info.number("evicted_keys")?,
        commands: info.number("total_commands_processed")?,
    };
    let Some(then) = before.replace(now) else {
        return Ok(0.0);
    };
    let is_same = then.evicted <= now.evicted && then.commands <= now.commands;
    let (evicted, commands) = if is_same {
        (then.evicted, then.commands)
    } else {
        (0.0, 0.0)
    };
    Ok(100.0 * (now.evicted - evicted) / (now.commands - commands).max(1.0))
}

fn readings(info: &Info<'_>, before: &mut Option<Counters>) -> Vec<Reading> {
    vec![
        info.percent_of_memory("used_memory"),
        info.evicting(),
        evictions(info, before),
        info.aof_write_failed(),
        info.save_failed(),
        info.fork_copied(),
        info.replica_lag_ms(),
    ]
}

fn switch(on: bool) -> f64 {
    f64::from(u8::from(on))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from Redis 7.0, cut to what is read.
    const INFO: &str = "# Memory\r\nused_memory:900000\r\ntotal_system_memory:4000000\r\nmaxmemory:1000000\r\n\
        maxmemory_policy:noeviction\r\n\r\n# Persistence\r\nloading:0\r\ncurrent_cow_size:200000\r\n\
        rdb_bgsave_in_progress:0\r\nrdb_last_bgsave_status:ok\r\naof_enabled:1\r\naof_rewrite_in_progress:0\r\n\
        aof_last_write_status:ok\r\n\r\n# Stats\r\ntotal_commands_processed:1000\r\nevicted_keys:0\r\n\r\n\
        # Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
        slave0:ip=10.0.0.2,port=6379,state=online,offset=14,lag=1\r\n\
        slave1:ip=10.0.0.3,port=6379,state=wait_bgsave,offset=0,lag=90\r\nmaster_replid:ab\r\n";

    fn read(text: &str) -> Vec<Reading> {
        readings(&Info::of(text), &mut None)
    }

    fn with(changes: &[(&str, &str)]) -> Vec<f64> {
        let mut text = INFO.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        read(&text).into_iter().flatten().collect()
    }

    #[test]
    fn each_field_becomes_its_signal() {
        let well = with(&[]);
        assert_eq!(well, [90.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1_000.0]);
        assert_eq!(
            with(&[("policy:noeviction", "policy:allkeys-lru")])[1],
            90.0
        );
        assert_eq!(with(&[("write_status:ok", "write_status:err")])[3], 1.0);
        let without_aof = [
            ("aof_enabled:1", "aof_enabled:0"),
            ("write_status:ok", "write_status:err"),
        ];
        assert_eq!(with(&without_aof)[3], 0.0);
        assert_eq!(with(&[("bgsave_status:ok", "bgsave_status:err")])[4], 1.0);
        assert_eq!(
            with(&[("bgsave_in_progress:0", "bgsave_in_progress:1")])[5],
            20.0
        );
        assert_eq!(with(&[("lag=1", "lag=7")])[6], 7_000.0);
        // A replica that takes its first copy lags by nature.
        assert_eq!(with(&[("state=online", "state=send_bulk")])[6], 0.0);
    }

    #[test]
    fn without_a_limit_memory_is_measured_against_the_machine() {
        let unlimited = ("maxmemory:1000000", "maxmemory:0");
        let evicts = ("policy:noeviction", "policy:allkeys-lru");
        assert_eq!(with(&[unlimited, evicts])[..2], [22.5, 0.0]);
        let nothing = ("total_system_memory:4000000", "total_system_memory:0");
        assert_eq!(with(&[unlimited, nothing])[0], 0.0);
    }

    #[test]
    fn evictions_are_counted_from_sample_to_sample() {
        let mut before = None;
        let mut sample = |evicted: &str, commands: &str| {
            let text = INFO
                .replace("evicted_keys:0", &format!("evicted_keys:{evicted}"))
                .replace("processed:1000", &format!("processed:{commands}"));
            evictions(&Info::of(&text), &mut before)
        };
        assert_eq!(sample("10", "1000"), Ok(0.0), "that was before");
        assert_eq!(sample("10", "2000"), Ok(0.0));
        assert_eq!(sample("30", "3000"), Ok(2.0));
        // Restarted: its counters begin anew.
        assert_eq!(sample("1", "200"), Ok(0.5));
    }

    #[test]
    fn what_is_not_told_is_missing_and_named() {
        let readings = read(&INFO.replace("used_memory:", "unused:"));
        assert_eq!(readings[0], Err("INFO has no used_memory".to_owned()));
        assert!(readings[3].is_ok());
        let odd = read(&INFO.replace("maxmemory:1000000", "maxmemory:lots"));
        assert!(odd[0].clone().is_err_and(|e| e.contains("lots")), "{odd:?}");
        assert!(read("").iter().take(6).all(Result::is_err));
    }
}
