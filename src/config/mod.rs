//! Configuration. It knows the shapes and limits of settings; it must not know who uses them.

pub mod duration;
