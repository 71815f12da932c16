//! Which of two runs, or of two things that ran in turn, is better.
//!
//! *Place*: from reports to a table and a verdict. *Owner*: none; plain values.
//! *Invariants*: ratios are B over A; a verdict says what is better for the user, so a ratio below 1
//! of a latency is better. Rounds are judged by their pairs: neighbours in time, which share the
//! hour's noise. *On failure*: what one of the two does not have is left out.

use crate::figure::{human_count, human_ns, precise};
use crate::report::{Report, Side};
use serde::Serialize;
use std::fmt;

/// Keys that make two loads comparable.
const LOAD_KEYS: [&str; 9] = [
    "rw",
    "bs",
    "bssplit",
    "iodepth",
    "numjobs",
    "random_distribution",
    "rate_iops",
    "rate",
    "arrival_rate",
];

/// B compared with A.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    /// Turns of each.
    pub rounds: usize,
    /// Where the loads differ: key, A's and B's value.
    pub differences: Vec<(String, String, String)>,
    /// One for each figure that both have.
    pub rows: Vec<Row>,
}

/// One figure of both.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// Of reads, writes or all.
    pub of: &'static str,
    /// What it is.
    pub metric: Metric,
    /// A's; the median of its rounds.
    pub a: f64,
    /// B's; the median of its rounds.
    pub b: f64,
    /// B over A; of medians.
    pub ratio: f64,
    /// The least ratio of a round.
    pub ratio_min: f64,
    /// The largest ratio of a round.
    pub ratio_max: f64,
    /// Of B.
    pub verdict: Verdict,
}

/// A figure that runs are judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Requests per second.
    Iops,
    /// Half of the requests took no longer.
    P50Ns,
    /// 99 % took no longer.
    P99Ns,
    /// 99.9 % took no longer.
    P999Ns,
    /// Of the servers, for each request.
    ServerCpuUs,
    /// Of the client, for each request.
    ClientCpuUs,
}

/// How B does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// More requests or less time.
    Better,
    /// The other way round.
    Worse,
    /// The difference may be chance.
    WithinNoise,
}

impl Comparison {
    /// Two runs: differences up to `noise_percent` are noise.
    #[must_use]
    pub fn of_runs(a: &Report, b: &Report, noise_percent: f64) -> Self {
        Self::of_pairs(&[(a, b)], noise_percent)
    }

    /// Runs in turn: a difference counts if every round shows it, and the medians differ by more
    /// than `noise_percent`.
    #[must_use]
    pub fn of_rounds(rounds: &[(Report, Report)], noise_percent: f64) -> Self {
        let pairs: Vec<(&Report, &Report)> = rounds.iter().map(|(a, b)| (a, b)).collect();
        Self::of_pairs(&pairs, noise_percent)
    }

    fn of_pairs(pairs: &[(&Report, &Report)], noise_percent: f64) -> Self {
        let mut rows = Vec::new();
        for (of, side) in [
            ("read", (|report| &report.read) as fn(&Report) -> &Side),
            ("write", |report| &report.write),
        ] {
            for metric in [Metric::Iops, Metric::P50Ns, Metric::P99Ns, Metric::P999Ns] {
                let values = |report: &Report| metric.of_side(side(report));
                rows.extend(Row::new(of, metric, pairs, values, noise_percent));
            }
        }
        for metric in [Metric::ServerCpuUs, Metric::ClientCpuUs] {
            let values = |report: &Report| metric.of_cpu(report);
            rows.extend(Row::new("all", metric, pairs, values, noise_percent));
        }
        let differences = pairs.first().map(|(a, b)| differences(a, b));
        Self {
            rounds: pairs.len(),
            differences: differences.unwrap_or_default(),
            rows,
        }
    }

    /// Whether anything is worse.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        self.rows.iter().any(|row| row.verdict == Verdict::Worse)
    }
}

fn differences(a: &Report, b: &Report) -> Vec<(String, String, String)> {
    let both = LOAD_KEYS.iter().filter_map(|key| {
        let (left, right) = (a.options.get(*key)?, b.options.get(*key)?);
        (left != right).then(|| ((*key).to_owned(), left.clone(), right.clone()))
    });
    both.collect()
}

impl Row {
    fn new(
        of: &'static str,
        metric: Metric,
        pairs: &[(&Report, &Report)],
        value: impl Fn(&Report) -> Option<f64>,
        noise_percent: f64,
    ) -> Option<Self> {
        // Nothing to compare where one of them has none: a ratio needs both.
        let values = pairs.iter().map(|(a, b)| Some((value(a)?, value(b)?)));
        let values: Vec<(f64, f64)> = values.collect::<Option<_>>()?;
        let ratios = values.iter().map(|(a, b)| b / a);
        let (ratio_min, ratio_max) = ratios.fold((f64::INFINITY, 0.0_f64), |(min, max), ratio| {
            (min.min(ratio), max.max(ratio))
        });
        let a = median(values.iter().map(|(a, _)| *a).collect())?;
        let b = median(values.iter().map(|(_, b)| *b).collect())?;
        let mut row = Self {
            of,
            metric,
            a,
            b,
            ratio: b / a,
            ratio_min,
            ratio_max,
            verdict: Verdict::WithinNoise,
        };
        row.verdict = row.judge(noise_percent);
        Some(row)
    }

    fn judge(&self, noise_percent: f64) -> Verdict {
        let noise = noise_percent / 100.0;
        let is_more = self.ratio_min > 1.0 && self.ratio > 1.0 + noise;
        // As far below as that is above: half is as much as twice.
        let is_less = self.ratio_max < 1.0 && self.ratio < 1.0 / (1.0 + noise);
        match (is_more, is_less, self.metric == Metric::Iops) {
            (true, _, true) | (_, true, false) => Verdict::Better,
            (true, _, false) | (_, true, true) => Verdict::Worse,
            _ => Verdict::WithinNoise,
        }
    }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len().is_multiple_of(2) {
        let lower = *values.get(values.len() / 2 - 1)?;
        Some(f64::midpoint(lower, upper))
    } else {
        Some(upper)
    }
}

impl Metric {
    fn of_side(self, side: &Side) -> Option<f64> {
        if self == Self::Iops {
            return Some(side.iops).filter(|iops| *iops > 0.0);
        }
        let percent = match self {
            Self::P50Ns => 50.0,
            Self::P99Ns => 99.0,
            _ => 99.9,
        };
        let ns = side.latency().percentile.at(percent)?;
        Some(precise(ns)).filter(|ns| *ns > 0.0)
    }

    fn of_cpu(self, report: &Report) -> Option<f64> {
        let cpu = report.cpu.as_ref()?;
        let us = match self {
            Self::ServerCpuUs => cpu.server_us_per_io,
            _ => cpu.client_us_per_io,
        };
        Some(us).filter(|us| *us > 0.0)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Iops => "IOPS",
            Self::P50Ns => "p50",
            Self::P99Ns => "p99",
            Self::P999Ns => "p99.9",
            Self::ServerCpuUs => "server CPU per I/O",
            Self::ClientCpuUs => "client CPU per I/O",
        }
    }

    fn text(self, value: f64) -> String {
        match self {
            Self::Iops => human_count(value),
            Self::P50Ns | Self::P99Ns | Self::P999Ns => human_ns(value),
            Self::ServerCpuUs | Self::ClientCpuUs => format!("{value:.1} us"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Better => "better",
            Self::Worse => "WORSE",
            Self::WithinNoise => "within noise",
        })
    }
}

impl fmt::Display for Comparison {
    /// A table for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, a, b) in &self.differences {
            writeln!(f, "the loads differ: {key} is {a} in A and {b} in B")?;
        }
        let of_rounds = self.rounds > 1;
        let (median, spread) = if of_rounds {
            (" (median)", "min..max of rounds")
        } else {
            ("", "")
        };
        writeln!(
            f,
            "{:<26} {:>14} {:>14} {:>7}  {spread:<18}  B is",
            "",
            format!("A{median}"),
            format!("B{median}"),
            "B/A"
        )?;
        for row in &self.rows {
            let spread = if of_rounds {
                format!("{:.3}..{:.3}", row.ratio_min, row.ratio_max)
            } else {
                String::new()
            };
            writeln!(
                f,
                "{:<26} {:>14} {:>14} {:>7.3}  {spread:<18}  {}",
                format!("{} {}", row.of, row.metric.name()),
                row.metric.text(row.a),
                row.metric.text(row.b),
                row.ratio,
                row.verdict
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuReport;

    /// A run with these IOPS of writes and this latency throughout.
    fn run(iops: f64, us: u64) -> Report {
        let text = format!(
            r#"{{"jobs":[{{"write":{{"iops":{iops},"total_ios":1000,"lat_ns":{{"percentile":
            {{"50.000000":{0},"99.000000":{0},"99.900000":{0}}}}}}}}}]}}"#,
            us * 1000
        );
        Report::from_json(&text).unwrap()
    }

    fn verdict(comparison: &Comparison, metric: Metric) -> Verdict {
        let row = comparison.rows.iter().find(|row| row.metric == metric);
        row.unwrap().verdict
    }

    #[test]
    fn more_requests_and_less_time_are_better() {
        let faster = Comparison::of_runs(&run(1000.0, 100), &run(1200.0, 80), 5.0);
        assert_eq!(verdict(&faster, Metric::Iops), Verdict::Better);
        assert_eq!(verdict(&faster, Metric::P99Ns), Verdict::Better);
        assert!(!faster.is_worse());
        let slower = Comparison::of_runs(&run(1200.0, 80), &run(1000.0, 100), 5.0);
        assert_eq!(verdict(&slower, Metric::Iops), Verdict::Worse);
        assert_eq!(verdict(&slower, Metric::P50Ns), Verdict::Worse);
        assert!(slower.is_worse());
        assert!((slower.rows[0].ratio - 1000.0 / 1200.0).abs() < 1e-9);
    }

    #[test]
    fn small_differences_are_noise() {
        let same = Comparison::of_runs(&run(1000.0, 100), &run(1040.0, 96), 5.0);
        assert!(
            same.rows
                .iter()
                .all(|row| row.verdict == Verdict::WithinNoise)
        );
        let sharp = Comparison::of_runs(&run(1000.0, 100), &run(1040.0, 96), 2.0);
        assert!(sharp.rows.iter().all(|row| row.verdict == Verdict::Better));
    }

    #[test]
    fn rounds_that_disagree_are_noise_however_far_the_medians_are() {
        let agree = [(1000.0, 1100.0), (500.0, 560.0), (800.0, 900.0)];
        let disagree = [(1000.0, 1500.0), (500.0, 900.0), (800.0, 790.0)];
        let compare = |rounds: &[(f64, f64)]| {
            let rounds: Vec<(Report, Report)> = rounds
                .iter()
                .map(|(a, b)| (run(*a, 100), run(*b, 100)))
                .collect();
            Comparison::of_rounds(&rounds, 2.0)
        };
        let (clear, unclear) = (compare(&agree), compare(&disagree));
        assert_eq!(verdict(&clear, Metric::Iops), Verdict::Better);
        // The hour made A's rounds differ twofold; the pairs do not.
        let row = &clear.rows[0];
        assert_eq!((row.a, row.b), (800.0, 900.0));
        assert!((row.ratio_min - 1.1).abs() < 1e-9 && (row.ratio_max - 1.125).abs() < 1e-9);
        assert_eq!(verdict(&unclear, Metric::Iops), Verdict::WithinNoise);
        assert_eq!(verdict(&clear, Metric::P99Ns), Verdict::WithinNoise);
    }

    #[test]
    fn what_one_of_them_lacks_is_left_out() {
        let (mut a, b) = (run(1000.0, 100), run(1000.0, 100));
        let rows = Comparison::of_runs(&a, &b, 5.0).rows;
        assert!(rows.iter().all(|row| row.of == "write") && rows.len() == 4);
        a.cpu = Some(CpuReport {
            server_us_per_io: 10.0,
            ..CpuReport::default()
        });
        assert_eq!(Comparison::of_runs(&a, &b, 5.0).rows.len(), 4);
        let mut b = a.clone();
        if let Some(cpu) = &mut b.cpu {
            cpu.server_us_per_io = 20.0;
        }
        let both = Comparison::of_runs(&a, &b, 5.0);
        assert_eq!(verdict(&both, Metric::ServerCpuUs), Verdict::Worse);
    }

    #[test]
    fn loads_that_differ_are_told() {
        let (mut a, mut b) = (run(1000.0, 100), run(1000.0, 100));
        a.options.insert("bs".into(), "4k".into());
        assert!(Comparison::of_runs(&a, &b, 5.0).differences.is_empty());
        b.options.insert("bs".into(), "16k".into());
        let text = Comparison::of_runs(&a, &b, 5.0).to_string();
        assert!(text.contains("bs is 4k in A and 16k in B"), "{text}");
        assert!(text.contains("within noise"), "{text}");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
