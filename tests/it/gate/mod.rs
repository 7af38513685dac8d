//! The gate on real stores in real trouble: who stops and how soon, who goes on, that what is held back burns nothing, how
//! it comes back, and what the log says of it.

mod cpu;
mod disk;
mod held;
mod http;
mod postgres;
mod redis;
mod scene;
