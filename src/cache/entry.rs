//! The form of an entry: one line of JSON, a line feed, the payload as it is.
//!
//! Pure. The header is public: apps in any language read and write it (`docs/CACHE.md`).

use super::name::{Key, Tag};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::Duration;

/// Version of the header.
const VERSION: u32 = 1;
/// The only payload encoding so far: as it is.
const PLAIN: &str = "plain";
/// Most tags of one entry.
pub const MAX_TAGS: usize = 64;
/// Longest header read, bytes: 64 tags of 128 bytes, each byte escaped, and the rest with room to spare.
const MAX_HEADER: usize = 32 * 1024;
/// How far a time to live is spread, so that entries filled together do not expire together.
const JITTER: f64 = 0.1;

/// Where a region's counter stood, and in which epoch, before the source was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Invalidations so far.
    pub seq: u64,
    /// The region's epoch. Another one makes every entry of this one miss.
    pub epoch: String,
    /// When the stamp was taken, milliseconds since the epoch: says how long the rebuild took, decides nothing.
    pub taken_ms: u64,
}

/// One value to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// Where.
    pub key: Key,
    /// What it depends on; at most 64.
    pub tags: Vec<Tag>,
    /// The value.
    pub payload: Vec<u8>,
}

/// What an entry says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header<'a> {
    /// Version of the header.
    v: u32,
    /// Epoch of its stamp.
    #[serde(borrow)]
    pub e: Cow<'a, str>,
    /// Sequence of its stamp.
    pub s: u64,
    /// When it was written, milliseconds since the epoch.
    created: u64,
    /// Time to live asked for, before jitter, milliseconds.
    base_ttl: u64,
    /// How long it may be served beyond `base_ttl` while it is rebuilt, milliseconds.
    grace: u64,
    /// How long it took to rebuild, milliseconds.
    delta: u64,
    /// What it depends on.
    #[serde(borrow)]
    pub tags: Vec<Cow<'a, str>>,
    /// How the payload is encoded.
    #[serde(borrow)]
    enc: Cow<'a, str>,
}

/// Writes an entry.
pub(super) fn encode(fill: &Fill, stamp: &Stamp, ttl: Duration, now_ms: u64) -> Vec<u8> {
    let header = Header {
        v: VERSION,
        e: Cow::Borrowed(&stamp.epoch),
        s: stamp.seq,
        created: now_ms,
        base_ttl: millis(ttl),
        grace: 0,
        delta: now_ms.saturating_sub(stamp.taken_ms),
        tags: fill
            .tags
            .iter()
            .map(|t| Cow::Borrowed(t.as_str()))
            .collect(),
        enc: Cow::Borrowed(PLAIN),
    };
    let mut bytes = serde_json::to_vec(&header).expect("numbers and strings always serialize");
    bytes.reserve_exact(1 + fill.payload.len());
    bytes.push(b'\n');
    bytes.extend_from_slice(&fill.payload);
    bytes
}

/// Reads an entry: its header and where its payload begins. None if it is not of a form this version serves.
pub(super) fn decode(bytes: &[u8]) -> Option<(Header<'_>, usize)> {
    let head = &bytes[..bytes.len().min(MAX_HEADER)];
    let end = head.iter().position(|b| *b == b'\n')?;
    let header: Header<'_> = serde_json::from_slice(&head[..end]).ok()?;
    let known = header.v == VERSION && header.enc == PLAIN && header.tags.len() <= MAX_TAGS;
    known.then_some((header, end + 1))
}

/// Spreads a time to live by up to a tenth either way, never beyond `max`. `random` is uniform in 0 to 1.
pub(super) fn spread(ttl: Duration, random: f64, max: Duration) -> Duration {
    let factor = 1.0 + JITTER * (2.0 * random.clamp(0.0, 1.0) - 1.0);
    ttl.mul_f64(factor).clamp(Duration::from_millis(1), max)
}

/// Whole milliseconds of a duration.
pub(super) fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn stamp() -> Stamp {
        Stamp {
            seq: 41,
            epoch: "9f".to_owned(),
            taken_ms: 1_000,
        }
    }

    fn fill(tags: &[&str], payload: &[u8]) -> Fill {
        Fill {
            key: Key::parse("p:1").unwrap(),
            tags: tags.iter().map(|t| Tag::parse(t).unwrap()).collect(),
            payload: payload.to_vec(),
        }
    }

    #[test]
    fn the_header_is_the_published_one() {
        let bytes = encode(&fill(&["a", "b\"c"], b"{}"), &stamp(), HOUR, 1_250);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(
            text,
            "{\"v\":1,\"e\":\"9f\",\"s\":41,\"created\":1250,\"base_ttl\":3600000,\"grace\":0,\
             \"delta\":250,\"tags\":[\"a\",\"b\\\"c\"],\"enc\":\"plain\"}\n{}"
        );
    }

    #[test]
    fn what_is_not_an_entry_is_none() {
        let good = encode(&fill(&["a"], b"x"), &stamp(), HOUR, 0);
        let edit = |from: &str, to: &str| {
            String::from_utf8(good.clone())
                .unwrap()
                .replace(from, to)
                .into_bytes()
        };
        assert!(decode(&good).is_some());
        for bad in [
            Vec::new(),
            b"\n".to_vec(),
            b"plain text".to_vec(),
            b"[1]\nx".to_vec(),
            good[..10].to_vec(),
            edit("\"v\":1", "\"v\":2"),
            edit("\"s\":41", "\"s\":-1"),
            edit("\"s\":41", "\"s\":1e300"),
            edit("plain", "zstd"),
            edit("[\"a\"]", &format!("[{}\"a\"]", "\"a\",".repeat(64))),
            vec![b' '; MAX_HEADER + 10],
            vec![b'['; MAX_HEADER - 1],
        ] {
            assert!(
                decode(&bad).is_none(),
                "{:?}",
                String::from_utf8_lossy(&bad)
            );
        }
    }

    #[test]
    fn the_longest_header_can_be_read_back() {
        let tag = "\"".repeat(128);
        let bytes = encode(&fill(&vec![&*tag; 64], b"x"), &stamp(), HOUR, 0);
        let (header, at) = decode(&bytes).unwrap();
        assert_eq!((header.tags.len(), &bytes[at..]), (64, &b"x"[..]));
    }

    proptest! {
        #[test]
        fn any_payload_comes_back(payload: Vec<u8>, tag in "[^\\p{Cc}k*!]{1,30}") {
            let bytes = encode(&fill(&[&tag], &payload), &stamp(), HOUR, 0);
            let (header, at) = decode(&bytes).unwrap();
            prop_assert_eq!(&header.tags[0], &tag);
            prop_assert_eq!(&bytes[at..], &payload[..]);
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_spread_stays_within_a_tenth_and_the_maximum(random in 0.0..=1.0_f64, secs in 1_u64..86_400) {
            let ttl = Duration::from_secs(secs);
            let spread = spread(ttl, random, Duration::from_secs(86_400));
            prop_assert!(spread >= ttl.mul_f64(0.899) && spread <= ttl.mul_f64(1.101));
            prop_assert!(spread <= Duration::from_secs(86_400));
        }
    }
}
