//! A key of ours that somebody overwrote with another type: set aside, so that the queue goes on.

use super::{Queue, QueueError};

/// A key that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The key.
    pub key: String,
    /// The type it had.
    pub found: String,
    /// Where its content is now.
    pub moved_to: String,
}

impl Queue {
    /// Renames every key that has the wrong type and leaves a note in quarantine. `now_ms` makes the new names unique.
    ///
    /// # Errors
    /// Redis failed.
    pub async fn heal(&self, now_ms: u64) -> Result<Vec<SetAside>, QueueError> {
        let mut conn = self.conn.clone();
        let mut found = Vec::new();
        // The quarantine comes first, because notes about the others go there.
        let mut keys: Vec<(&str, &str)> = self.keys.typed().collect();
        keys.sort_by_key(|(key, _)| *key != self.keys.quarantine);
        for (key, wanted) in keys {
            let is: String = redis::cmd("TYPE").arg(key).query_async(&mut conn).await?;
            if is == wanted || is == "none" {
                continue;
            }
            let moved_to = format!("{key}:wrongtype:{now_ms}");
            redis::cmd("RENAME")
                .arg(key)
                .arg(&moved_to)
                .query_async::<()>(&mut conn)
                .await?;
            redis::cmd("XADD")
                .arg(&self.keys.quarantine)
                .arg(&["MAXLEN", "~"])
                .arg(self.bounds.quarantine_max)
                .arg("*")
                .arg(&[("at", now_ms.to_string().as_str()), ("code", "wrong_type")])
                .arg("reason")
                .arg(format!(
                    "key {key} was a {is}, not a {wanted}; moved to {moved_to}"
                ))
                .arg("raw")
                .arg(&moved_to)
                .query_async::<()>(&mut conn)
                .await?;
            found.push(SetAside {
                key: key.to_owned(),
                found: is,
                moved_to,
            });
        }
        Ok(found)
    }
}
