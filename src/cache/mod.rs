//! Cache regions on Redis with invalidation by tag: misses, never stale reads.
//!
//! Owns: the form of an entry, the rule that says whether one may be served, and the invalidation log of each region.
//! Must not know: jobs, handlers, or where the cached values come from.
//!
//! A region orders everything by one counter in Redis, so no clock decides about anything:
//!
//! 1. Whoever rebuilds a value calls [`Region::begin`] *before* reading the source. The [`Stamp`] says where the
//!    counter stood.
//! 2. [`Region::put`] stores the value with that stamp. It takes no lock and asks nothing.
//! 3. Whoever changes the source calls [`Region::invalidate`] *after* the change is committed: the counter goes up by
//!    one, and the log notes it under each tag.
//! 4. [`Region::get`] serves an entry only if nothing in the log about its tags is younger than its stamp. A value read
//!    before the change therefore never counts after it, however late it is stored.
//!
//! What is lost from the log by eviction or failover closes the epoch: every entry misses, none is stale.
//! `docs/CACHE.md` tells apps in other languages how to take part.

mod connection;
mod counters;
mod entry;
mod error;
mod name;
mod region;
mod scripts;
mod validity;

pub use connection::Cache;
pub use counters::{Counters, Counts};
pub use entry::{Fill, MAX_TAGS, Stamp};
pub use error::{CacheError, resource_of};
pub use name::{Key, NameError, RegionName, Tag};
pub use region::{Collected, Found, Region, Stored};
pub use validity::Miss;
