//! Limits that operators set while daemons run: who did, and since when they hold.

use super::super::CliError;
use super::super::output::age;
use super::reason::Reason;
use crate::queue::control::{Change, Field, LimitChange};
use crate::queue::{Control, Queue};

/// Entries of the record that are looked through: who looks for an older one has `tidegate audit`.
const LATEST: usize = 1_000;

/// What of a queue's limits was set live, and the record of it.
#[derive(Debug, Default)]
pub(super) struct Live {
    record: Vec<Change>,
    now_ms: u64,
}

impl Live {
    /// Reads the record, if anything is set.
    ///
    /// # Errors
    /// Redis failed.
    pub(super) async fn of(
        queue: &Queue,
        control: &Control,
        now_ms: u64,
    ) -> Result<Self, CliError> {
        let record = match control.limits.is_empty() && control.concurrency.is_none() {
            true => Vec::new(),
            false => queue.changes(LATEST).await?,
        };
        Ok(Self { record, now_ms })
    }

    /// Adds to the limits of a kind who set them, as far as somebody did.
    pub(super) fn of_kind(&self, control: &Control, kind: &str, reasons: &mut [Reason]) {
        let Some(change) = control.limits.get(kind) else {
            return;
        };
        let field = Field::Limit(Some(kind.to_owned()));
        let set = reasons.iter_mut().filter(|of| is_set(change, of.code));
        set.for_each(|reason| self.tell(&field, reason));
    }

    /// Adds to the limit of the queue who set it, if somebody did.
    pub(super) fn of_queue(&self, control: &Control, reasons: &mut [Reason]) {
        if control.concurrency.is_some() {
            let own = reasons.iter_mut().filter(|of| of.code == "queue_slots");
            own.for_each(|reason| self.tell(&Field::Limit(None), reason));
        }
    }

    fn tell(&self, field: &Field, reason: &mut Reason) {
        let field = field.to_string();
        let Some(change) = self.record.iter().find(|change| change.field == field) else {
            return;
        };
        let ago = self.now_ms.saturating_sub(change.at);
        let told = format!(", as {} set it {} ago", change.who, age(ago));
        reason.message.push_str(&told);
        reason.details["set_by"] = change.who.as_str().into();
        reason.holds_since(ago);
    }
}

/// Whether a limit that is told under `code` is one of those that were set.
fn is_set(change: &LimitChange, code: &str) -> bool {
    match code {
        "kind_limit" => change.per_daemon.is_some(),
        "kind_slots" | "slots_full" => change.limit.is_some() || change.total.is_some(),
        "rate" => change.rate.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::reason::Binds;
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_set_is_told_with_who_and_since_when_and_nothing_else() {
        let change = |field: &str, at| Change {
            at,
            who: "me@here".to_owned(),
            field: field.to_owned(),
            old: String::new(),
            new: "{}".to_owned(),
        };
        let live = Live {
            // The latest comes first.
            record: vec![
                change("limit", 8_000),
                change("limit:app.a", 5_000),
                change("limit:app.a", 1_000),
            ],
            now_ms: 65_000,
        };
        let fields = [("limit:app.a", r#"{"per_daemon":3}"#), ("limit", "7")];
        let control = Control::read(&fields.map(|(f, v)| (f.to_owned(), v.to_owned())));
        let reason = |code| Reason::new(code, Binds::Not, "3 may run", json!({}));
        let mut all = ["kind_limit", "rate", "queue_slots", "slots"].map(reason);
        live.of_kind(&control, "app.a", &mut all);
        live.of_kind(&control, "app.b", &mut all);
        live.of_queue(&control, &mut all);
        let told = all.each_ref().map(Reason::to_json);
        let since = told.each_ref().map(|json| json["since_ms"].as_u64());
        assert_eq!(since, [Some(60_000), None, Some(57_000), None]);
        assert_eq!(told[0]["message"], "3 may run, as me@here set it 1m ago");
        assert_eq!(told[0]["set_by"], "me@here");
    }
}
