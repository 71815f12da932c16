//! Which places random requests go to.
//!
//! *Place*: part of a workload; each lane draws from it once per request.
//! *Owner*: none; plain values. *Invariants*: every draw is a place below the count; a zipf
//! distribution's hot places are the same for all lanes and seeds, and lie scattered over the range.
//! *On failure*: [`DistributionError`] names the text.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt};
use std::fmt;
use std::str::FromStr;

/// Which places random requests go to. The names are fio's.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Distribution {
    /// Each as often as any other.
    #[default]
    Uniform,
    /// The place of rank `k` in proportion to `1 / k^theta`.
    Zipf {
        /// Skew: 0.9 to 1.2 is what caches and databases see.
        theta: f64,
    },
}

/// Not a distribution that we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is none of uniform, zipf, zipf:THETA with 0 < THETA <= 5, such as zipf:1.1")]
pub struct DistributionError(Box<str>);

/// Draws places below a count.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Places {
    Uniform,
    Zipf(Zipf),
}

/// Ranks 1 to `count`, by inversion of the integral of `x^-theta` with rejection: a draw costs the
/// same for any count, and nothing is computed beforehand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zipf {
    count: u64,
    theta: f64,
    /// Area left of rank 1 and up to the last rank.
    area: (f64, f64),
    /// Draws this close to their rank need no comparison.
    shortcut: f64,
    /// Coprime to the count: rank → place is one to one.
    stride: u64,
}

impl Distribution {
    pub(crate) fn places(self, count: u64) -> Places {
        match self {
            Self::Uniform => Places::Uniform,
            Self::Zipf { theta } => Places::Zipf(Zipf::new(count, theta)),
        }
    }
}

impl Places {
    /// A place below `count`.
    pub(crate) fn draw(&self, count: u64, random: &mut Xoshiro256PlusPlus) -> u64 {
        match self {
            Self::Uniform => random.random_range(0..count),
            // A larger request does not fit at the last places.
            Self::Zipf(zipf) => zipf.place(zipf.rank(random)).min(count - 1),
        }
    }
}

impl Zipf {
    fn new(count: u64, theta: f64) -> Self {
        let mut zipf = Self {
            count,
            theta,
            area: (0.0, 0.0),
            shortcut: 0.0,
            stride: stride(count),
        };
        zipf.area = (zipf.integral(1.5) - 1.0, zipf.integral(real(count) + 0.5));
        zipf.shortcut = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    /// From 1 to the count.
    fn rank(&self, random: &mut impl Rng) -> u64 {
        let (low, high) = self.area;
        loop {
            let drawn = high + random.random::<f64>() * (low - high);
            let at = self.inverse(drawn);
            let rank = whole(at).clamp(1, self.count);
            let center = real(rank);
            let is_close = center - at <= self.shortcut;
            if is_close || drawn >= self.integral(center + 0.5) - self.weight(center) {
                return rank;
            }
        }
    }

    fn place(&self, rank: u64) -> u64 {
        let place = u128::from(rank - 1) * u128::from(self.stride) % u128::from(self.count);
        u64::try_from(place).expect("invariant: a remainder is less than the count")
    }

    fn weight(&self, at: f64) -> f64 {
        (-self.theta * at.ln()).exp()
    }

    /// Of the weight, from 1 to `at`: `(at^(1-theta) - 1) / (1-theta)`, its limit at theta 1.
    fn integral(&self, at: f64) -> f64 {
        let log = at.ln();
        let power = (1.0 - self.theta) * log;
        if power.abs() > 1e-8 {
            power.exp_m1() / power * log
        } else {
            log * (1.0 + power / 2.0)
        }
    }

    /// Where the integral reaches `area`.
    fn inverse(&self, area: f64) -> f64 {
        // Rounding must not carry it past the pole.
        let grown = (area * (1.0 - self.theta)).max(-1.0);
        if grown.abs() > 1e-8 {
            (grown.ln_1p() / grown * area).exp()
        } else {
            (area * (1.0 - grown / 2.0)).exp()
        }
    }
}

/// Near the golden section of the count, where neighbours end up far apart.
fn stride(count: u64) -> u64 {
    let golden = u128::from(count) * 618_034 / 1_000_000;
    let mut stride = u64::try_from(golden).unwrap_or(1).max(1);
    while !is_coprime(stride, count) {
        stride += 1;
    }
    stride
}

const fn is_coprime(a: u64, b: u64) -> bool {
    let (mut a, mut b) = (a, b);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rank past 2^53 is drawn too seldom to matter"
)]
const fn real(value: u64) -> f64 {
    value as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and the caller clamps"
)]
fn whole(value: f64) -> u64 {
    (value + 0.5) as u64
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf { theta } => write!(f, "zipf:{theta}"),
        }
    }
}

impl FromStr for Distribution {
    type Err = DistributionError;

    fn from_str(text: &str) -> Result<Self, DistributionError> {
        let theta = |text: &str| {
            let theta = text.parse::<f64>().ok();
            theta.filter(|theta| *theta > 0.0 && *theta <= 5.0)
        };
        let parsed = match text.split_once(':') {
            None if text == "uniform" || text == "random" => Some(Self::Uniform),
            // fio's default.
            None if text == "zipf" => Some(Self::Zipf { theta: 1.1 }),
            Some(("zipf", skew)) => theta(skew).map(|theta| Self::Zipf { theta }),
            _ => None,
        };
        parsed.ok_or_else(|| DistributionError(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn ranks_come_as_often_as_the_formula_says() {
        const COUNT: u64 = 1000;
        const DRAWS: u32 = 400_000;
        for theta in [0.5, 0.99, 1.0, 1.2, 2.0] {
            let zipf = Zipf::new(COUNT, theta);
            let mut random = Xoshiro256PlusPlus::seed_from_u64(9);
            let mut counts = vec![0_u32; 1001];
            for _ in 0..DRAWS {
                counts[usize::try_from(zipf.rank(&mut random)).unwrap()] += 1;
            }
            let weight = |rank: u32| f64::from(rank).powf(-theta);
            let sum: f64 = (1..=1000).map(weight).sum();
            for rank in [1, 2, 3, 10, 100, 1000] {
                let due = f64::from(DRAWS) * weight(rank) / sum;
                let found = f64::from(counts[rank as usize]);
                // Five standard deviations.
                let slack = 5.0 * due.sqrt() + 1.0;
                assert!(
                    (found - due).abs() < slack,
                    "theta {theta}, rank {rank}: {found}, not {due}"
                );
            }
            assert_eq!(counts[0], 0);
        }
    }

    #[test]
    fn each_rank_has_a_place_of_its_own() {
        for count in [1, 2, 10, 1000, 4096, 65_537] {
            let zipf = Zipf::new(count, 1.1);
            let mut places: Vec<u64> = (1..=count).map(|rank| zipf.place(rank)).collect();
            assert!(count < 10 || places[0].abs_diff(places[1]) > count / 4);
            places.sort_unstable();
            assert_eq!(places, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn draws_stay_below_the_count() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        for count in [1, 2, 3, 1 << 40] {
            for text in ["uniform", "zipf:0.1", "zipf", "zipf:5"] {
                let places = text.parse::<Distribution>().unwrap().places(count);
                assert!((0..2000).all(|_| places.draw(count, &mut random) < count));
            }
        }
    }

    #[test]
    fn names_and_back() {
        for text in ["uniform", "zipf:1.1", "zipf:0.5"] {
            assert_eq!(text.parse::<Distribution>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "zipf:",
            "zipf:0",
            "zipf:-1",
            "zipf:NaN",
            "zipf:6",
            "pareto:0.2",
        ] {
            let error = text.parse::<Distribution>().unwrap_err().to_string();
            assert!(error.contains("zipf:THETA"), "{error}");
        }
    }
}
