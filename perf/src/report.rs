//! The figures of a run.
//!
//! *Place*: the result of `run`: JSON for scripts, a table for people.
//! *Owner*: none; plain values. *Invariants*: the JSON has fio's keys, with reads and writes always
//! both present, so that scripts written for fio read it.
//! *On failure*: none.

use crate::tally::Tally;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::fmt;
use std::time::Duration;

const PERCENTILES: [f64; 10] = [1.0, 5.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99];
const NS_PER_S: u128 = 1_000_000_000;

/// The figures of a run.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// The workload's name.
    pub name: String,
    /// Time that counted.
    pub elapsed: Duration,
    /// Reads.
    pub read: Side,
    /// Writes.
    pub write: Side,
}

/// Reads or writes of a run. All zero if there were none.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Side {
    /// Requests per second.
    pub iops: f64,
    /// Bytes per second.
    pub bw_bytes: u64,
    /// Requests.
    pub total_ios: u64,
    /// Bytes.
    pub io_bytes: u64,
    /// Milliseconds that counted.
    pub runtime: u64,
    /// Time from asking to the answer, in nanoseconds.
    pub lat_ns: Latency,
}

/// Time from asking to the answer, in nanoseconds.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Latency {
    /// Shortest.
    pub min: u64,
    /// Longest.
    pub max: u64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub stddev: f64,
    /// Percentiles.
    pub percentile: Percentiles,
}

/// Percentiles of a latency, ascending.
#[derive(Clone, PartialEq, Debug)]
pub struct Percentiles(Vec<(f64, u64)>);

#[derive(Serialize)]
struct Document<'a> {
    jobs: [Job<'a>; 1],
}

#[derive(Serialize)]
struct Job<'a> {
    jobname: &'a str,
    error: u32,
    read: &'a Side,
    write: &'a Side,
}

impl Report {
    pub(crate) fn new(name: &str, elapsed: Duration, read: &Tally, write: &Tally) -> Self {
        let (read, write) = (Side::new(read, elapsed), Side::new(write, elapsed));
        Self {
            name: name.to_owned(),
            elapsed,
            read,
            write,
        }
    }

    /// One line of JSON with fio's keys; all jobs as one, as with fio's `group_reporting`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let Self {
            name: jobname,
            read,
            write,
            ..
        } = self;
        // A report exists only of a run without errors.
        let job = Job {
            jobname,
            error: 0,
            read,
            write,
        };
        serde_json::to_value(Document { jobs: [job] })
            .expect("invariant: numbers and string keys are always JSON")
    }
}

impl Side {
    fn new(tally: &Tally, elapsed: Duration) -> Self {
        let total_ios = tally.requests();
        let seconds = elapsed.as_secs_f64();
        Self {
            iops: if seconds > 0.0 {
                precise(total_ios) / seconds
            } else {
                0.0
            },
            bw_bytes: per_second(tally.bytes(), elapsed),
            total_ios,
            io_bytes: tally.bytes(),
            runtime: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            lat_ns: Latency::new(tally),
        }
    }
}

impl Latency {
    fn new(tally: &Tally) -> Self {
        let histogram = tally.latencies_ns();
        let at = |percent: f64| (percent, histogram.value_at_quantile(percent / 100.0));
        // An empty histogram has a minimum of zero but percentiles of one bucket.
        let percentile = match histogram.is_empty() {
            true => PERCENTILES.iter().map(|percent| (*percent, 0)).collect(),
            false => PERCENTILES.iter().copied().map(at).collect(),
        };
        Self {
            min: if histogram.is_empty() {
                0
            } else {
                histogram.min()
            },
            max: histogram.max(),
            mean: histogram.mean(),
            stddev: histogram.stdev(),
            percentile: Percentiles(percentile),
        }
    }
}

impl Percentiles {
    /// The latency that `percent` of the requests did not exceed, if it is one of those reported.
    #[must_use]
    pub fn at(&self, percent: f64) -> Option<u64> {
        self.0
            .iter()
            .find(|(known, _)| (known - percent).abs() < 1e-9)
            .map(|(_, ns)| *ns)
    }
}

impl Serialize for Percentiles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (percent, ns) in &self.0 {
            map.serialize_entry(&format!("{percent:.6}"), ns)?;
        }
        map.end()
    }
}

impl fmt::Display for Report {
    /// A table for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {:.1} s", self.name, self.elapsed.as_secs_f64())?;
        let heads = ["", "IOPS", "MiB/s", "mean", "p50", "p99", "p99.9", "max"];
        row(f, heads.map(str::to_owned))?;
        for (name, side) in [("read", &self.read), ("write", &self.write)] {
            if side.total_ios > 0 {
                row(f, side.cells(name))?;
            }
        }
        Ok(())
    }
}

impl Side {
    fn cells(&self, name: &str) -> [String; 8] {
        let latency = &self.lat_ns;
        let at = |percent| human_ns(precise(latency.percentile.at(percent).unwrap_or(0)));
        [
            name.to_owned(),
            format!("{:.0}", self.iops),
            format!("{:.1}", precise(self.bw_bytes) / f64::from(1 << 20)),
            human_ns(latency.mean),
            at(50.0),
            at(99.0),
            at(99.9),
            human_ns(precise(latency.max)),
        ]
    }
}

fn row(f: &mut fmt::Formatter<'_>, cells: [String; 8]) -> fmt::Result {
    let [name, rest @ ..] = cells;
    write!(f, "{name:<6}")?;
    for cell in rest {
        write!(f, " {cell:>10}")?;
    }
    writeln!(f)
}

/// Three figures and a unit.
fn human_ns(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
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
const fn precise(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut write = Tally::new();
        for us in 1..=1000 {
            write.record(4096, Duration::from_micros(us));
        }
        Report::new("case", Duration::from_secs(2), &Tally::new(), &write)
    }

    #[test]
    fn json_has_fios_keys_and_both_sides() {
        let json = report().to_json();
        let job = &json["jobs"][0];
        assert_eq!(
            (&job["jobname"], &job["error"]),
            (&"case".into(), &0.into())
        );
        assert_eq!(job["write"]["iops"], 500.0);
        assert_eq!(job["write"]["bw_bytes"], 4096 * 500);
        assert_eq!(job["write"]["total_ios"], 1000);
        let near = |value: &serde_json::Value, us: f64| {
            let found = value.as_f64().unwrap();
            assert!(
                (found / (us * 1e3) - 1.0).abs() < 0.01,
                "{found} is not about {us} us"
            );
        };
        let latency = &job["write"]["lat_ns"];
        near(&latency["percentile"]["50.000000"], 500.0);
        near(&latency["percentile"]["99.000000"], 990.0);
        near(&latency["percentile"]["99.900000"], 999.0);
        near(&latency["mean"], 500.5);
        near(&latency["min"], 1.0);
        near(&latency["max"], 1000.0);
        for key in ["iops", "bw_bytes", "total_ios"] {
            assert_eq!(job["read"][key].as_f64(), Some(0.0), "{key}");
        }
        assert_eq!(job["read"]["lat_ns"]["percentile"]["99.000000"], 0);
        assert_eq!(job["read"]["lat_ns"]["min"], 0);
    }

    #[test]
    fn the_table_names_what_happened_only() {
        let table = report().to_string();
        assert!(table.contains("write") && table.contains("500"), "{table}");
        assert!(!table.contains("read"), "{table}");
    }
}
