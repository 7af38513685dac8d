//! The decisions of the runner as pure state machines: when to retry, what to hold back, how much
//! to do at once, what comes next.
//!
//! Time and randomness are arguments, so every decision can be replayed in a test. Nothing here
//! reads a clock, waits, or knows a store or the runtime.
//!
//! Two kinds of time occur, both `u64` milliseconds: *unix* time where a decision is about dates or
//! about times written by others ([`schedule`], [`ticks`], [`aging`], [`forecast`] but for its slots), and *monotonic* time since any fixed
//! origin where it is about elapsed time ([`breaker`], [`budget`], [`gate`], [`limiter`],
//! [`slowdown`]).

pub mod aging;
pub mod batch;
pub mod breaker;
pub mod budget;
mod cron_fields;
mod cron_words;
pub mod forecast;
pub mod gate;
pub mod length;
pub mod limiter;
pub mod retry;
pub mod schedule;
pub mod slowdown;
pub mod ticks;
