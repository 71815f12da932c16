//! What the servers did for the requests of a run, beside CPU time: system calls, copies, device writes.
//!
//! *Place*: in a report; the command counts. *Owner*: none; plain values. *Invariants*: what could not be
//! counted is not zero but absent, with the reason. *On failure*: none.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What the servers did for the requests of a run.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CostReport {
    /// System calls of all servers for each request.
    pub syscalls_per_io: Option<f64>,
    /// The same of each kind that was looked at; those that were never made are left out.
    pub syscalls: BTreeMap<String, f64>,
    /// Bytes copied in memory by all servers for each byte that clients wrote.
    pub copied_per_byte: Option<f64>,
    /// Bytes written to devices by all servers for each byte that clients wrote.
    pub written_per_byte: Option<f64>,
    /// What could not be counted, and why.
    pub untold: Vec<String>,
}

impl CostReport {
    /// Lines for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        if let Some(all) = self.syscalls_per_io {
            let mut kinds: Vec<(&String, &f64)> = self.syscalls.iter().collect();
            kinds.sort_by(|a, b| b.1.total_cmp(a.1));
            let kinds: Vec<String> = kinds
                .into_iter()
                .map(|(name, count)| format!("{name} {count:.2}"))
                .collect();
            let _ = writeln!(
                text,
                "calls  servers {all:.2} per I/O: {}",
                kinds.join(", ")
            );
        }
        if let (Some(copied), Some(written)) = (self.copied_per_byte, self.written_per_byte) {
            let _ = writeln!(
                text,
                "bytes  servers copied {copied:.2} and wrote {written:.2} for each one that was written"
            );
        }
        for reason in &self.untold {
            let _ = writeln!(text, "not counted: {reason}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_call_comes_first_and_what_is_not_known_is_said() {
        let cost = CostReport {
            syscalls_per_io: Some(5.25),
            syscalls: [("futex".into(), 0.5), ("io_uring_enter".into(), 4.75)].into(),
            untold: vec!["copies: no cluster".into()],
            ..CostReport::default()
        };
        let text = cost.table();
        assert!(
            text.contains("5.25 per I/O: io_uring_enter 4.75, futex 0.50"),
            "{text}"
        );
        assert!(text.contains("not counted: copies: no cluster") && !text.contains("bytes"));
    }
}
