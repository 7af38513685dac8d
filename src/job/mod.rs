//! What a job is, as plain data. It must not know stores, handlers or the runtime.

mod priority;

pub use priority::{ParsePriorityError, Priority};
