//! Cache regions on a real Redis.
