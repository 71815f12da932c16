//! The figures of a run.
//!
//! *Place*: the result of `run`: JSON for scripts, a table for people; `page`, `csv` and `compare`
//! start from it.
//! *Owner*: none; plain values. *Invariants*: the JSON has fio's keys, with reads and writes always
//! both present, so that scripts written for fio read it; what fio does not have (series, curve,
//! CPU of the servers) has keys of its own beside them. JSON of ours and of fio reads back.
//! *On failure*: [`ReportError`] says what is missing in the JSON.

use crate::cost::CostReport;
use crate::cpu::CpuReport;
use crate::figure::{human_ns, per_second, precise};
use crate::lane::Load;
use crate::sample::{Sample, SideSample};
use crate::tally::Tally;
use crate::workload::{Stop, Workload};
use hdrhistogram::Histogram;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PERCENTILES: [f64; 10] = [1.0, 5.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99];
/// Points of a latency curve between each quantile and half the way from it to 1.
const CURVE_TICKS: u32 = 10;

/// The figures of a run.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The workload's name.
    #[serde(rename = "jobname")]
    pub name: String,
    /// Requests that failed: a report exists only of a run without.
    pub error: u32,
    /// What was run, in fio's words.
    #[serde(rename = "job options")]
    pub options: BTreeMap<String, String>,
    /// Milliseconds that counted.
    #[serde(rename = "job_runtime")]
    pub runtime_ms: u64,
    /// Seconds since 1970 at its end.
    pub timestamp: u64,
    /// Reads.
    pub read: Side,
    /// Writes.
    pub write: Side,
    /// Arrivals of an open loop that were never sent: the load was more than the target can do.
    pub unsent: u64,
    /// The longest time without an answer to anything.
    pub longest_silence_ns: u64,
    /// Second by second.
    pub series: Vec<Sample>,
    /// What the processes used, if that was asked.
    pub cpu: Option<CpuReport>,
    /// What else the servers did, if that was asked.
    pub cost: Option<CostReport>,
}

/// Reads or writes of a run. All zero if there were none.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
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
    /// The slowest second.
    pub iops_min: f64,
    /// The fastest second.
    pub iops_max: f64,
    /// Standard deviation of the seconds.
    pub iops_stddev: f64,
    /// Seconds.
    pub iops_samples: u64,
    /// From when a request was due to its answer, in nanoseconds.
    pub lat_ns: Latency,
    /// From when it was sent to its answer: the same, but in an open loop.
    pub clat_ns: Latency,
    /// Share of the requests that took no longer: nanoseconds and share, ascending.
    pub latency_curve: Vec<(u64, f64)>,
}

/// A latency in nanoseconds.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
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
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Percentiles(Vec<(f64, u64)>);

/// Why JSON is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Not JSON of the form.
    #[error("this is not the JSON of ogee bench -o json or fio --output-format=json: {0}")]
    Form(#[from] serde_json::Error),
    /// There is none, or there are several.
    #[error("it has {0} jobs instead of one: run fio with --group_reporting and one job section")]
    Jobs(usize),
}

#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(rename = "ogee version", default)]
    version: String,
    jobs: Vec<Report>,
}

impl Report {
    pub(crate) fn new(
        workload: &Workload,
        elapsed: Duration,
        load: &Load,
        series: Vec<Sample>,
    ) -> Self {
        let side = |tally: &Tally, of: fn(&Sample) -> &SideSample| {
            let mut side = Side::new(tally, elapsed);
            side.spread(&series, of);
            side
        };
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            name: workload.name.clone(),
            error: 0,
            options: options(workload),
            runtime_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            timestamp: since_1970.map_or(0, |since| since.as_secs()),
            read: side(&load.read.borrow(), |sample| &sample.read),
            write: side(&load.write.borrow(), |sample| &sample.write),
            unsent: load.unsent(),
            longest_silence_ns: u64::try_from(load.silence().as_nanos()).unwrap_or(u64::MAX),
            series,
            cpu: None,
            cost: None,
        }
    }

    /// JSON with fio's keys; all jobs as one, as with fio's `group_reporting`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let document = Document {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            jobs: vec![self.clone()],
        };
        serde_json::to_value(document).expect("invariant: numbers and string keys are always JSON")
    }

    /// Reads JSON of ours or of fio's.
    ///
    /// # Errors
    /// If it is neither, or not of one job.
    pub fn from_json(text: &str) -> Result<Self, ReportError> {
        let mut document: Document = serde_json::from_str(text)?;
        match (document.jobs.len(), document.jobs.pop()) {
            (1, Some(report)) => Ok(report),
            (count, _) => Err(ReportError::Jobs(count)),
        }
    }

    /// Requests of both kinds.
    #[must_use]
    pub const fn total_ios(&self) -> u64 {
        self.read.total_ios + self.write.total_ios
    }

    /// The sides that have requests, with their names.
    pub fn sides(&self) -> impl Iterator<Item = (&'static str, &Side)> {
        let both = [("read", &self.read), ("write", &self.write)];
        both.into_iter().filter(|(_, side)| side.total_ios > 0)
    }

    /// A line about what the load was, from fio's words.
    #[must_use]
    pub fn describe(&self) -> String {
        let words: Vec<String> = self
            .options
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        words.join(" ")
    }
}

/// The workload in fio's words; what has its default is left out.
fn options(workload: &Workload) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    let mut set = |key: &str, value: String| options.insert(key.to_owned(), value);
    set("rw", workload.rw.to_string());
    let sizes = if workload.sizes.single().is_some() {
        "bs"
    } else {
        "bssplit"
    };
    set(sizes, workload.sizes.to_string());
    set("iodepth", workload.iodepth.to_string());
    set("numjobs", workload.jobs.to_string());
    match workload.stop {
        Stop::Runtime(time) => set("runtime", time.as_secs().to_string()),
        Stop::Bytes(bytes) => set("io_size", bytes.get().to_string()),
    };
    if workload.rw.is_random() {
        set("random_distribution", workload.distribution.to_string());
    }
    if let Some(rate) = workload.rate {
        set("rate_iops", rate.to_string());
    }
    if let Some(rate) = workload.rate_bytes {
        set("rate", rate.to_string());
    }
    if let Some(arrivals) = workload.arrivals {
        set("arrival_rate", arrivals.rate.to_string());
        set("rate_process", arrivals.process.to_string());
    }
    if !workload.ramp.is_zero() {
        set("ramp_time", workload.ramp.as_secs().to_string());
    }
    if workload.verify {
        set("verify", "1".to_owned());
    }
    options
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
            lat_ns: Latency::new(tally.latencies_ns()),
            clat_ns: Latency::new(tally.services_ns()),
            latency_curve: curve(tally.latencies_ns()),
            ..Self::default()
        }
    }

    /// How much its seconds differ; the rest behind the last whole second tells nothing.
    fn spread(&mut self, series: &[Sample], of: fn(&Sample) -> &SideSample) {
        let whole = series.iter().filter(|sample| sample.span_ms >= 500);
        let rates: Vec<f64> = whole.map(|sample| of(sample).iops).collect();
        if rates.is_empty() {
            return;
        }
        let count = precise(rates.len() as u64);
        let mean = rates.iter().sum::<f64>() / count;
        let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
        self.iops_min = rates.iter().copied().fold(f64::INFINITY, f64::min);
        self.iops_max = rates.iter().copied().fold(0.0, f64::max);
        self.iops_stddev = variance.sqrt();
        self.iops_samples = rates.len() as u64;
    }

    /// The latency to judge by: fio has percentiles of `clat_ns` only, unless told otherwise.
    #[must_use]
    pub fn latency(&self) -> &Latency {
        if self.lat_ns.percentile.0.is_empty() {
            &self.clat_ns
        } else {
            &self.lat_ns
        }
    }
}

fn curve(histogram: &Histogram<u64>) -> Vec<(u64, f64)> {
    let mut points: Vec<(u64, f64)> = Vec::new();
    if histogram.is_empty() {
        return points;
    }
    // The shortest one is a step of its own.
    points.push((histogram.min().saturating_sub(1), 0.0));
    for step in histogram.iter_quantiles(CURVE_TICKS) {
        let point = (step.value_iterated_to(), step.quantile());
        match points.last_mut() {
            Some(last) if last.0 >= point.0 => last.1 = point.1,
            _ => points.push(point),
        }
    }
    points
}

impl Latency {
    fn new(histogram: &Histogram<u64>) -> Self {
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

impl<'de> Deserialize<'de> for Percentiles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<String, u64>::deserialize(deserializer)?;
        let numbers = map.into_iter().map(|(percent, ns)| match percent.parse() {
            Ok(percent) => Ok((percent, ns)),
            Err(_) => Err(serde::de::Error::custom(format!(
                "percentile \"{percent}\""
            ))),
        });
        let mut all: Vec<(f64, u64)> = numbers.collect::<Result<_, _>>()?;
        all.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        Ok(Self(all))
    }
}

impl fmt::Display for Report {
    /// A table for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = precise(self.runtime_ms) / 1e3;
        writeln!(f, "{}: {seconds:.1} s", self.name)?;
        let heads = ["", "IOPS", "MiB/s", "mean", "p50", "p99", "p99.9", "max"];
        row(f, heads.map(str::to_owned))?;
        for (name, side) in self.sides() {
            row(f, side.cells(name))?;
        }
        if let Some(cpu) = &self.cpu {
            write!(f, "{}", cpu.table(self.total_ios()))?;
        }
        if let Some(cost) = &self.cost {
            write!(f, "{}", cost.table())?;
        }
        if self.unsent > 0 {
            let remedy = "lower --arrival-rate or raise --iodepth";
            writeln!(
                f,
                "overload: {} requests were due and never sent, so the latencies above are too good: {remedy}",
                self.unsent
            )?;
        }
        Ok(())
    }
}

impl Side {
    fn cells(&self, name: &str) -> [String; 8] {
        let latency = self.latency();
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run of 1000 writes of 1 to 1000 us in two seconds.
    pub(crate) fn report() -> Report {
        let workload = Workload {
            name: "case".to_owned(),
            rw: crate::Rw::RandWrite,
            ..Workload::default()
        };
        let load = Load::new(&workload);
        let mut series = Vec::new();
        for second in 0..2_u64 {
            for us in second * 500 + 1..=second * 500 + 500 {
                let took = Duration::from_micros(us);
                load.write.borrow_mut().record(4096, took, took);
            }
            let span = Duration::from_secs(1);
            series.push(Sample {
                end_ms: (second + 1) * 1000,
                span_ms: 1000,
                read: load.read.borrow_mut().seal(span),
                write: load.write.borrow_mut().seal(span),
            });
        }
        Report::new(&workload, Duration::from_secs(2), &load, series)
    }

    #[test]
    fn json_has_fios_keys_and_both_sides() {
        let json = report().to_json();
        let job = &json["jobs"][0];
        assert_eq!(
            (&job["jobname"], &job["error"]),
            (&"case".into(), &0.into())
        );
        assert_eq!(job["job options"]["rw"], "randwrite");
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
        for latency in [&job["write"]["lat_ns"], &job["write"]["clat_ns"]] {
            near(&latency["percentile"]["50.000000"], 500.0);
            near(&latency["percentile"]["99.000000"], 990.0);
            near(&latency["percentile"]["99.900000"], 999.0);
            near(&latency["mean"], 500.5);
            near(&latency["min"], 1.0);
            near(&latency["max"], 1000.0);
        }
        for key in ["iops", "bw_bytes", "total_ios"] {
            assert_eq!(job["read"][key].as_f64(), Some(0.0), "{key}");
        }
        assert_eq!(job["read"]["lat_ns"]["percentile"]["99.000000"], 0);
        assert_eq!(job["read"]["lat_ns"]["min"], 0);
    }

    #[test]
    fn a_second_has_percentiles_of_its_own() {
        let report = report();
        let [first, second] = [0, 1].map(|at| report.series[at].write);
        assert_eq!((first.ios, second.ios), (500, 500));
        assert!(first.max_ns < 510_000 && second.p50_ns > 740_000);
        assert_eq!(
            (report.write.iops_min, report.write.iops_samples),
            (500.0, 2)
        );
    }

    #[test]
    fn the_curve_rises_from_nothing_to_all() {
        let curve = report().write.latency_curve;
        assert_eq!(curve.first().map(|(_, share)| *share), Some(0.0));
        assert_eq!(curve.last().map(|(_, share)| *share), Some(1.0));
        assert!(curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
        let half = curve.iter().find(|(_, share)| *share >= 0.5).unwrap();
        assert!((490_000..510_000).contains(&half.0), "{half:?}");
    }

    #[test]
    fn json_reads_back() {
        let report = report();
        let text = report.to_json().to_string();
        assert_eq!(Report::from_json(&text).unwrap(), report);
    }

    #[test]
    fn json_of_fio_is_understood() {
        let text = r#"{"fio version":"fio-3.33","jobs":[{"jobname":"row","groupid":0,"error":0,
            "job options":{"name":"row"},"job_runtime":6000,
            "read":{"io_bytes":4096000,"bw":1,"bw_bytes":682666,"iops":166.6,"runtime":6000,
                "total_ios":1000,"slat_ns":{"min":0,"max":0,"mean":0.0,"stddev":0.0,"N":0},
                "clat_ns":{"min":10,"max":90,"mean":50.5,"stddev":1.5,"N":1000,
                    "percentile":{"50.000000":40,"99.000000":80}},
                "lat_ns":{"min":10,"max":91,"mean":51.0,"stddev":1.5,"N":1000},
                "iops_min":1,"iops_max":9,"iops_mean":5.0,"iops_stddev":0.5,"iops_samples":12},
            "write":{"total_ios":0}}]}"#;
        let report = Report::from_json(text).unwrap();
        assert_eq!(report.read.latency().percentile.at(99.0), Some(80));
        assert_eq!(report.sides().count(), 1);
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let refused = |text| Report::from_json(text).unwrap_err().to_string();
        assert!(refused("{}").contains("ogee bench -o json"));
        assert!(refused(r#"{"jobs":[]}"#).contains("0 jobs"));
        assert!(refused(r#"{"jobs":[{},{}]}"#).contains("--group_reporting"));
        let wrong = r#"{"jobs":[{"read":{"lat_ns":{"percentile":{"half":1}}}}]}"#;
        assert!(refused(wrong).contains("half"));
    }

    #[test]
    fn the_table_names_what_happened_only() {
        let mut report = report();
        let table = report.to_string();
        assert!(table.contains("write") && table.contains("500"), "{table}");
        assert!(
            !table.contains("read") && !table.contains("overload"),
            "{table}"
        );
        report.unsent = 7;
        assert!(
            report
                .to_string()
                .contains("7 requests were due and never sent")
        );
    }
}
