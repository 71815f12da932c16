//! What is done beside a run: progress, CPU times, events.

use super::cost::CostMeter;
use super::events::Events;
use crate::args::LoadArgs;
use crate::dev;
use crate::error::{CliError, Exit};
use crate::settings::wrong;
use ogee_perf::{CpuError, CpuMeter, Report, Sample, SideSample, Watch, human_count, human_ns};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

/// Seconds between lines when stderr is no terminal.
const LINE_PERIOD_S: u64 = 10;

/// Shorter ones are not shown.
const SECOND_MS_MIN: u64 = 500;

/// Everything that looks at a run.
pub(super) struct Watcher {
    is_terminal: bool,
    seconds: u64,
    pids: Vec<u32>,
    dev_dir: Option<PathBuf>,
    meter: CpuMeter,
    missing: Option<CpuError>,
    cost: CostMeter,
    events: Events,
}

impl Watcher {
    /// Checks that there is something to follow, before anything is loaded.
    pub(super) fn new(args: &LoadArgs, events: Events) -> Result<Self, CliError> {
        let mut watcher = Self {
            is_terminal: std::io::stderr().is_terminal(),
            seconds: 0,
            pids: args.cpu_pids.clone(),
            dev_dir: args.dev_dir.clone(),
            meter: CpuMeter::default(),
            missing: None,
            cost: CostMeter::default(),
            events,
        };
        let servers = watcher.servers();
        CpuMeter::default()
            .begin(&servers)
            .map_err(|missing| untold(&missing))?;
        match &args.dev_dir {
            Some(dir) if servers.len() == args.cpu_pids.len() => {
                let cause = format!("no process of a cluster in {} runs", dir.display());
                let remedy = "give the --dir of ogee dev up";
                Err(wrong("cannot tell CPU times", &cause, remedy).with_exit(Exit::NotFound))
            }
            _ => {
                watcher.cost = CostMeter::new(args, &servers);
                Ok(watcher)
            }
        }
    }

    /// Adds what was seen to the report.
    pub(super) fn finish(self, report: &mut Report) -> Result<(), CliError> {
        self.events.finish()?;
        if let Some(missing) = self.missing {
            return Err(untold(&missing));
        }
        report.cpu = Some(self.meter.report(report.total_ios()));
        report.cost = self.cost.finish(report.total_ios());
        Ok(())
    }

    /// The processes to follow: those of the cluster may change.
    fn servers(&self) -> Vec<(u32, String)> {
        let named = self.pids.iter().map(|pid| (*pid, String::new()));
        let cluster = self.dev_dir.as_deref().map(dev::processes);
        named.chain(cluster.into_iter().flatten()).collect()
    }

    fn show(&self, sample: &Sample) {
        let mut text = format!("{:>4} s", self.seconds);
        for (name, side) in [("read", &sample.read), ("write", &sample.write)] {
            if side.ios > 0 {
                let _ = write!(text, "  {name} {}", side_text(side));
            }
        }
        if sample.read.ios + sample.write.ios == 0 {
            text.push_str("  nothing was answered");
        }
        if self.is_terminal {
            // One line that is written over; the last one stays. What does not fit is cut off: a
            // second row would not be written over.
            let _ = write!(std::io::stderr(), "\r\x1b[K\x1b[?7l{text}\x1b[?7h");
        } else if self.seconds.is_multiple_of(LINE_PERIOD_S) {
            eprintln!("{text}");
        }
    }
}

fn untold(missing: &CpuError) -> CliError {
    let remedy = "a pid stands in DIR/pids/NAME.pid of a dev cluster";
    wrong("cannot tell CPU times", &missing.to_string(), remedy)
}

fn side_text(side: &SideSample) -> String {
    let at = |ns: u64| human_ns(figure(ns));
    let mib = figure(side.bw_bytes) / f64::from(1 << 20);
    let mut text = format!("{} IOPS {mib:.1} MiB/s", human_count(side.iops));
    // A second of the ramp has rates only.
    if side.max_ns > 0 {
        let [half, most, nearly_all] = [side.p50_ns, side.p99_ns, side.p999_ns].map(at);
        let _ = write!(text, " p50 {half} p99 {most} p99.9 {nearly_all}");
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
const fn figure(value: u64) -> f64 {
    value as f64
}

impl Watch for Watcher {
    fn counting(&mut self) {
        let servers = self.servers();
        self.missing = self.meter.begin(&servers).err();
        self.cost.begin();
        self.events.begin();
    }

    fn second(&mut self, sample: &Sample) {
        self.meter.look(&self.servers());
        // The rest behind the last whole second is no second.
        if sample.span_ms >= SECOND_MS_MIN {
            self.seconds += 1;
            self.show(sample);
        }
    }

    fn ended(&mut self) {
        self.cost.end();
        self.meter.look(&self.servers());
        self.events.end();
        if self.is_terminal && self.seconds > 0 {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_told_with_its_percentiles() {
        let mut side = SideSample {
            ios: 12_345,
            iops: 12_345.0,
            bw_bytes: 12_345 * 4096,
            p50_ns: 120_000,
            p99_ns: 1_500_000,
            p999_ns: 9_000_000,
            max_ns: 12_000_000,
        };
        assert_eq!(
            side_text(&side),
            "12,345 IOPS 48.2 MiB/s p50 120.0 us p99 1.50 ms p99.9 9.00 ms"
        );
        side.max_ns = 0;
        assert_eq!(side_text(&side), "12,345 IOPS 48.2 MiB/s");
    }
}
