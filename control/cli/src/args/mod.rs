//! The command line.

#[cfg(test)]
mod advice_tests;
mod bench;
mod copyset;
mod ops;
mod volume;

pub(crate) use bench::{
    AbArgs, BenchArgs, BenchCommand, CompareArgs, CurvesArgs, LoadArgs, ReportArgs, SyncMode,
};
pub(crate) use copyset::CopysetCommand;
pub(crate) use ops::{BackupArgs, EventsArgs, MdsArgs, MdsCommand, RestoreArgs, StatusArgs};
pub(crate) use volume::{
    Bound, DirCommand, QuotaCommand, QuotaOfArgs, VolumeCommand, VolumeCreateArgs, VolumeLsArgs,
    VolumeSetArgs,
};

use crate::doctor::CheckName;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ogee_proto::media::{MediaClass, NoClass};
use ogee_proto::size::parse_size;
use ogee_proto::unit::ByteLen;
use ogee_transport::Transport;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

/// Ogee: replicated block storage.
#[derive(Parser, Debug)]
#[command(
    name = "ogee",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// gRPC addresses of the metadata servers, host:port, separated by commas.
    #[arg(
        long,
        global = true,
        env = "OGEE_MDS",
        value_delimiter = ',',
        value_name = "ADDR"
    )]
    pub(crate) mds: Vec<String>,
    /// How to print results.
    #[arg(short = 'o', long = "output", global = true, default_value = "table")]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to print results.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs; field names are stable.
    Json,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a cluster on this machine, for development and first steps.
    Dev {
        #[command(subcommand)]
        what: DevCommand,
    },
    /// Create, list, show, resize, rename, locate and remove volumes; change their owners and labels.
    Volume {
        #[command(subcommand)]
        what: VolumeCommand,
    },
    /// Create, list, rename and remove the directories that volumes are in.
    Dir {
        #[command(subcommand)]
        what: DirCommand,
    },
    /// Bound what an owner, or the volumes in a directory, may have.
    Quota {
        #[command(subcommand)]
        what: QuotaCommand,
    },
    /// Serve a volume to a virtual machine or host.
    Export {
        #[command(subcommand)]
        what: ExportCommand,
    },
    /// Print what QEMU and libvirt need to use a volume as a disk.
    Attach(AttachArgs),
    /// Create and list pools.
    Pool {
        #[command(subcommand)]
        what: PoolCommand,
    },
    /// List zones; ask whether one can be done without for a while.
    Zone {
        #[command(subcommand)]
        what: ZoneCommand,
    },
    /// List chunkservers, drain them, declare them lost, forget them.
    Server {
        #[command(subcommand)]
        what: ServerCommand,
    },
    /// List devices, drain them, declare them lost.
    Device {
        #[command(subcommand)]
        what: DeviceCommand,
    },
    /// Watch and cancel what the metadata servers do by themselves.
    Job {
        #[command(subcommand)]
        what: JobCommand,
    },
    /// List and check copysets, move their leaders.
    Copyset {
        #[command(subcommand)]
        what: CopysetCommand,
    },
    /// Health of the cluster. Exit code 3 when it is not OK.
    Status(StatusArgs),
    /// What happened to the cluster lately.
    Events(EventsArgs),
    /// What a health code means, what the system does by itself, and what to do.
    Explain {
        /// Such as OGEE-1003; all of them without one.
        code: Option<String>,
    },
    /// Check whether this host has what Ogee needs. Exit code 1 when something fails, 3 on warnings.
    Doctor(DoctorArgs),
    /// Load volumes, devices or NBD exports; report latencies with fio's keys; compare reports.
    Bench(Box<BenchArgs>),
    /// Run a metadata server in the foreground; or look after those that run.
    Mds(MdsArgs),
    /// Run a chunkserver in the foreground.
    Chunkserver(DaemonArgs),
    /// Print completions for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum DevCommand {
    /// Start a cluster; returns when it is healthy.
    Up(DevUpArgs),
    /// Stop exactly the processes of this cluster.
    Down {
        /// Directory of the cluster.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Start one process that was stopped or killed.
    Start {
        /// Its name, as in DIR/pids.
        name: String,
        /// Directory of the cluster.
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct DevUpArgs {
    /// Directory for data, logs, pids and configuration.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Chunkservers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) nodes: u16,
    /// Zones that they are spread over; without it each is in a zone of its own.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) zones: Option<u16>,
    /// Metadata servers: 1, 3 or 5.
    #[arg(long, default_value = "1", value_parser = metadata_servers)]
    pub(crate) mds_nodes: u16,
    /// Copysets of the default pool.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) copysets: u32,
    /// Size of each store (a sparse file).
    #[arg(long, default_value = "8GiB", value_parser = size)]
    pub(crate) store_size: ByteLen,
    /// Log of each store (preallocated, zero-filled).
    #[arg(long, default_value = "512MiB", value_parser = size)]
    pub(crate) log_size: ByteLen,
    /// Shards of each chunkserver, each with a store of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) shards: u16,
}

impl DevUpArgs {
    /// Zones that have a chunkserver.
    pub(crate) fn zones(&self) -> u16 {
        self.zones.map_or(self.nodes, |zones| zones.min(self.nodes))
    }
}

#[derive(Subcommand, Debug)]
pub(crate) enum ExportCommand {
    /// NBD, on a Unix socket or a TCP address. Runs in the foreground; SIGTERM ends it cleanly.
    Nbd {
        /// The volume; also the export name.
        name: String,
        /// Unix socket to make; it accepts when it exists.
        #[arg(long, conflicts_with = "listen", required_unless_present = "listen")]
        socket: Option<PathBuf>,
        /// TCP address to listen on. Unencrypted: loopback or a private network only.
        #[arg(long)]
        listen: Option<SocketAddr>,
        /// Directory, of our own, for a record of the attachment: with one, the server can be started again while no
        /// metadata server answers.
        #[arg(long)]
        state_dir: Option<PathBuf>,
        #[command(flatten)]
        rates: RateArgs,
        /// Serve it read-only and leave its writer alone.
        #[arg(long)]
        read_only: bool,
        #[command(flatten)]
        carrier: CarrierArgs,
    },
    /// vhost-user-blk, for virtual machines: a socket DIR/NAME.sock for each volume. Runs in the foreground; SIGTERM
    /// ends it cleanly.
    VhostUser(VhostUserArgs),
}

/// What carries data between this process and chunkservers.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct CarrierArgs {
    /// auto: RDMA where chunkservers offer it and this host has it, else TCP; rdma: RDMA or nothing; tcp.
    #[arg(long, env = "OGEE_TRANSPORT", default_value = "auto")]
    pub(crate) transport: Transport,
}

#[derive(Args, Debug)]
pub(crate) struct VhostUserArgs {
    /// The volumes, each of them the disk of one VM.
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// Directory of the sockets; made, with mode 0700, if only its last part is missing.
    #[arg(long)]
    pub(crate) socket_dir: PathBuf,
    /// Directory for records of the attachments, with which this can be started again while no metadata server
    /// answers [that of the sockets]
    #[arg(long)]
    pub(crate) state_dir: Option<PathBuf>,
    /// Queues that a VM may use, one for each of its processors at best.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) queues: u16,
    /// Unit in which the guest addresses the disk: 512 or 4096.
    #[arg(long, default_value = "512", value_parser = block_size)]
    pub(crate) block_size: u32,
    /// How long an idle queue looks for requests by itself before it asks to be woken, in microseconds. Trades a
    /// core for latency.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=POLL_US_MAX))]
    pub(crate) poll_us: u64,
    /// Threads; the volumes are spread over them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) shards: u16,
    /// Processor of each thread, separated by commas; without it they run anywhere.
    #[arg(long, value_delimiter = ',', value_name = "N")]
    pub(crate) cpus: Vec<usize>,
    #[command(flatten)]
    pub(crate) rates: RateArgs,
    /// User, or USER:GROUP, by number, that the sockets belong to: the one that QEMU runs as.
    #[arg(long, value_parser = owner)]
    pub(crate) owner: Option<Owner>,
    /// Mode of the sockets, octal.
    #[arg(long, default_value = "0600", value_parser = mode)]
    pub(crate) mode: u32,
    /// Serve them read-only and leave their writers alone.
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Do not register guests' memory with RDMA adapters, which locks all of it: what they read is copied.
    #[arg(long)]
    pub(crate) no_registration: bool,
    #[command(flatten)]
    pub(crate) carrier: CarrierArgs,
}

/// What a volume may take.
#[derive(Args, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RateArgs {
    /// Requests a second that each volume may take; more wait.
    #[arg(long)]
    pub(crate) iops: Option<NonZeroU64>,
    /// Bytes a second that each volume may read and write together, such as 200MiB.
    #[arg(long, value_parser = bandwidth)]
    pub(crate) bandwidth: Option<NonZeroU64>,
    /// An idle volume saves up what it may take in so many milliseconds.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    pub(crate) burst_ms: u64,
}

fn bandwidth(text: &str) -> Result<NonZeroU64, String> {
    let bytes = size(text)?.get();
    let enough = NonZeroU64::new(bytes).filter(|bytes| bytes.get() >= 4096);
    enough.ok_or_else(|| format!("{text:?}: at least 4KiB"))
}

/// A user and a group, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: Option<u32>,
}

fn owner(text: &str) -> Result<Owner, String> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    let number = |text: &str| {
        let parsed = text.parse::<u32>();
        parsed.map_err(|_| {
            format!("{text:?} is no number of a user or group, such as 64055 (id -u USER)")
        })
    };
    Ok(Owner {
        uid: number(uid)?,
        gid: gid.map(number).transpose()?,
    })
}

fn block_size(text: &str) -> Result<u32, String> {
    match text {
        "512" => Ok(512),
        "4096" => Ok(4096),
        _ => Err(format!("{text:?}: 512 or 4096")),
    }
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("{text:?} is no mode, such as 0600 or 0660")),
    }
}

#[derive(Args, Debug)]
pub(crate) struct AttachArgs {
    /// The volume.
    pub(crate) name: String,
    /// How the VM reaches it.
    #[arg(long, value_enum)]
    pub(crate) via: Via,
    /// vhost-user: the directory given to `export vhost-user`.
    #[arg(long, required_if_eq("via", "vhost-user"))]
    pub(crate) socket_dir: Option<PathBuf>,
    /// NBD: the socket given to `export nbd`.
    #[arg(long, required_if_eq("via", "nbd"))]
    pub(crate) socket: Option<PathBuf>,
    /// vhost-user: queues of the disk, as given to `export vhost-user`.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) queues: u16,
    /// vhost-user: the VM's memory, which it has to share.
    #[arg(long, default_value = "4GiB", value_parser = size)]
    pub(crate) memory: ByteLen,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Via {
    /// Shared memory: the fast way.
    VhostUser,
    /// A socket: works with every QEMU, and without shared memory.
    Nbd,
}

#[derive(Subcommand, Debug)]
pub(crate) enum PoolCommand {
    /// Create a pool over the zones that are online.
    Create {
        /// Its name.
        name: String,
        /// Copies of each byte, each in another zone.
        #[arg(long, default_value_t = 3)]
        replicas: u32,
        /// Raft groups to make: 8, or what the scatter width takes.
        #[arg(long)]
        copysets: Option<u32>,
        /// Only devices of that class: hdd, ssd or nvme; without it any.
        #[arg(long, value_name = "CLASS", value_parser = class)]
        class: Option<MediaClass>,
        /// With how many others each device shall share copysets, and not with many more; none: with as many
        /// as can be.
        #[arg(long, value_name = "N|none", value_parser = scatter_width, default_value = "none")]
        scatter_width: u32,
    },
    /// Change what is allowed in a pool. What is not named stays as it is.
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
    Set {
        /// Its name.
        name: String,
        /// Whether new volumes may be made in it; those that it has go on, and grow.
        #[arg(long, group = "change", value_name = "yes|no", value_parser = yes_or_no)]
        allow_volumes: Option<bool>,
        /// Bytes that its volumes may have in all, as their users see them, such as 10TiB; or none.
        #[arg(long, group = "change", value_name = "SIZE|none", value_parser = quota)]
        quota: Option<u64>,
        /// Share of the volumes that name no pool, beside the other pools' weights; 0: none of them.
        #[arg(long, group = "change")]
        weight: Option<u32>,
        /// With how many others each device shall share copysets: for replicas that are moved from now on.
        #[arg(long, group = "change", value_name = "N|none", value_parser = scatter_width)]
        scatter_width: Option<u32>,
    },
    /// List pools.
    Ls,
    /// Remove a pool in which no volume is. Its copysets are deleted from the devices. Refused for the last pool, and for the default
    /// one while no other has a weight.
    Rm {
        /// Its name.
        name: String,
    },
    /// Show everything that is known of one: its state, what is on it, and the health codes that are about it.
    Show {
        /// Its name.
        name: String,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum ZoneCommand {
    /// List them.
    Ls,
    /// Show everything that is known of one: its state, what is on it, and the health codes that are about it.
    Show {
        /// Its name.
        name: String,
    },
    /// Whether every copyset keeps its quorum when all chunkservers of a zone stop at once. Exit code 1 if not.
    OkToStop {
        /// Its name.
        name: String,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum ServerCommand {
    /// List them.
    Ls,
    /// Show everything that is known of one: its state, what is on it, and the health codes that are about it.
    Show {
        /// Its name.
        name: String,
    },
    /// Move leaders and replicas off all devices of a chunkserver. Returns at once; `ls` shows how many are
    /// left, and `empty` in the end.
    Drain(DrainArgs),
    /// Declare a chunkserver that is offline gone for good: its replicas are made anew elsewhere at once.
    Lost(LostArgs),
    /// Say that a chunkserver is about to be stopped for a while: its leaders move, nothing new goes there, and its
    /// replicas are not made anew before the time is over. Waits until it leads nothing. Exit code 1: do not stop it.
    Maintenance(MaintenanceArgs),
    /// Whether copysets keep their quorum when it stops. Exit code 1 if not.
    OkToStop {
        /// Its name.
        name: String,
    },
    /// Whether all that it has could be moved elsewhere by the rules of the pools, so that it can be drained and removed;
    /// what would stand in the way. Changes nothing. Exit code 1 if not.
    OkToRemove {
        /// Its name.
        name: String,
    },
    /// Forget a chunkserver that is offline and has no replicas.
    Rm {
        /// Its name.
        name: String,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum DeviceCommand {
    /// List them.
    Ls {
        /// This host's NVMe drives instead, whether they are the cluster's or not: what drives each, what holds it, how it
        /// is. Asks no metadata server.
        #[arg(long)]
        local: bool,
    },
    /// Show everything that is known of one: its state, what is on it, and the health codes that are about it.
    Show {
        /// Its store, as `ls` names it.
        name: String,
    },
    /// Move leaders and replicas off a device. Returns at once; `ls` shows how many are left, and `empty` in
    /// the end.
    Drain(DrainArgs),
    /// Declare a device that is away gone for good: its replicas are made anew elsewhere at once.
    Lost(LostArgs),
    /// Whether copysets keep their quorum without it. Exit code 1 if not.
    OkToStop {
        /// Its store, as `ls` names it.
        name: String,
    },
    /// Whether all that it has could be moved elsewhere by the rules of the pools, so that it can be drained and removed;
    /// what would stand in the way. Changes nothing. Exit code 1 if not.
    OkToRemove {
        /// Its store, as `ls` names it.
        name: String,
    },
    /// Give an NVMe drive of this host to a driver for user space, for SPDK: refused while anything uses it or is on it.
    /// Nothing on it is written.
    Prepare(PrepareArgs),
    /// Give an NVMe drive of this host back to the kernel.
    Release(ReleaseArgs),
    /// Show what an NVMe drive says of its own health: one of this host, or of the cluster if its chunkserver uses it without the
    /// kernel. Exit code 1 if it warns.
    Health(HealthArgs),
    /// Move all that is on a device to another one, and place nothing on it any more. Returns at once; `job ls` shows
    /// how far it is, and `ls` says `empty` in the end. The same command again changes nothing.
    Replace(ReplaceArgs),
    /// Pause reading a device for what rots and comparing the replicas of what leads there, let both go on, or have
    /// them done at once. A pause outlives restarts; `ls` shows it, and how far both are.
    Scrub(ScrubArgs),
    /// Take a device back that limped.
    Reinstate {
        /// Its store, or its chunkserver's name for all of them.
        name: String,
    },
}

#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("wish").required(true)))]
pub(crate) struct ScrubArgs {
    /// Its store, or its chunkserver's name for all of them.
    pub(crate) name: String,
    /// Neither read nor compare until `--resume`.
    #[arg(long, group = "wish")]
    pub(crate) pause: bool,
    /// Go on.
    #[arg(long, group = "wish")]
    pub(crate) resume: bool,
    /// Do both now, or the rest of what is under way, whatever scrub.period_s and scrub.hours say: as fast as the devices
    /// find leisure.
    #[arg(long, group = "wish")]
    pub(crate) now: bool,
    /// With `--now`: only verify the metadata of its stores, both copies of each page, and rewrite what is bad. That is
    /// done by itself once in scrub.light_period_s, and whenever a pass begins.
    #[arg(long, requires = "now")]
    pub(crate) light: bool,
}

/// Longest that anybody may be told to look for work before sleeping: a second.
pub(crate) const POLL_US_MAX: u64 = 1_000_000;

/// Where drives are remembered.
pub(crate) const RECORDS: &str = "/etc/ogee/drives.toml";

#[derive(Args, Debug)]
pub(crate) struct PrepareArgs {
    /// PCI address, serial number, /dev/nvme… or /dev/disk/by-id/….
    #[arg(required_unless_present = "recorded")]
    pub(crate) name: Option<String>,
    /// All drives that were prepared before, found by serial number: for a unit that runs at boot, before the chunkserver.
    #[arg(long, conflicts_with_all = ["name", "driver", "once"])]
    pub(crate) recorded: bool,
    /// The driver; without it vfio-pci, which wants an IOMMU.
    #[arg(long, value_parser = ["vfio-pci", "uio_pci_generic"])]
    pub(crate) driver: Option<String>,
    /// Do not remember it for `--recorded`.
    #[arg(long)]
    pub(crate) once: bool,
    /// Print what would be done, as shell commands.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Where drives are remembered.
    #[arg(long, value_name = "FILE", default_value = RECORDS)]
    pub(crate) records: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct HealthArgs {
    /// PCI address, serial number, /dev/nvme… or /dev/disk/by-id/… of this host; or a store, as `ls` names it.
    pub(crate) name: String,
    /// Where drives are remembered.
    #[arg(long, value_name = "FILE", default_value = RECORDS)]
    pub(crate) records: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct ReleaseArgs {
    /// PCI address, or serial number.
    pub(crate) name: String,
    /// Print what would be done, as shell commands.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Where drives are remembered.
    #[arg(long, value_name = "FILE", default_value = RECORDS)]
    pub(crate) records: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct ReplaceArgs {
    /// The store that is to be emptied.
    pub(crate) old: String,
    /// The store that takes its place; on the same chunkserver also its path.
    #[arg(required_unless_present = "cancel", default_value = "")]
    pub(crate) new: String,
    /// Take it back: what has not begun to move stays.
    #[arg(long)]
    pub(crate) cancel: bool,
    /// Only show the jobs that it would lead to, and about how many bytes they copy.
    #[arg(long, conflicts_with = "cancel")]
    pub(crate) dry_run: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DrainArgs {
    /// The chunkserver's name, or the device's store, as `ls` names it.
    pub(crate) name: String,
    /// Take it back: what has not begun to move stays.
    #[arg(long)]
    pub(crate) cancel: bool,
    /// Only show the jobs that it would lead to, and about how many bytes they copy.
    #[arg(long, conflicts_with = "cancel")]
    pub(crate) dry_run: bool,
}

#[derive(Args, Debug)]
pub(crate) struct MaintenanceArgs {
    /// The chunkserver's name.
    pub(crate) name: String,
    /// How long it lasts at most, such as 30m, 2h, 1d; again, it lasts so long from now on.
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = span)]
    pub(crate) time: Duration,
    /// It is over.
    #[arg(long, conflicts_with = "time")]
    pub(crate) cancel: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LostArgs {
    /// The chunkserver's name, or the device's store.
    pub(crate) name: String,
    /// Do it without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Take it back: it was found.
    #[arg(long, conflicts_with = "yes")]
    pub(crate) cancel: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum JobCommand {
    /// List those that are pending or running, and the newest that have ended.
    Ls,
    /// Show one.
    Show {
        /// Its number.
        id: u64,
    },
    /// Begin none any more, until `resume`: no replica begins to be made anew, drained or moved, and no leader moves for evenness
    /// or a drain. What has begun goes on. Kept over restarts; `status` warns of it.
    Pause,
    /// Let them begin again.
    Resume,
    /// Cancel one that waits, or a transfer of leadership. A replica that is being copied is not taken back.
    Cancel {
        /// Its number.
        id: u64,
    },
}

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Only this check; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) check: Vec<CheckName>,
    /// Print a script that would put right what can be. It is not run.
    #[arg(long)]
    pub(crate) fix_script: bool,
    /// This host is to use RDMA: what is missing for it is a failure.
    #[arg(long)]
    pub(crate) rdma: bool,
    /// Shards that are to run here.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) shards: u16,
}

#[derive(Args, Debug)]
pub(crate) struct DaemonArgs {
    /// TOML file with the settings.
    #[arg(long, env = "OGEE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// A setting that overrides the file: key=value, with the file's keys.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// File to make when the service is ready.
    #[arg(long)]
    pub(crate) ready_file: Option<PathBuf>,
}

fn metadata_servers(text: &str) -> Result<u16, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err(format!("{text:?}: 1, 3 or 5")),
    }
}

fn class(text: &str) -> Result<MediaClass, String> {
    text.parse().map_err(|error: NoClass| error.to_string())
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("{text:?}: yes or no")),
    }
}

fn quota(text: &str) -> Result<u64, String> {
    match text {
        "none" => Ok(0),
        text => match size(text)?.get() {
            0 => Err("0 bytes would be no quota: say none".to_owned()),
            bytes => Ok(bytes),
        },
    }
}

fn scatter_width(text: &str) -> Result<u32, String> {
    match (text, text.parse::<u32>()) {
        ("none", _) => Ok(0),
        (_, Ok(0)) => Err("0 others would be no width: say none".to_owned()),
        (_, width) => width.map_err(|error| error.to_string()),
    }
}

/// A time such as 90s, 15m, 2h, 1d.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let found = units.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*seconds)
    });
    let seconds = found.ok_or_else(|| format!("{text:?}: a time such as 90s, 15m, 2h, 1d"))?;
    Ok(Duration::from_secs(seconds))
}

fn size(text: &str) -> Result<ByteLen, String> {
    parse_size(text).map_err(|error| error.to_string())
}
