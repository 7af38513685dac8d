//! Tidegate: a background job runner that lets through as much work as the systems behind it can bear.
//!
//! The modules in reading order, from what a job is to the daemon that runs it:

pub mod cache;
pub mod catalog;
pub mod clock;
pub mod config;
pub mod db;
pub mod handlers;
pub mod job;
pub mod policy;
pub mod queue;
pub mod stack;
