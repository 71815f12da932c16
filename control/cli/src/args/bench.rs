//! The command line of `ogee bench`.

use super::{CarrierArgs, POLL_US_MAX, size};
use clap::{Args, Subcommand, ValueEnum};
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
  vhost-user:SOCKET                  the disk of a virtual machine, by a native driver: a queue for each of --numjobs

Examples:
  ogee bench vol1 --rw randrw --rwmixread 70 --bs 16k --iodepth 32 --html run.html
  ogee bench vol1 --scenario database -o json > a.json
  ogee bench vol1 --arrival-rate 2000 --rate-process poisson --iodepth 256
  ogee bench vol{1..16} --scenario many-volumes --dev-dir DIR
  ogee bench compare a.json b.json
  ogee bench ab --a-target vol1 --b-target raw:/tmp/file --rounds 5 -- --rw randread --iodepth 32";

#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = TARGETS
)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) what: Option<BenchCommand>,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Subcommand, Debug)]
pub(crate) enum BenchCommand {
    /// Compare two runs: ratios of IOPS, p50 and p99, and a verdict on each.
    Compare(CompareArgs),
    /// Run two targets or two binaries in turn and compare them round by round.
    Ab(Box<AbArgs>),
    /// Make a page or CSV of a run's JSON.
    Report(ReportArgs),
    /// Show how figures change with what was varied: runs in DIR/WHAT/VALUE.json, or several of each as
    /// VALUE-ROUND.json (perf/scale.sh makes them).
    Curves(CurvesArgs),
    /// List the named scenarios.
    Scenarios,
}

#[derive(Args, Debug)]
pub(crate) struct LoadArgs {
    /// What to load, each with all jobs: see below. What it holds is overwritten by writes.
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// A named scenario (ogee bench scenarios) or a TOML file; flags win over it.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) scenario: Option<String>,
    /// How long the client looks for answers before it sleeps, where that has paid so far, in microseconds; see `poll_us` of
    /// chunkservers.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=POLL_US_MAX))]
    pub(crate) poll_us: u64,
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
    /// Count what the servers do for a request: system calls (takes perf, and the right to use it), bytes
    /// copied and written to devices (takes --dev-dir).
    #[arg(long)]
    pub(crate) cost: bool,
    /// Write the report as JSON here as well.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the seconds of the run as CSV here.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Write the report as a page here: one file, for any browser.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Overwrite a raw: target without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) carrier: CarrierArgs,
}

/// When writes are durable. The names are fio's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum SyncMode {
    /// When the target thinks so.
    None,
    /// When they return.
    Dsync,
}

#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// JSON of the run to compare with, of ogee bench or fio.
    pub(crate) a: PathBuf,
    /// JSON of the run that is judged.
    pub(crate) b: PathBuf,
    /// Differences up to so many percent are noise.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) noise: f64,
    /// Exit code 1 if anything is worse.
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Args, Debug)]
pub(crate) struct AbArgs {
    /// Target of A, as for ogee bench.
    #[arg(long, value_name = "TARGET")]
    pub(crate) a_target: String,
    /// Target of B; that of A if not given.
    #[arg(long, value_name = "TARGET")]
    pub(crate) b_target: Option<String>,
    /// Binary that loads A; this one if not given.
    #[arg(long, value_name = "PATH")]
    pub(crate) a_binary: Option<PathBuf>,
    /// Binary that loads B; this one if not given.
    #[arg(long, value_name = "PATH")]
    pub(crate) b_binary: Option<PathBuf>,
    /// Metadata servers of A, instead of --mds.
    #[arg(long, value_name = "ADDR")]
    pub(crate) a_mds: Option<String>,
    /// Metadata servers of B, instead of --mds.
    #[arg(long, value_name = "ADDR")]
    pub(crate) b_mds: Option<String>,
    /// Shell command before each turn of A, such as starting a cluster of another build.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) a_setup: Option<String>,
    /// Shell command before each turn of B.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) b_setup: Option<String>,
    /// A flag for the turns of A only, such as --a-flag=--sync=dsync; may be repeated.
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    pub(crate) a_flag: Vec<String>,
    /// A flag for the turns of B only.
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    pub(crate) b_flag: Vec<String>,
    /// Turns of each.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(3..=1000))]
    pub(crate) rounds: u32,
    /// Differences up to so many percent are noise, even if every round agrees.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) noise: f64,
    /// Keep the JSON of every turn in this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// Exit code 1 if anything is worse.
    #[arg(long)]
    pub(crate) check: bool,
    /// The load: flags of ogee bench, the same for both.
    #[arg(last = true, value_name = "FLAGS")]
    pub(crate) flags: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct CurvesArgs {
    /// Directory of the runs.
    pub(crate) dir: PathBuf,
    /// Where the page goes.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// JSON of ogee bench.
    pub(crate) file: PathBuf,
    /// Where the page goes.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Where the CSV goes.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
}
