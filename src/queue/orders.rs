//! What operators order the gate of every daemon to do: one hash for the fleet, and a record of who did what.
//!
//! Owns how an order is stored. What it means is [`crate::policy::gate`]'s; daemons read the hash along with what they
//! publish, see [`super::pages`].

use super::QueueError;
use super::connection::Connection;
use super::reply::Reply;
use super::script::ORDER;
use crate::policy::gate::{Aspect, Order, Orders, Target, Will};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Orders at most, of the whole fleet.
pub const ORDERS_MAX: usize = 100;
/// Entries of the record.
const AUDIT_MAX: usize = 10_000;

/// The key of the orders.
#[must_use]
pub fn orders_key(prefix: &str) -> String {
    format!("{prefix}:{{gate}}:orders")
}

/// The key of the record of orders.
#[must_use]
pub fn audit_key(prefix: &str) -> String {
    format!("{prefix}:{{gate}}:audit")
}

/// An order to be given.
#[derive(Debug, Clone)]
pub struct Wish<'a> {
    /// Whom it is about.
    pub target: &'a Target,
    /// What is ordered.
    pub order: Will,
    /// Why, one line.
    pub why: &'a str,
    /// How long it is to hold.
    pub holds: Duration,
}

/// What happened to orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acted {
    /// Redis time, ms.
    pub now_ms: u64,
    /// Orders that were replaced or released.
    pub ended: Vec<Order>,
}

/// An entry of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When, unix ms.
    pub at: u64,
    /// `force`, `release`, or `over` when an order ended by itself.
    pub event: String,
    /// Who did it, as user@host; empty for an end by itself.
    pub who: String,
    /// The order it is about.
    pub order: Order,
}

/// The orders of one fleet.
#[derive(Debug, Clone)]
pub struct OrderBook {
    conn: Connection,
    keys: [String; 2],
}

impl OrderBook {
    /// The orders under a prefix.
    #[must_use]
    pub fn new(conn: &Connection, prefix: &str) -> Self {
        Self {
            conn: conn.clone(),
            keys: [orders_key(prefix), audit_key(prefix)],
        }
    }

    /// Gives an order, in place of an earlier one about the same.
    ///
    /// # Errors
    /// There are [`ORDERS_MAX`] already, a key has the wrong type, or Redis failed.
    pub async fn force(&self, who: &str, wish: &Wish<'_>) -> Result<Acted, QueueError> {
        let field = field(wish.target, wish.order.aspect());
        let holds = super::millis(wish.holds).to_string();
        let order = wish.order.to_string();
        self.act("force", who, &[&field, &order, wish.why, &holds])
            .await
    }

    /// Releases the orders about these, as far as there are any.
    ///
    /// # Errors
    /// A key has the wrong type, or Redis failed.
    pub async fn release(&self, who: &str, what: &[(Target, Aspect)]) -> Result<Acted, QueueError> {
        let fields: Vec<String> = what.iter().map(|(t, a)| field(t, *a)).collect();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        self.act("release", who, &fields).await
    }

    /// Removes orders that ended, putting their ends on record. Daemons do not read such orders any more.
    ///
    /// # Errors
    /// As [`OrderBook::release`].
    pub async fn tidy(&self) -> Result<Acted, QueueError> {
        self.act("tidy", "", &[]).await
    }

    async fn act(&self, act: &str, who: &str, more: &[&str]) -> Result<Acted, QueueError> {
        let mut cmd = ORDER.call(self.keys.iter());
        cmd.arg(act).arg(who).arg(AUDIT_MAX).arg(ORDERS_MAX);
        cmd.arg(more);
        let mut reply = Reply::new(ORDER.ask(&self.conn, &cmd).await?)?;
        let now_ms = reply.count()?;
        let mut replaced = reply.array()?;
        let mut ended = Vec::with_capacity(replaced.len());
        while !replaced.is_empty() {
            let mut pair = replaced.array()?;
            ended.extend(read_one(&pair.lossy()?, &pair.lossy()?));
        }
        Ok(Acted { now_ms, ended })
    }

    /// The orders that hold now, and Redis time, ms.
    ///
    /// # Errors
    /// A key has the wrong type, or Redis failed.
    pub async fn read(&self) -> Result<(Orders, u64), QueueError> {
        let mut conn = self.conn.clone();
        let (fields, time): (Vec<(String, String)>, (u64, u64)) = redis::pipe()
            .cmd("HGETALL")
            .arg(&self.keys[0])
            .cmd("TIME")
            .query_async(&mut conn)
            .await?;
        let now_ms = time_ms(time);
        Ok((read(&fields).in_force(now_ms), now_ms))
    }

    /// The latest entries of the record, the last one first.
    ///
    /// # Errors
    /// A key has the wrong type, or Redis failed.
    pub async fn record(&self, count: usize) -> Result<Vec<Entry>, QueueError> {
        let mut conn = self.conn.clone();
        let found: Vec<(String, BTreeMap<String, String>)> = redis::cmd("XREVRANGE")
            .arg(&self.keys[1])
            .arg(&["+", "-", "COUNT"])
            .arg(count)
            .query_async(&mut conn)
            .await?;
        let entry = |(_, mut fields): (String, BTreeMap<String, String>)| {
            let mut take = |name: &str| fields.remove(name).unwrap_or_default();
            Some(Entry {
                at: take("at").parse().ok()?,
                event: take("event"),
                who: take("who"),
                order: read_one(&take("field"), &take("order"))?,
            })
        };
        Ok(found.into_iter().filter_map(entry).collect())
    }
}

/// Reads the fields of the hash. What nobody of us wrote is left out.
#[must_use]
pub fn read(fields: &[(String, String)]) -> Orders {
    let each = fields
        .iter()
        .filter_map(|(field, value)| read_one(field, value));
    each.collect()
}

/// Redis time in ms.
pub(super) const fn time_ms((seconds, micros): (u64, u64)) -> u64 {
    seconds * 1_000 + micros / 1_000
}

fn field(target: &Target, aspect: Aspect) -> String {
    format!("{}:{target}", aspect.as_str())
}

/// `<aspect>:<target>` and `<at> <until> <who> <what>\n<why>`, as `order.lua` writes them.
fn read_one(field: &str, value: &str) -> Option<Order> {
    let (aspect, target) = field.split_once(':')?;
    let (head, why) = value.split_once('\n')?;
    let mut words = head.splitn(4, ' ');
    let (at, until) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (by, order) = (words.next()?.to_owned(), Will::parse(words.next()?).ok()?);
    (order.aspect().as_str() == aspect).then(|| Order {
        target: Target::parse(target),
        order,
        by,
        why: why.to_owned(),
        at,
        until,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_of_us_wrote_is_no_order() {
        let fields = [
            ("state:db:x", "1 2 me@here at-least overloaded\nmoving it"),
            ("limit:http@http:a:1", "1 2 me@here limit=4\n"),
            ("limit:http@http:a:2", "1 2 me@here open\nof another aspect"),
            ("state:db:y", "1 2 me@here at-least overloaded"),
            ("state:db:z", "1 x me@here ok\nno number"),
            ("nonsense", "7"),
        ]
        .map(|(field, value)| (field.to_owned(), value.to_owned()));
        let orders = read(&fields);
        let found: Vec<String> = orders
            .iter()
            .map(|o| format!("{} {} {:?}", o.target, o.order, o.why))
            .collect();
        assert_eq!(
            found,
            [
                "db:x at-least overloaded \"moving it\"",
                "http@http:a:1 limit=4 \"\""
            ]
        );
    }
}
