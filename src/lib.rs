//! Tidegate.

pub mod stack;
