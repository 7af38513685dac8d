//! Tidegate: a background job runner that lets through as much work as the systems behind it can bear.
//!
//! The modules in reading order, from what a job is to the servers that tests and the demo start:

pub mod job;

pub mod config;

pub mod policy;

pub mod catalog;

pub mod queue;

pub mod health;

pub mod cache;
pub mod db;

pub mod handlers;

pub mod runner;

pub mod admin;
pub mod services;

pub mod client;

pub mod daemon;

pub mod embed;
pub mod testing;

pub mod cli;

pub mod telemetry;

pub mod clock;
pub mod stack;
pub mod tls;
