//! The integration tests: one binary, so that all of them share its private servers.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod admin;
mod architecture;
mod cache;
mod cli;
mod clients;
mod daemon;
mod database;
mod dev;
mod embed;
mod exec;
mod failures;
mod gate;
mod handler;
mod health;
mod http;
mod intake;
mod probes;
mod purge;
mod queue;
mod stack;
mod support;
mod systemd;
