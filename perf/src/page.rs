//! A report as a page: one file, for any browser.
//!
//! *Place*: from a [`Report`] to a file. *Owner*: none. *Invariants*: nothing is loaded from
//! anywhere, no script; light and dark as the reader's system; text of the run is escaped.
//! *On failure*: none; what a report does not have is left out.

use crate::chart::{Axis, Line, Scale, chart};
use crate::cpu::CpuReport;
use crate::figure::{human_count, human_ns, precise};
use crate::report::{Report, Side};
use crate::sample::{Sample, SideSample};
use std::fmt::Write;

pub(crate) const STYLE: &str = include_str!("page.css");
const MIB: f64 = 1_048_576.0;

/// One of the kinds of request.
struct Kind<'a> {
    name: &'static str,
    /// Class of the lines of its tail.
    far: &'static str,
    side: &'a Side,
    of: fn(&Sample) -> &SideSample,
}

impl Report {
    /// It as a page.
    #[must_use]
    pub fn to_html(&self) -> String {
        let name = escaped(&self.name);
        let kinds = self.kinds();
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>{name}: ogee bench</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n\
             <h1>{name}</h1>\n<p class=\"what\">{} · {:.1} s · {}</p>\n",
            escaped(&self.describe()),
            precise(self.runtime_ms) / 1e3,
            utc(self.timestamp),
        );
        if self.unsent > 0 {
            let _ = writeln!(
                page,
                "<p class=\"warn\">Overload: {} requests were due and never sent. \
                 The latencies below are too good.</p>",
                human_count(precise(self.unsent))
            );
        }
        for kind in &kinds {
            page.push_str(&tiles(kind));
        }
        page.push_str(&latency_chart(&kinds));
        page.push_str(&self.rate_chart(&kinds));
        page.push_str(&self.tail_chart(&kinds));
        page.push_str(&summary(&kinds));
        if let Some(cpu) = &self.cpu {
            page.push_str(&cpu_table(cpu));
        }
        if let Some(cost) = &self.cost {
            let lines = cost.table();
            let lines = lines
                .lines()
                .map(|line| format!("<tr><td>{}</td></tr>\n", escaped(line)));
            let _ = write!(
                page,
                "<section><h2>What the servers did</h2><table>\n{}</table></section>\n",
                lines.collect::<String>()
            );
        }
        let _ = writeln!(
            page,
            "<footer>ogee bench {}. The longest time without an answer was {}. \
             Latency counts from when a request was due.</footer>\n</main></body></html>",
            env!("CARGO_PKG_VERSION"),
            human_ns(precise(self.longest_silence_ns))
        );
        page
    }

    fn kinds(&self) -> Vec<Kind<'_>> {
        let all = [
            Kind {
                name: "read",
                far: "read far",
                side: &self.read,
                of: |sample| &sample.read,
            },
            Kind {
                name: "write",
                far: "write far",
                side: &self.write,
                of: |sample| &sample.write,
            },
        ];
        all.into_iter()
            .filter(|kind| kind.side.total_ios > 0)
            .collect()
    }

    /// What is behind the last whole second is no rate.
    fn seconds(&self) -> impl Iterator<Item = &Sample> {
        self.series.iter().filter(|sample| sample.span_ms >= 500)
    }

    fn rate_chart(&self, kinds: &[Kind<'_>]) -> String {
        let lines: Vec<Line<'_>> = kinds
            .iter()
            .map(|kind| Line {
                name: format!("{}s per second", kind.name),
                class: kind.name,
                points: self
                    .seconds()
                    .map(|sample| (precise(sample.end_ms) / 1e3, (kind.of)(sample).iops))
                    .collect(),
            })
            .collect();
        let y = Axis {
            label: "requests per second",
            scale: Scale::Linear,
            text: human_count,
        };
        chart("Throughput over time", &TIME, &y, &lines)
    }

    fn tail_chart(&self, kinds: &[Kind<'_>]) -> String {
        let line = |kind: &Kind<'_>, name: &str, far: bool, at: fn(&SideSample) -> u64| {
            let points = self.seconds().map(|sample| {
                let ns = precise(at((kind.of)(sample)));
                // A second without an answer has no latency.
                let ns = if ns > 0.0 { ns } else { f64::NAN };
                (precise(sample.end_ms) / 1e3, ns)
            });
            (format!("{} {name}", kind.name), far, points.collect())
        };
        let lines = kinds.iter().flat_map(|kind| {
            let half = line(kind, "p50", false, |side| side.p50_ns);
            let tail = line(kind, "p99", true, |side| side.p99_ns);
            [half, tail].map(|(name, far, points)| Line {
                name,
                class: if far { kind.far } else { kind.name },
                points,
            })
        });
        let y = Axis {
            label: "latency",
            scale: Scale::Log,
            text: tick_ns,
        };
        chart("Latency over time", &TIME, &y, &lines.collect::<Vec<_>>())
    }
}

const TIME: Axis<'static> = Axis {
    label: "seconds",
    scale: Scale::Time,
    text: |seconds| format!("{}", (seconds * 10.0).round() / 10.0),
};

fn latency_chart(kinds: &[Kind<'_>]) -> String {
    let lines: Vec<Line<'_>> = kinds
        .iter()
        .map(|kind| Line {
            name: format!("{}s", kind.name),
            class: kind.name,
            points: kind
                .side
                .latency_curve
                .iter()
                // Nothing says what would be past the last request: half of it is as far as it goes.
                .map(|(ns, share)| {
                    let last = 1.0 - 0.5 / precise(kind.side.total_ios);
                    (precise(*ns), share.min(last))
                })
                .collect(),
        })
        .collect();
    let x = Axis {
        label: "latency",
        scale: Scale::Log,
        text: tick_ns,
    };
    let y = Axis {
        label: "share of requests that took no longer",
        scale: Scale::Nines,
        text: |share| format!("{} %", (share * 1e7).round() / 1e5),
    };
    chart("Latency", &x, &y, &lines)
}

fn tiles(kind: &Kind<'_>) -> String {
    let latency = kind.side.latency();
    let at = |percent| human_ns(precise(latency.percentile.at(percent).unwrap_or(0)));
    let all = [
        (
            format!("{}s per second", kind.name),
            human_count(kind.side.iops),
        ),
        (
            "MiB/s".into(),
            format!("{:.1}", precise(kind.side.bw_bytes) / MIB),
        ),
        ("p50".into(), at(50.0)),
        ("p99".into(), at(99.0)),
        ("p99.9".into(), at(99.9)),
    ];
    let mut text = "<div class=\"tiles\">".to_owned();
    for (index, (label, value)) in all.iter().enumerate() {
        let class = if index == 0 { kind.name } else { "" };
        let _ = write!(
            text,
            "<div class=\"tile {class}\"><b>{value}</b><span>{label}</span></div>"
        );
    }
    text.push_str("</div>\n");
    text
}

fn summary(kinds: &[Kind<'_>]) -> String {
    let mut text = "<section><h2>Summary</h2><table><tr><th></th><th>requests</th><th>IOPS</th>\
        <th>slowest s</th><th>fastest s</th><th>mean</th><th>p50</th><th>p90</th><th>p99</th>\
        <th>p99.9</th><th>p99.99</th><th>max</th></tr>\n"
        .to_owned();
    for kind in kinds {
        let (side, latency) = (kind.side, kind.side.latency());
        let at = |percent| human_ns(precise(latency.percentile.at(percent).unwrap_or(0)));
        let counts = [
            precise(side.total_ios),
            side.iops,
            side.iops_min,
            side.iops_max,
        ];
        let times = [50.0, 90.0, 99.0, 99.9, 99.99].map(at);
        let _ = write!(text, "<tr><td>{}</td>", kind.name);
        let cells = counts.map(human_count).into_iter();
        let cells = cells.chain([human_ns(latency.mean)]).chain(times);
        for cell in cells.chain([human_ns(precise(latency.max))]) {
            let _ = write!(text, "<td>{cell}</td>");
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</table></section>\n");
    text
}

fn cpu_table(cpu: &CpuReport) -> String {
    let mut text = "<section><h2>CPU</h2><table><tr><th>process</th><th>CPU seconds</th>\
        <th>us per request</th></tr>\n"
        .to_owned();
    let mut row = |name: &str, seconds: f64, us: Option<f64>| {
        let us = us.map_or_else(String::new, |us| format!("{us:.1}"));
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td>{seconds:.2}</td><td>{us}</td></tr>",
            escaped(name)
        );
    };
    for process in &cpu.processes {
        let name = format!("{} ({})", process.name, process.pid);
        row(&name, process.seconds, None);
    }
    if !cpu.processes.is_empty() {
        row(
            "all servers",
            cpu.server_seconds,
            Some(cpu.server_us_per_io),
        );
    }
    row("client", cpu.client_seconds, Some(cpu.client_us_per_io));
    text.push_str("</table></section>\n");
    text
}

/// A round time.
pub(crate) fn tick_ns(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    format!("{} {unit}", (value * 100.0).round() / 100.0)
}

/// Seconds since 1970 as a date and time of day.
pub(crate) fn utc(timestamp: u64) -> String {
    let (days, seconds) = (timestamp / 86_400, timestamp % 86_400);
    let is_leap = |year: u64| {
        (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
    };
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for len in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if left < len {
            break;
        }
        left -= len;
        month += 1;
    }
    let (hour, minute) = (seconds / 3600, seconds / 60 % 60);
    format!(
        "{year}-{month:02}-{:02} {hour:02}:{minute:02} UTC",
        left + 1
    )
}

pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stands_alone_and_shows_what_was_measured() {
        let mut report = crate::report::tests::report();
        report.name = "<b>\"x\"&y".into();
        report.cpu = Some(CpuReport {
            client_seconds: 1.5,
            ..CpuReport::default()
        });
        let page = report.to_html();
        for text in [
            "Latency over time",
            "Throughput over time",
            "Summary",
            "500",
            "1.50",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(page.contains("&lt;b&gt;&quot;x&quot;&amp;y") && !page.contains("<b>\"x\""));
        for text in [
            "http", "<script", "url(", "@import", "NaN", "inf", "Overload",
        ] {
            assert!(!page.contains(text), "{text}");
        }
        assert!(!page.contains("reads per second"), "nothing was read");
        for tag in ["svg", "figure", "table", "section", "div", "tr", "td", "g"] {
            let opened = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        report.unsent = 1_000;
        assert!(report.to_html().contains("1,000 requests were due"));
    }

    #[test]
    fn an_empty_report_is_a_page_too() {
        assert!(Report::default().to_html().contains("</html>"));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(utc(1_798_761_599), "2026-12-31 23:59 UTC");
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(
            [200.0, 1e3, 5e5, 2e7, 1e10].map(tick_ns),
            ["200 ns", "1 µs", "500 µs", "20 ms", "10 s"]
        );
    }
}
