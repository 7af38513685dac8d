//! The integration tests: one binary, so that all of them share its private servers.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod database;
mod purge;
mod stack;
mod support;
mod systemd;
