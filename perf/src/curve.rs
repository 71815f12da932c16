//! How figures change with one thing that is varied: the scale model as tables and a page.
//!
//! *Place*: from reports of many runs to text. *Owner*: none; plain values. *Invariants*: a point is the
//! median of its runs, which are of one load. *On failure*: a run without requests is no point; a curve
//! without points is left out.

use crate::chart::{Axis, Line, Scale, chart};
use crate::compare::median;
use crate::figure::{human_count, human_ns, precise};
use crate::page::{STYLE, escaped, tick_ns, utc};
use crate::report::{Report, Side};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// Runs of one load, while one thing was varied.
#[derive(Clone, PartialEq, Debug)]
pub struct Curve {
    /// What was varied: groups, volumes, shards, depth.
    pub axis: String,
    points: Vec<Point>,
    /// The load, and when the last run ended.
    load: String,
    ended: u64,
}

/// The medians of the runs at one value.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Point {
    value: u32,
    runs: usize,
    iops: f64,
    p50_ns: f64,
    p99_ns: f64,
    /// Of servers and client; none if the servers' was not asked for.
    cpu_us: Option<f64>,
}

impl Curve {
    /// The curve of these runs, each with the value it was made at.
    #[must_use]
    pub fn new(axis: &str, runs: &[(u32, Report)]) -> Self {
        let mut values: BTreeMap<u32, Vec<&Report>> = BTreeMap::new();
        for (value, report) in runs {
            values.entry(*value).or_default().push(report);
        }
        let points = values.into_iter();
        Self {
            axis: axis.to_owned(),
            points: points
                .filter_map(|(value, runs)| Point::new(value, &runs))
                .collect(),
            load: runs
                .first()
                .map(|(_, report)| report.describe())
                .unwrap_or_default(),
            ended: runs
                .iter()
                .map(|(_, report)| report.timestamp)
                .max()
                .unwrap_or(0),
        }
    }

    /// Whether there is nothing to show.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    fn charts(&self) -> String {
        let name = escaped(&self.axis);
        let x = Axis {
            label: &name,
            scale: Scale::Log,
            text: human_count,
        };
        let line = |name: &str, class, value: fn(&Point) -> f64| Line {
            name: name.to_owned(),
            class,
            points: self
                .points
                .iter()
                .map(|point| (point.value.into(), value(point)))
                .collect(),
        };
        let title = |what: &str| format!("{what} with {name}");
        let rate = Axis {
            label: "requests per second",
            scale: Scale::Linear,
            text: human_count,
        };
        let mut text = chart(
            &title("Throughput"),
            &x,
            &rate,
            &[line("requests", "write", |p| p.iops)],
        );
        let latency = Axis {
            label: "latency",
            scale: Scale::Log,
            text: tick_ns,
        };
        let lines = [
            line("p50", "write", |point| point.p50_ns),
            line("p99", "write far", |point| point.p99_ns),
        ];
        text.push_str(&chart(&title("Latency"), &x, &latency, &lines));
        if self.points.iter().any(|point| point.cpu_us.is_some()) {
            let cpu = Axis {
                label: "us of CPU per request, servers and client",
                scale: Scale::Linear,
                text: |us| format!("{}", (us * 10.0).round() / 10.0),
            };
            let lines = [line("CPU", "read", |point| {
                point.cpu_us.unwrap_or(f64::NAN)
            })];
            text.push_str(&chart(&title("CPU per request"), &x, &cpu, &lines));
        }
        text
    }

    fn table(&self) -> String {
        let mut text = format!(
            "<section><table><tr><th>{}</th><th>runs</th><th>IOPS</th><th>of the best</th><th>p50</th>\
             <th>p99</th><th>CPU, us per request</th></tr>\n",
            escaped(&self.axis)
        );
        for point in &self.points {
            let cells = self.cells(point).map(|cell| format!("<td>{cell}</td>"));
            let _ = writeln!(text, "<tr>{}</tr>", cells.concat());
        }
        text.push_str("</table></section>\n");
        text
    }

    fn cells(&self, point: &Point) -> [String; 7] {
        let best = self
            .points
            .iter()
            .map(|point| point.iops)
            .fold(0.0, f64::max);
        [
            point.value.to_string(),
            point.runs.to_string(),
            human_count(point.iops),
            format!("{:.2}", point.iops / best),
            human_ns(point.p50_ns),
            human_ns(point.p99_ns),
            point
                .cpu_us
                .map_or_else(|| "-".to_owned(), |us| format!("{us:.1}")),
        ]
    }
}

impl Point {
    fn new(value: u32, runs: &[&Report]) -> Option<Self> {
        let of_all = |figure: fn(&Report) -> Option<f64>| {
            median(runs.iter().filter_map(|report| figure(report)).collect())
        };
        Some(Self {
            value,
            runs: runs.len(),
            iops: of_all(|report| Some(report.read.iops + report.write.iops))
                .filter(|iops| *iops > 0.0)?,
            p50_ns: of_all(|report| at(report, 50.0))?,
            p99_ns: of_all(|report| at(report, 99.0))?,
            cpu_us: of_all(|report| {
                let cpu = report
                    .cpu
                    .as_ref()
                    .filter(|cpu| !cpu.processes.is_empty())?;
                Some(cpu.server_us_per_io + cpu.client_us_per_io)
            }),
        })
    }
}

/// Of the side with more requests: a point has one latency.
fn at(report: &Report, percent: f64) -> Option<f64> {
    let side: &Side = match report.read.total_ios > report.write.total_ios {
        true => &report.read,
        false => &report.write,
    };
    side.latency().percentile.at(percent).map(precise)
}

/// All curves as one page.
#[must_use]
pub fn curves_html(curves: &[Curve]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Scale: ogee bench</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n<h1>Scale</h1>\n"
    );
    for curve in curves.iter().filter(|curve| !curve.is_empty()) {
        let _ = writeln!(
            page,
            "<p class=\"what\"><b>{}</b>: {} · {}</p>",
            escaped(&curve.axis),
            escaped(&curve.load),
            utc(curve.ended)
        );
        page.push_str(&curve.charts());
        page.push_str(&curve.table());
    }
    let _ = writeln!(
        page,
        "<footer>ogee bench {}. Each point is the median of its runs.</footer>\n</main></body></html>",
        env!("CARGO_PKG_VERSION")
    );
    page
}

impl fmt::Display for Curve {
    /// A table for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            &*self.axis,
            "runs",
            "IOPS",
            "of best",
            "p50",
            "p99",
            "CPU us/IO",
        ];
        let rows = self.points.iter().map(|point| self.cells(point));
        for row in std::iter::once(head.map(str::to_owned)).chain(rows) {
            let cells = row.map(|cell| format!("{cell:>11}"));
            writeln!(f, "{}", cells.concat())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{CpuReport, ProcessCpu};

    fn run(iops: f64) -> Report {
        let mut report = crate::report::tests::report();
        report.write.iops = iops;
        report.read = Side::default();
        report
    }

    #[test]
    fn a_point_is_the_median_of_its_runs() {
        let mut with_cpu = run(90.0);
        with_cpu.cpu = Some(CpuReport {
            server_us_per_io: 30.0,
            client_us_per_io: 4.0,
            processes: vec![ProcessCpu::default()],
            ..CpuReport::default()
        });
        let runs = [
            (16, run(300.0)),
            (256, with_cpu),
            (16, run(100.0)),
            (16, run(120.0)),
        ];
        let curve = Curve::new("groups", &runs);
        let values: Vec<(u32, usize, f64)> = curve
            .points
            .iter()
            .map(|point| (point.value, point.runs, point.iops))
            .collect();
        assert_eq!(values, [(16, 3, 120.0), (256, 1, 90.0)]);
        let text = curve.to_string();
        assert!(text.contains("0.75") && text.contains("34.0"), "{text}");
    }

    #[test]
    fn the_page_shows_each_curve_and_stands_alone() {
        let depth = Curve::new("<depth>", &[(1, run(10.0)), (128, run(500.0))]);
        let none = Curve::new("shards", &[(1, Report::default())]);
        assert!(none.is_empty());
        let page = curves_html(&[depth, none]);
        for text in ["Throughput with", "Latency with", "&lt;depth&gt;", "500"] {
            assert!(page.contains(text), "{text}");
        }
        for text in [
            "http",
            "<script",
            "NaN",
            "inf",
            "<depth>",
            "shards",
            "CPU per request",
        ] {
            assert!(!page.contains(text), "{text}");
        }
    }
}
