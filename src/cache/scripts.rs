//! The scripts of the log. Each is one file under `lua/`, with `open.lua` in front.
//!
//! They are called by digest; a server that has forgotten one is given it again (`redis::Script` does that).

use redis::Script;

/// Most members given to one call of the invalidation script.
pub(super) const MEMBERS_PER_CALL: usize = 900;

const BEGIN: &str = concat!(include_str!("lua/open.lua"), include_str!("lua/begin.lua"));
const INVALIDATE: &str = concat!(
    include_str!("lua/open.lua"),
    include_str!("lua/invalidate.lua")
);
const COLLECT: &str = concat!(
    include_str!("lua/open.lua"),
    include_str!("lua/collect.lua")
);

/// All of them, digested.
#[derive(Debug)]
pub(super) struct Scripts {
    pub begin: Script,
    pub invalidate: Script,
    pub collect: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            begin: Script::new(BEGIN),
            invalidate: Script::new(INVALIDATE),
            collect: Script::new(COLLECT),
        }
    }
}
