//! What runs beside the jobs for as long as the daemon does.

pub mod notify;
