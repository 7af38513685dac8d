//! `[outbox]`, `[bridges]`, `[[bridge]]`: jobs that come by other ways than an inbox.

use super::{Secret, duration};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[outbox]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboxConfig {
    /// Whether rows of `tidegate.outbox` are moved to their queues.
    pub enabled: bool,
    /// Rows moved in one transaction.
    pub batch: u32,
    /// Longest time between looks at the table.
    #[serde(with = "duration")]
    pub poll: Duration,
}

/// `[bridges]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgesConfig {
    /// Tasks taken in one step.
    pub batch: usize,
    /// How often a namespace is looked at.
    #[serde(with = "duration")]
    pub poll: Duration,
    /// The argument that holds a payload which is no object.
    pub arg: String,
}

/// One `[[bridge]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeConfig {
    /// Its name in logs, metrics and ids.
    pub name: String,
    /// The namespace, as apalis-redis calls its queues.
    pub namespace: String,
    /// The kind its tasks become.
    pub kind: String,
    /// Where they go; the queue of the kind's definition unless given.
    #[serde(default)]
    pub queue: Option<String>,
    /// The argument that holds a payload which is no object; that of `[bridges]` unless given.
    #[serde(default)]
    pub arg: Option<String>,
    /// Where the namespace lives; the main Redis unless given.
    #[serde(default)]
    pub redis_url: Option<Secret>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::config::{Config, ConfigError, Sources, load};

    const BRIDGE: &str =
        "[[bridge]]\nname = \"mail\"\nnamespace = \"app::Email\"\nkind = \"mail.send\"\n";

    fn with_file(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate.toml");
        std::fs::write(&path, text).unwrap();
        load(&Sources { path: Some(path) })
    }

    #[test]
    fn three_settings_make_a_bridge() {
        let config = with_file(BRIDGE).unwrap();
        assert_eq!(config.bridge[0].namespace, "app::Email");
        assert_eq!(config.bridges.arg, "payload");
        assert!(!config.outbox.enabled);
    }

    #[test]
    fn what_can_not_work_is_refused_with_the_reason() {
        let outbox = "[outbox]\nenabled = true\n";
        let again =
            |change: (&str, &str)| format!("{BRIDGE}{}", BRIDGE.replace(change.0, change.1));
        for (text, parts) in [
            (
                format!("{outbox}[dedupe]\nwindow = \"5m\""),
                &["dedupe.window", "5m", "1h", "run already"][..],
            ),
            (
                format!("{BRIDGE}[dedupe]\nwindow = \"0s\""),
                &["dedupe.window"],
            ),
            ("[outbox]\nbatch = 0".to_owned(), &["outbox.batch", "1000"]),
            ("[outbox]\npoll = \"1h\"".to_owned(), &["outbox.poll"]),
            (
                "[bridges]\nbatch = 1000".to_owned(),
                &["bridges.batch", "256"],
            ),
            ("[bridges]\npoll = \"1ms\"".to_owned(), &["bridges.poll"]),
            ("[bridges]\narg = \"\"".to_owned(), &["bridges.arg"]),
            (
                BRIDGE.replace("\"mail\"", "\"Mail\""),
                &["bridge.name", "Mail"],
            ),
            (BRIDGE.replace("app::Email", ""), &["bridge.mail.namespace"]),
            (BRIDGE.replace("mail.send", "Send"), &["bridge.mail.kind"]),
            (format!("{BRIDGE}queue = \"a:b\""), &["bridge.mail.queue"]),
            (format!("{BRIDGE}arg = \"\""), &["bridge.mail.arg"]),
            (
                format!("{BRIDGE}redis_url = \"http://x\""),
                &["bridge.mail.redis_url", "redis://"],
            ),
            (
                again(("app::Email", "app::Other")),
                &["bridge.mail", "twice"],
            ),
            (
                again(("\"mail\"", "\"post\"")),
                &["bridge.post.namespace", "another bridge"],
            ),
        ] {
            let error = with_file(&text).unwrap_err().to_string();
            for part in parts {
                assert!(
                    error.contains(part),
                    "{text:?} gave {error:?}, without {part:?}"
                );
            }
        }
    }
}
