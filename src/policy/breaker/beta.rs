//! How sure one may be, after some good and bad outcomes, that the chance of a bad one is larger
//! than a given share.
//!
//! Pure arithmetic; it must not know what an outcome is.

/// P(p > share) for the chance `p` of a bad outcome, after `bad` and `good` ones and a flat prior:
/// the upper tail of Beta(1 + bad, 1 + good) beyond `share`, which lies within 0 and 1.
///
/// For whole numbers that tail is a binomial one: `P(X ≤ bad)` with `X ~ Bin(bad + good + 1, share)`.
/// The smaller side is summed, from its largest term on, until terms no longer count.
/// Exact to about 1e-10; cost O(√n).
pub(super) fn surely_more(share: f64, bad: u32, good: u32) -> f64 {
    let trials = u64::from(bad) + u64::from(good) + 1;
    let last = u64::from(bad);
    let p = if float(last) < float(trials) * share {
        tail(share, trials, last, false)
    } else {
        1.0 - tail(share, trials, last + 1, true)
    };
    p.clamp(0.0, 1.0)
}

/// `P(X ≥ first)` upwards, `P(X ≤ first)` downwards.
fn tail(share: f64, trials: u64, first: u64, upwards: bool) -> f64 {
    // The first term; logarithms, because its parts overflow.
    let ln_first = ln_factorial(trials) - ln_factorial(first) - ln_factorial(trials - first)
        + float(first) * share.ln()
        + float(trials - first) * (1.0 - share).ln();
    let odds = share / (1.0 - share);
    let mut term = ln_first.exp();
    let mut sum = 0.0;
    let mut k = first;
    loop {
        sum += term;
        if upwards {
            term *= float(trials - k) / float(k + 1) * odds;
            k += 1;
        } else {
            term *= float(k) / float(trials - k + 1) / odds;
            k = k.saturating_sub(1);
        }
        // Beyond the last one the factor was zero.
        if term <= sum * 1e-12 {
            return sum;
        }
    }
}

/// ln(n!): the sum where it is short, else Stirling's series, whose error at 32 is below 1e-14.
fn ln_factorial(n: u64) -> f64 {
    if n < 32 {
        return (2..=n).map(|k| float(k).ln()).sum();
    }
    let n = float(n);
    let series = (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / (1_260.0 * n * n)) / (n * n)) / n;
    n * n.ln() - n + 0.5 * (std::f64::consts::TAU * n).ln() + series
}

/// Counts stay far below 2^53, where every whole number is a float.
#[allow(clippy::cast_precision_loss)]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(bad: u32, good: u32, expected: f64) {
        let got = surely_more(0.5, bad, good);
        assert!(
            (got - expected).abs() < 1e-9,
            "({bad}, {good}): {got}, want {expected}"
        );
    }

    #[test]
    fn known_values() {
        close(0, 0, 0.5);
        close(7, 7, 0.5);
        close(1, 0, 0.75);
        close(0, 1, 0.25);
        // Tails of Bin(n, 1/2) as fractions: 1 - 1/2^5, 1 - 9/2^8, 1 - 67/2^11.
        close(4, 0, 31.0 / 32.0);
        close(6, 1, 247.0 / 256.0);
        close(8, 2, 1_981.0 / 2_048.0);
        // Bin(101, 1/2) <= 60, summed in whole numbers.
        close(60, 40, 0.976_977_966_535_328_6);
    }

    /// The same tail by the triangle of Pascal, without a logarithm.
    fn by_pascal(share: f64, bad: u32, good: u32) -> f64 {
        let trials = bad + good + 1;
        let mut row = vec![1.0_f64];
        for _ in 0..trials {
            let mut next = vec![0.0; row.len() + 1];
            for (k, p) in row.iter().enumerate() {
                next[k] += p * (1.0 - share);
                next[k + 1] += p * share;
            }
            row = next;
        }
        row.iter().take(bad as usize + 1).sum()
    }

    proptest! {
        #[test]
        fn agrees_with_pascal(share in 0.05..0.95, bad in 0_u32..150, good in 0_u32..150) {
            let (fast, slow) = (surely_more(share, bad, good), by_pascal(share, bad, good));
            prop_assert!((fast - slow).abs() < 1e-9, "{} {}", fast, slow);
        }

        #[test]
        fn is_a_probability_that_rises_with_bad(
            share in 0.05..0.95, bad in 0_u32..2_000_000, good in 0_u32..2_000_000,
        ) {
            let p = surely_more(share, bad, good);
            prop_assert!((0.0..=1.0).contains(&p));
            prop_assert!(surely_more(share, bad + 1, good) >= p - 1e-9);
        }
    }
}
