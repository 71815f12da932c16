//! The command line of `ogee bench`.

use super::size;
use clap::{Args, ValueEnum};
use ogee_perf::{Distribution, Process, Rw, Sizes};
use ogee_proto::unit::ByteLen;
use std::num::NonZeroU32;
use std::path::PathBuf;

/// What is behind the names, for the help.
const TARGETS: &str = "\
Targets:
  NAME, volume:NAME                  a volume, by the client library
  raw:PATH                           a file or a block device: io_uring, O_DIRECT (writes: --yes)
  nbd+unix:///EXPORT?socket=PATH     an NBD export, by a native client
  nbd://IP:PORT/EXPORT               the same over TCP

Examples:
  ogee bench vol1 --rw randrw --rwmixread 70 --bs 16k --iodepth 32
  ogee bench vol1 --scenario database -o json > a.json
  ogee bench vol1 --arrival-rate 2000 --rate-process poisson --iodepth 256
  ogee bench vol{1..16} --scenario many-volumes --dev-dir DIR";

#[derive(Args, Debug)]
#[command(
    after_help = TARGETS
)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Args, Debug)]
pub(crate) struct LoadArgs {
    /// What to load, each with all jobs: see below. What it holds is overwritten by writes.
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// A named scenario (ogee bench scenarios) or a TOML file; flags win over it.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) scenario: Option<String>,
    /// read, write, rw, randread, randwrite or randrw [default: randread].
    #[arg(long)]
    pub(crate) rw: Option<Rw>,
    /// Share of reads with rw and randrw, in percent [default: 70].
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) rwmixread: Option<u8>,
    /// Block size [default: 4k].
    #[arg(long, value_parser = size, conflicts_with = "bssplit")]
    pub(crate) bs: Option<ByteLen>,
    /// Block sizes with shares, as fio's: 4k/70:64k/30, writes behind a comma.
    #[arg(long, value_name = "SIZE/PERCENT:…")]
    pub(crate) bssplit: Option<Sizes>,
    /// Requests in flight [default: 1].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) iodepth: Option<u32>,
    /// Jobs of that many requests each [default: 1].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) numjobs: Option<u32>,
    /// Seconds to run [default: 10].
    #[arg(long, conflicts_with = "io_size")]
    pub(crate) runtime: Option<u64>,
    /// Bytes to read and write in all, instead of a time.
    #[arg(long, value_parser = size)]
    pub(crate) io_size: Option<ByteLen>,
    /// Seconds at the front that do not count.
    #[arg(long)]
    pub(crate) ramp_time: Option<u64>,
    /// Requests per second at most, of all jobs together.
    #[arg(long)]
    pub(crate) rate_iops: Option<NonZeroU32>,
    /// Bytes per second at most, of all jobs together.
    #[arg(long, value_parser = size)]
    pub(crate) rate: Option<ByteLen>,
    /// Open loop: so many requests per second become due, answered or not, and their latency counts
    /// from when they were due. The depth only bounds how many are under way.
    #[arg(long, conflicts_with_all = ["rate_iops", "rate"])]
    pub(crate) arrival_rate: Option<NonZeroU32>,
    /// How arrivals are spaced: linear or poisson [default: linear].
    #[arg(long)]
    pub(crate) rate_process: Option<Process>,
    /// Which places random requests go to: uniform or zipf:THETA [default: uniform].
    #[arg(long)]
    pub(crate) random_distribution: Option<Distribution>,
    /// Where the part of the target to use starts [default: 0].
    #[arg(long, value_parser = size)]
    pub(crate) offset: Option<ByteLen>,
    /// How long that part is; up to the end if not given.
    #[arg(long, value_parser = size)]
    pub(crate) size: Option<ByteLen>,
    /// Seed of the addresses [default: 1].
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Check every read against what this run wrote, and read all of it back at the end.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Durable writes on raw: and nbd targets (a volume's always are).
    #[arg(long, default_value = "none")]
    pub(crate) sync: SyncMode,
    /// Directory of the dev cluster: its processes' CPU time is reported, and a scenario may kill and
    /// start them.
    #[arg(long, value_name = "DIR")]
    pub(crate) dev_dir: Option<PathBuf>,
    /// Processes whose CPU time is reported.
    #[arg(long, value_delimiter = ',', value_name = "PID")]
    pub(crate) cpu_pids: Vec<u32>,
    /// Write the report as JSON here as well.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Overwrite a raw: target without asking.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// When writes are durable. The names are fio's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum SyncMode {
    /// When the target thinks so.
    None,
    /// When they return.
    Dsync,
}
