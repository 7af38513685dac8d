//! What an envelope may say: ranges, and fields that exclude each other.

use super::super::partition::MAX_KEY_BYTES;
use super::super::{Reject, RejectCode, id, ties};
use super::{Envelope, MAX_AHEAD_MS, MAX_ARGS_BYTES, MAX_ATTEMPTS, MAX_META_BYTES, MAX_TIMEOUT_MS};

impl Envelope {
    /// What is out of range, or contradicts itself.
    pub(super) fn check(&self, steps: usize) -> Result<(), Reject> {
        self.check_version()?;
        self.check_ranges()
            .and_then(|()| self.check_ties(steps))
            .map_err(|(field, why)| {
                Reject::new(RejectCode::Malformed, format!("{field}: {why}"))
            })?;
        let args_bytes = serde_json::to_vec(&self.args.0).map_or(usize::MAX, |v| v.len());
        if args_bytes > MAX_ARGS_BYTES {
            let message = format!("args: {args_bytes} bytes; at most {MAX_ARGS_BYTES} allowed");
            return Err(Reject::new(RejectCode::TooLarge, message));
        }
        Ok(())
    }

    fn check_version(&self) -> Result<(), Reject> {
        match self.v {
            None | Some(1) => Ok(()),
            Some(other) => Err(Reject::new(
                RejectCode::UnknownVersion,
                format!("v: {other}; this daemon speaks 1"),
            )),
        }
    }

    /// What it says about other jobs.
    fn check_ties(&self, steps: usize) -> Result<(), (&'static str, String)> {
        let fail = |field, why: &str| Err((field, why.to_owned()));
        if let Some(unique) = &self.unique {
            unique.check()?;
        }
        if let Some(debounce) = &self.debounce {
            debounce.check()?;
            if self.unique.is_some() {
                return fail("debounce", "give unique or debounce, not both");
            }
            if self.run_at.is_some() || self.delay_ms.is_some() {
                return fail(
                    "debounce",
                    "says when it runs, so neither run_at nor delay_ms may",
                );
            }
        }
        if let Some(group) = &self.group {
            group.check(steps)?;
            if self.unique.is_some() || self.debounce.is_some() {
                return fail("group", ties::NO_MEMBER);
            }
        }
        if let Some(then) = &self.then {
            ties::check_then("then", then, ties::MAX_THEN_BYTES, steps)?;
        }
        at_most("result_ttl_ms", self.result_ttl_ms, ties::MAX_RESULT_TTL_MS)
    }

    fn check_ranges(&self) -> Result<(), (&'static str, String)> {
        id::check_kind(&self.kind).map_err(|e| ("kind", e))?;
        if let Some(queue) = &self.queue {
            id::check_queue(queue).map_err(|e| ("queue", e))?;
        }
        if self.run_at.is_some() && self.delay_ms.is_some() {
            return Err(("run_at", "give run_at or delay_ms, not both".to_owned()));
        }
        if self.expires_at.is_some() && self.ttl_ms.is_some() {
            return Err((
                "expires_at",
                "give expires_at or ttl_ms, not both".to_owned(),
            ));
        }
        at_most("delay_ms", self.delay_ms, MAX_AHEAD_MS)?;
        at_most("ttl_ms", self.ttl_ms, MAX_AHEAD_MS)?;
        // Scores in Redis are doubles: beyond 2^53 they would be rounded.
        at_most("run_at", self.run_at, 1 << 53)?;
        at_most("expires_at", self.expires_at, 1 << 53)?;
        at_most("enqueued_at", self.enqueued_at, 1 << 53)?;
        if self
            .max_attempts
            .is_some_and(|n| n == 0 || n > MAX_ATTEMPTS)
        {
            return Err(("max_attempts", format!("must be 1 to {MAX_ATTEMPTS}")));
        }
        if self
            .timeout_ms
            .is_some_and(|n| n == 0 || n > MAX_TIMEOUT_MS)
        {
            return Err(("timeout_ms", format!("must be 1 to {MAX_TIMEOUT_MS}")));
        }
        if self
            .concurrency_key
            .as_ref()
            .is_some_and(|key| key.len() > MAX_KEY_BYTES)
        {
            return Err((
                "concurrency_key",
                format!("longer than {MAX_KEY_BYTES} bytes"),
            ));
        }
        if let Some(trace) = &self.traceparent {
            check_traceparent(trace).map_err(|e| ("traceparent", e))?;
        }
        let meta_bytes: usize = self.meta.iter().map(|(k, v)| k.len() + v.len()).sum();
        if meta_bytes > MAX_META_BYTES {
            return Err((
                "meta",
                format!("{meta_bytes} bytes; at most {MAX_META_BYTES} allowed"),
            ));
        }
        Ok(())
    }
}

fn at_most(
    field: &'static str,
    given: Option<u64>,
    max: u64,
) -> Result<(), (&'static str, String)> {
    match given {
        Some(n) if n > max => Err((field, format!("{n} is more than {max}"))),
        _ => Ok(()),
    }
}

/// `version-traceid-parentid-flags` in lower-case hex (W3C Trace Context, section 3.2).
fn check_traceparent(given: &str) -> Result<(), String> {
    let hex = |part: &str, len: usize| {
        part.len() == len
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let parts: Vec<&str> = given.splitn(5, '-').collect();
    match parts[..] {
        [version, trace, parent, flags]
            if hex(version, 2) && hex(trace, 32) && hex(parent, 16) && hex(flags, 2) =>
        {
            Ok(())
        }
        _ => Err("must be a W3C traceparent like 00-<32 hex>-<16 hex>-01".to_owned()),
    }
}
