//! What the servers do during a run: system calls by perf, copies and device writes by their metrics.
//!
//! *Place*: beside a run, as the CPU times. *Owner*: the command. *Invariants*: only what happens while
//! requests count is counted; nothing here holds the run up. *On failure*: what cannot be counted is left
//! out of the report, with the reason; the run goes on.

use crate::args::LoadArgs;
use crate::dev;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use ogee_perf::CostReport;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// All system calls.
const ALL: &str = "raw_syscalls:sys_enter";
/// Those that a server makes, and others that it should not.
const KINDS: [&str; 12] = [
    "io_uring_enter",
    "sendto",
    "sendmsg",
    "recvfrom",
    "recvmsg",
    "read",
    "write",
    "futex",
    "membarrier",
    "epoll_wait",
    "timerfd_settime",
    "madvise",
];
/// How long perf may take to begin, and a server to tell its metrics.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(10);

/// Counts; empty unless it was asked for.
#[derive(Default)]
pub(super) struct CostMeter {
    is_on: bool,
    perf: Option<Perf>,
    metrics: Vec<SocketAddr>,
    first: Option<JoinHandle<Option<Counters>>>,
    untold: Vec<String>,
}

/// Sums over all servers, by name.
type Counters = BTreeMap<String, f64>;

/// perf, attached to the servers and told when to count.
struct Perf {
    child: Child,
    control: File,
    _folder: Folder,
}

/// A directory for as long as it lives.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it is empty.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl CostMeter {
    /// Gets ready, before anything is loaded.
    pub(super) fn new(args: &LoadArgs, servers: &[(u32, String)]) -> Self {
        if !args.cost {
            return Self::default();
        }
        let mut meter = Self {
            is_on: true,
            metrics: args
                .dev_dir
                .as_deref()
                .map(dev::metrics)
                .unwrap_or_default(),
            ..Self::default()
        };
        if meter.metrics.is_empty() {
            let reason =
                "copies and device writes: --dev-dir names the cluster whose metrics have them";
            meter.untold.push(reason.to_owned());
        }
        match Perf::attach(servers) {
            Ok(perf) => meter.perf = Some(perf),
            Err(reason) => meter.untold.push(format!("system calls: {reason}")),
        }
        meter
    }

    /// Requests count from now on.
    pub(super) fn begin(&mut self) {
        if let Some(perf) = &mut self.perf {
            perf.tell("enable\n");
        }
        let metrics = self.metrics.clone();
        if !metrics.is_empty() {
            self.first = Some(std::thread::spawn(move || counters(&metrics)));
        }
    }

    /// The last request has ended.
    pub(super) fn end(&mut self) {
        if let Some(perf) = &mut self.perf {
            perf.tell("disable\n");
        }
    }

    /// What was counted for so many requests; none if it was not asked for.
    pub(super) fn finish(mut self, requests: u64) -> Option<CostReport> {
        if !self.is_on {
            return None;
        }
        let mut report = CostReport::default();
        if let Some(perf) = self.perf.take() {
            match perf.finish() {
                Ok(counts) => {
                    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
                    let per_io = |count: &f64| count / requests.max(1) as f64;
                    report.syscalls_per_io = counts.get(ALL).map(per_io);
                    let kinds = counts.iter().filter_map(|(name, count)| {
                        let name = name.strip_prefix("syscalls:sys_enter_")?;
                        (*count > 0.0).then(|| (name.to_owned(), per_io(count)))
                    });
                    report.syscalls = kinds.collect();
                }
                Err(reason) => self.untold.push(format!("system calls: {reason}")),
            }
        }
        if !self.metrics.is_empty() {
            let first = self
                .first
                .take()
                .and_then(|thread| thread.join().ok())
                .flatten();
            match first.zip(counters(&self.metrics)) {
                Some((first, last)) => put_bytes(&mut report, &first, &last),
                None => self
                    .untold
                    .push("copies and device writes: a server has not told its metrics".into()),
            }
        }
        report.untold = self.untold;
        Some(report)
    }
}

/// Servers tell what they had done at their last heartbeat: bytes are set against the bytes of clients that
/// the same word counts, not against the requests of the run.
fn put_bytes(report: &mut CostReport, first: &Counters, last: &Counters) {
    let grown = |name: &str| Some(last.get(name)? - first.get(name)?);
    let Some(written) = grown("client_written_bytes").filter(|bytes| *bytes > 0.0) else {
        return;
    };
    report.copied_per_byte = grown("copied_bytes").map(|bytes| bytes / written);
    report.written_per_byte = grown("device_written_bytes").map(|bytes| bytes / written);
}

impl Perf {
    fn attach(servers: &[(u32, String)]) -> Result<Self, String> {
        if servers.is_empty() {
            return Err("--dev-dir or --cpu-pids name the servers".to_owned());
        }
        let io = |error: std::io::Error| error.to_string();
        let folder = std::env::temp_dir().join(format!("ogee-bench-{}", std::process::id()));
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(io)?;
        let folder = Folder(folder);
        let fifo = folder.0.join("control");
        let made = mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR);
        made.map_err(|error| error.to_string())?;
        // Both ends are ours: to open it waits for nobody, and neither does a line to perf.
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&fifo)
            .map_err(io)?;
        let kinds = KINDS
            .iter()
            .map(|kind| format!("syscalls:sys_enter_{kind}"));
        let events: Vec<String> = std::iter::once(ALL.to_owned()).chain(kinds).collect();
        let pids: Vec<String> = servers.iter().map(|(pid, _)| pid.to_string()).collect();
        let child = Command::new("perf")
            .args([
                "stat",
                "--field-separator",
                ",",
                "--event",
                &events.join(","),
            ])
            .args(["--pid", &pids.join(","), "--delay", "-1"])
            .arg("--control")
            .arg(format!("fifo:{}", fifo.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut perf = Self {
            child: child.map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "perf is not installed: apt-get install linux-perf".to_owned()
                }
                _ => error.to_string(),
            })?,
            control,
            _folder: folder,
        };
        perf.await_attached()?;
        Ok(perf)
    }

    /// perf says nothing when it is ready; it ends when it may not count.
    fn await_attached(&mut self) -> Result<(), String> {
        let until = Instant::now() + PATIENCE / 4;
        while Instant::now() < until {
            if let Ok(Some(_)) = self.child.try_wait() {
                return Err(self.last_words());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn last_words(&mut self) -> String {
        let mut said = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            // What was read until an error is what there is.
            let _ = stderr.read_to_string(&mut said);
        }
        let first = said.lines().find(|line| !line.trim().is_empty());
        format!("perf says: {}", first.unwrap_or("nothing").trim())
    }

    fn tell(&mut self, word: &str) {
        if let Err(error) = self.control.write_all(word.as_bytes()) {
            tracing::warn!(%error, "perf was not told");
        }
    }

    /// Ends it and reads what it has counted.
    fn finish(mut self) -> Result<BTreeMap<String, f64>, String> {
        let pid = i32::try_from(self.child.id()).map_err(|error| error.to_string())?;
        kill(Pid::from_raw(pid), Signal::SIGINT).map_err(|error| error.to_string())?;
        let mut said = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            stderr
                .read_to_string(&mut said)
                .map_err(|error| error.to_string())?;
        }
        let counts = parse_perf(&said);
        match counts.contains_key(ALL) {
            true => Ok(counts),
            false => Err(format!(
                "perf says: {}",
                said.lines().next().unwrap_or("nothing")
            )),
        }
    }
}

impl Drop for Perf {
    fn drop(&mut self) {
        // It has ended, or must not outlive the run.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Counts by event; what was not counted is zero if the others were.
fn parse_perf(said: &str) -> BTreeMap<String, f64> {
    let lines = said.lines().filter_map(|line| {
        let mut fields = line.split(',');
        let (count, _unit, event) = (fields.next()?, fields.next()?, fields.next()?);
        let is_event = event == ALL || event.starts_with("syscalls:");
        let count = match count {
            "<not counted>" => 0.0,
            count => count.parse().ok()?,
        };
        is_event.then(|| (event.to_owned(), count))
    });
    lines.collect()
}

/// The counters of all servers, if all tell them.
fn counters(metrics: &[SocketAddr]) -> Option<Counters> {
    let mut sums = Counters::new();
    for address in metrics {
        let text = scrape(*address).ok()?;
        for (name, value) in parse_metrics(&text) {
            *sums.entry(name.to_owned()).or_default() += value;
        }
    }
    Some(sums)
}

fn scrape(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Names and values of a chunkserver's counters, once for each shard.
fn parse_metrics(text: &str) -> impl Iterator<Item = (&str, f64)> {
    text.lines().filter_map(|line| {
        let (head, value) = line.rsplit_once(' ')?;
        let name = head.split('{').next()?.strip_prefix("ogee_chunkserver_")?;
        Some((name.strip_suffix("_total")?, value.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_everything_else_is_passed_over() {
        let said = "Events disabled\n2000,,raw_syscalls:sys_enter,5,100.00,,\n\
                    <not counted>,,syscalls:sys_enter_futex,0,100.00,,\n12,,cycles,5,1,,\n";
        let counts = parse_perf(said);
        assert_eq!(counts.get(ALL), Some(&2000.0));
        assert_eq!(counts.get("syscalls:sys_enter_futex"), Some(&0.0));
        assert_eq!(counts.len(), 2);
    }

    #[test]
    fn bytes_are_set_against_those_of_clients() {
        let text = |copied: u32, written: u32, device: u32| {
            format!(
                "# TYPE x counter\nogee_chunkserver_copied_bytes_total{{shard=\"0\"}} {copied}\n\
                 ogee_chunkserver_client_written_bytes_total{{shard=\"0\"}} {written}\n\
                 ogee_chunkserver_device_written_bytes_total{{shard=\"1\"}} {device}\n\
                 ogee_chunkserver_leaders{{shard=\"0\"}} 3\n"
            )
        };
        let of = |text: String| {
            parse_metrics(&text)
                .map(|(name, value)| (name.to_owned(), value))
                .collect()
        };
        let (first, last): (Counters, Counters) = (of(text(10, 100, 0)), of(text(210, 200, 700)));
        let mut report = CostReport::default();
        put_bytes(&mut report, &first, &last);
        assert_eq!(
            (report.copied_per_byte, report.written_per_byte),
            (Some(2.0), Some(7.0))
        );
        let mut none = CostReport::default();
        put_bytes(&mut none, &last, &last);
        assert_eq!(none, CostReport::default(), "nobody has written");
    }

    #[test]
    fn without_servers_the_reason_is_told() {
        let reason = Perf::attach(&[]).err().unwrap();
        assert!(reason.contains("--cpu-pids"), "{reason}");
    }
}
