//! CPU time that processes take for the requests of a run.
//!
//! *Place*: beside a run: told when requests begin to count, every second, and at the end.
//! *Owner*: the command; it reads `/proc`, a few small files a second.
//! *Invariants*: only time between the two ends counts; a process that ends keeps what it was last
//! seen with, one that starts meanwhile counts from its start. A pid that another process has taken
//! over is another process.
//! *On failure*: [`CpuError`] when a process that was named does not exist at the beginning; later
//! that is an end as any other.

use crate::figure::precise;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

/// Ticks of the kernel's process times: `USER_HZ` is 100 on every architecture of ours.
const TICKS_PER_SECOND: f64 = 100.0;

/// Why CPU time cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no process {0} to take the CPU time of: give pids that run, as in DIR/pids/*.pid")]
pub struct CpuError(u32);

/// What the processes of a run used.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuReport {
    /// CPU seconds of all servers.
    pub server_seconds: f64,
    /// Microseconds of all servers for each request.
    pub server_us_per_io: f64,
    /// CPU seconds of this process, which is the client.
    pub client_seconds: f64,
    /// Microseconds of this process for each request.
    pub client_us_per_io: f64,
    /// Context switches of all servers for each request.
    pub server_switches_per_io: f64,
    /// Each server.
    pub processes: Vec<ProcessCpu>,
}

/// A server's share.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessCpu {
    /// Its pid.
    pub pid: u32,
    /// Its name: that of a cluster's directory, or the kernel's.
    pub name: String,
    /// CPU seconds.
    pub seconds: f64,
}

/// Follows processes.
#[derive(Debug, Default)]
pub struct CpuMeter {
    followed: BTreeMap<Identity, Followed>,
    client: Followed,
    is_counting: bool,
}

/// A pid and when its process started.
type Identity = (u32, u64);

#[derive(Debug, Default, Clone)]
struct Followed {
    name: String,
    first: Usage,
    last: Usage,
}

/// What a process has used since its start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Usage {
    ticks: u64,
    switches: u64,
}

impl CpuMeter {
    /// Requests count from now on. `servers` are pids and names.
    ///
    /// # Errors
    /// If one of them does not run.
    pub fn begin(&mut self, servers: &[(u32, String)]) -> Result<(), CpuError> {
        self.client.first = own().unwrap_or_default();
        for (pid, name) in servers {
            let (identity, usage) = look(*pid).ok_or(CpuError(*pid))?;
            let followed = Followed {
                name: name.clone(),
                first: usage,
                last: usage,
            };
            self.followed.insert(identity, followed);
        }
        self.is_counting = true;
        Ok(())
    }

    /// Looks again; `servers` may have changed.
    pub fn look(&mut self, servers: &[(u32, String)]) {
        if !self.is_counting {
            return;
        }
        self.client.last = own().unwrap_or(self.client.last);
        for (pid, name) in servers {
            let Some((identity, usage)) = look(*pid) else {
                continue;
            };
            let followed = self.followed.entry(identity).or_insert_with(|| Followed {
                name: name.clone(),
                ..Followed::default()
            });
            followed.last = usage;
        }
    }

    /// What was used for `requests`.
    #[must_use]
    pub fn report(&self, requests: u64) -> CpuReport {
        let per_io = |amount: f64| match requests {
            0 => 0.0,
            requests => amount / precise(requests),
        };
        let processes = self.followed.iter().map(|((pid, _), followed)| ProcessCpu {
            pid: *pid,
            name: followed.name.clone(),
            seconds: followed.seconds(),
        });
        let processes: Vec<ProcessCpu> = processes.collect();
        let server_seconds = processes.iter().map(|process| process.seconds).sum();
        let switches: u64 = self.followed.values().map(Followed::switches).sum();
        let client_seconds = self.client.seconds();
        CpuReport {
            server_seconds,
            server_us_per_io: per_io(server_seconds * 1e6),
            client_seconds,
            client_us_per_io: per_io(client_seconds * 1e6),
            server_switches_per_io: per_io(precise(switches)),
            processes,
        }
    }
}

impl Followed {
    fn seconds(&self) -> f64 {
        precise(self.last.ticks.saturating_sub(self.first.ticks)) / TICKS_PER_SECOND
    }

    const fn switches(&self) -> u64 {
        self.last.switches.saturating_sub(self.first.switches)
    }
}

impl CpuReport {
    /// Lines for people.
    #[must_use]
    pub fn table(&self, requests: u64) -> String {
        let mut text = String::new();
        if !self.processes.is_empty() {
            let _ = writeln!(
                text,
                "CPU    servers {:.1} us and {:.2} switches per I/O ({:.2} s for {requests})",
                self.server_us_per_io, self.server_switches_per_io, self.server_seconds
            );
        }
        let _ = writeln!(
            text,
            "CPU    client  {:.1} us per I/O ({:.2} s)",
            self.client_us_per_io, self.client_seconds
        );
        text
    }
}

fn own() -> Option<Usage> {
    look(std::process::id()).map(|(_, usage)| usage)
}

fn look(pid: u32) -> Option<(Identity, Usage)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (ticks, started) = parse_stat(&stat)?;
    Some((
        (pid, started),
        Usage {
            ticks,
            switches: switches(pid),
        },
    ))
}

/// CPU ticks and starting time. The name before them may hold anything, but ends with the last `)`.
fn parse_stat(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let started = fields.nth(6)?.parse().ok()?;
    Some((user + system, started))
}

/// Of all its threads; one that ends meanwhile is not missed.
fn switches(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter();
    let statuses = tasks.flatten().flatten().filter_map(|task| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        Some(parse_switches(&status))
    });
    statuses.sum()
}

fn parse_switches(status: &str) -> u64 {
    let lines = status.lines().filter_map(|line| {
        let (key, count) = line.split_once(':')?;
        let count: Option<u64> = count.trim().parse().ok();
        count.filter(|_| key.ends_with("voluntary_ctxt_switches"))
    });
    lines.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 9 9 20 0 12 0 98765 1 2";
        assert_eq!(parse_stat(stat), Some((200, 98765)));
        assert_eq!(parse_stat("7 (short) S 1"), None);
    }

    #[test]
    fn both_kinds_of_switches_count() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t30\n";
        assert_eq!(parse_switches(status), 42);
    }

    #[test]
    fn work_between_the_ends_is_counted_and_a_missing_process_named() {
        let me = [(std::process::id(), "me".to_owned())];
        let mut meter = CpuMeter::default();
        meter.begin(&me).unwrap();
        // On a busy machine a tick of CPU time may take long to come by.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let mut sum = 0_u64;
        while meter.report(1).server_seconds < 0.03 && std::time::Instant::now() < until {
            sum = (0..1 << 20).fold(sum, |sum, each| sum.wrapping_mul(31).wrapping_add(each));
            std::hint::black_box(sum);
            meter.look(&me);
        }
        let report = meter.report(1000);
        assert!(
            report.server_seconds > 0.0 && report.client_seconds > 0.0,
            "{report:?}"
        );
        assert!((report.server_us_per_io - report.server_seconds * 1e3).abs() < 1e-6);
        assert_eq!(report.processes[0].name, "me");
        let gone = CpuMeter::default().begin(&[(1 << 30, String::new())]);
        assert!(gone.unwrap_err().to_string().contains("1073741824"));
    }

    #[test]
    fn one_that_ended_keeps_its_time_and_one_that_started_counts_whole() {
        let usage = |ticks| Usage { ticks, switches: 0 };
        let mut meter = CpuMeter::default();
        let old = Followed {
            name: "cs1".into(),
            first: usage(100),
            last: usage(250),
        };
        let new = Followed {
            name: "cs1".into(),
            first: Usage::default(),
            last: usage(50),
        };
        meter.followed.extend([((1, 5), old), ((1, 9), new)]);
        assert!((meter.report(0).server_seconds - 2.0).abs() < 1e-9);
    }
}
