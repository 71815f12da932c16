//! Numbers for people.
//!
//! *Place*: under every output. *Owner*: none. *Invariants*: three or four figures and a unit.
//! *On failure*: none.

use std::time::Duration;

const NS_PER_S: u128 = 1_000_000_000;

/// A time in nanoseconds: three figures and a unit.
#[must_use]
pub fn human_ns(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

/// A count with thousands apart.
#[must_use]
pub fn human_count(count: f64) -> String {
    let digits = format!("{:.0}", count.max(0.0));
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn per_second(count: u64, elapsed: Duration) -> u64 {
    let scaled = u128::from(count) * NS_PER_S;
    scaled
        .checked_div(elapsed.as_nanos())
        .and_then(|rate| u64::try_from(rate).ok())
        .unwrap_or(0)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people: 53 bits are plenty"
)]
pub(crate) const fn precise(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let times = [0.0, 999.0, 1500.0, 2_340_000.0, 61e9].map(human_ns);
        assert_eq!(times, ["0 ns", "999 ns", "1.5 us", "2.34 ms", "61.00 s"]);
        let counts = [0.0, 999.4, 1000.0, 1_234_567.0].map(human_count);
        assert_eq!(counts, ["0", "999", "1,000", "1,234,567"]);
    }
}
