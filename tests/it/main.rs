//! Integration tests: the house as its users see it, against real servers and real processes.

mod exec;
mod handler;
mod http;
