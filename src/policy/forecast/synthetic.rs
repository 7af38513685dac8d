//! Loads made up from a season and noise, the same for the same seed: what the tests and the table in `docs/GATE.md` go by.

use super::{DAY, Series, WEEK};

/// Numbers that look random (splitmix64).
pub(super) struct Noise(pub u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between 0 and 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normal, with mean 0 and deviation 1: the sum of twelve.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// Hours of the day, 0 to 24.
fn hour(slot: u64) -> f64 {
    (slot % DAY) as f64 / 12.0
}

/// 0 to 6; 5 and 6 are the weekend.
fn weekday(slot: u64) -> u64 {
    slot % WEEK / DAY
}

/// A hill of height 1 around an hour.
fn hill(slot: u64, at: f64, width: f64) -> f64 {
    (-((hour(slot) - at) / width).powi(2)).exp()
}

/// An office: two hills on working days, little else.
pub(super) fn office(slot: u64) -> f64 {
    let hills = hill(slot, 10.0, 1.5) + 0.8 * hill(slot, 15.0, 2.0);
    let part = if weekday(slot) < 5 { 1.0 } else { 0.15 };
    1.0 + 12.0 * part * hills
}

/// A shop: an evening peak every day, higher at the weekend.
pub(super) fn shop(slot: u64) -> f64 {
    let part = if weekday(slot) < 5 { 1.0 } else { 1.7 };
    2.0 + 8.0 * part * hill(slot, 20.0, 1.5)
}

/// Nightly batches and something every hour, to the minute.
pub(super) fn batches(slot: u64) -> f64 {
    let nightly = if (24..30).contains(&(slot % DAY)) {
        20.0
    } else {
        0.0
    };
    let hourly = if slot.is_multiple_of(12) { 4.0 } else { 0.0 };
    0.3 + nightly + hourly
}

/// Five weeks of a season, with noise in proportion and that of few jobs; each day as a whole is off by `of_day`.
pub(super) fn weeks(season: impl Fn(u64) -> f64, noise: f64, of_day: f64, seed: u64) -> Series {
    let mut random = Noise(seed);
    let mut series = Series::default();
    let mut day = 1.0;
    for slot in 0..5 * WEEK {
        if slot.is_multiple_of(DAY) {
            day = (of_day * random.normal()).exp();
        }
        let mean = day * season(slot);
        let value = mean * (noise * random.normal()).exp() + 0.2 * mean.sqrt() * random.normal();
        series.set(slot, Some(value.max(0.0)));
    }
    series
}
