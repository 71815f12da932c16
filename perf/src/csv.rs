//! The seconds of a run as CSV.
//!
//! *Place*: from a [`Report`] to a file. *Owner*: none. *Invariants*: one line per second with a
//! header, numbers only, times in nanoseconds. *On failure*: none.

use crate::report::Report;
use std::fmt::Write;

/// In the order of the fields.
const HEADER: &str = "end_ms,span_ms,\
read_ios,read_iops,read_bw_bytes,read_p50_ns,read_p99_ns,read_p999_ns,read_max_ns,\
write_ios,write_iops,write_bw_bytes,write_p50_ns,write_p99_ns,write_p999_ns,write_max_ns\n";

impl Report {
    /// Its seconds as CSV.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut text = HEADER.to_owned();
        for sample in &self.series {
            let _ = write!(text, "{},{}", sample.end_ms, sample.span_ms);
            for side in [&sample.read, &sample.write] {
                let _ = write!(
                    text,
                    ",{},{:.1},{},{},{},{},{}",
                    side.ios,
                    side.iops,
                    side.bw_bytes,
                    side.p50_ns,
                    side.p99_ns,
                    side.p999_ns,
                    side.max_ns
                );
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_second_is_a_line_with_a_number_for_every_name() {
        let csv = crate::report::tests::report().to_csv();
        let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() == 16));
        let at = |name: &str, line: usize| -> f64 {
            let column = lines[0].iter().position(|head| *head == name).unwrap();
            lines[line][column].parse().unwrap()
        };
        assert!((at("write_iops", 1) - 500.0).abs() < 0.1);
        assert!((at("end_ms", 2) - 2000.0).abs() < 0.1);
        assert!(at("write_p50_ns", 2) > at("write_p50_ns", 1));
        assert!(at("read_ios", 1).abs() < 0.1);
    }
}
