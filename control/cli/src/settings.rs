//! Settings of the daemons: file, then environment, then `--set`.
//!
//! An environment variable `OGEE_CHUNKSERVER__LOG_SIZE` sets `log_size` of a chunkserver. An unknown
//! key is an error that names the nearest known one.

use crate::args::DaemonArgs;
use crate::error::{CliError, Exit};
use ogee_control::SickRules;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Settings of a metadata server.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MdsSettings {
    /// Where the metadata is kept.
    pub(crate) data_dir: PathBuf,
    /// Address of the gRPC services.
    pub(crate) listen: SocketAddr,
    /// Address of /metrics and /healthz.
    pub(crate) metrics: Option<SocketAddr>,
    /// Number of this member.
    #[serde(default = "one")]
    pub(crate) id: u64,
    /// The whole group by number; empty: this member alone.
    #[serde(default)]
    pub(crate) members: Vec<MemberSettings>,
    /// Form no group on the first start: wait until `ogee mds add` takes it in.
    #[serde(default)]
    pub(crate) join: bool,
    /// For tests of upgrades: act as an earlier release of the metadata's commands.
    #[serde(default)]
    pub(crate) act_as_version: u32,
    /// Name of the cluster.
    #[serde(default = "ogee")]
    pub(crate) cluster: String,
    /// Heartbeat interval of chunkservers.
    #[serde(default = "heartbeat_ms")]
    pub(crate) heartbeat_ms: u64,
    /// A chunkserver silent for so long is offline.
    #[serde(default = "offline_ms")]
    pub(crate) offline_ms: u64,
    /// What it does by itself.
    #[serde(default)]
    pub(crate) heal: HealSettings,
    /// What becomes of devices that limp.
    #[serde(default)]
    pub(crate) sick: SickSettings,
}

/// What becomes of devices that limp; what is not given has the server's default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SickSettings {
    /// A device is slow that takes so many times as long as its peers; 0: none is.
    pub(crate) factor: Option<u64>,
    /// And at least so long.
    pub(crate) floor_ms: Option<u64>,
    /// Slow for so long it limps.
    pub(crate) limping_after_ms: Option<u64>,
    /// Well for so long it does not any more.
    pub(crate) well_after_ms: Option<u64>,
    /// Limping for so long it is emptied; 0: never.
    pub(crate) eject_after_ms: Option<u64>,
    /// Emptied, and well for so long, it is taken back; 0: only by hand.
    pub(crate) reinstate_after_ms: Option<u64>,
}

impl SickSettings {
    /// These, and the defaults.
    pub(crate) fn over(&self, default: SickRules) -> SickRules {
        SickRules {
            factor: self.factor.unwrap_or(default.factor),
            floor_ms: self.floor_ms.unwrap_or(default.floor_ms),
            limping_after_ms: self.limping_after_ms.unwrap_or(default.limping_after_ms),
            well_after_ms: self.well_after_ms.unwrap_or(default.well_after_ms),
            eject_after_ms: self.eject_after_ms.unwrap_or(default.eject_after_ms),
            reinstate_after_ms: self
                .reinstate_after_ms
                .unwrap_or(default.reinstate_after_ms),
        }
    }
}

/// What a metadata server does by itself; what is not given has the server's default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HealSettings {
    /// A device away for so long is re-protected elsewhere; 0: never.
    pub(crate) recover_after_ms: Option<u64>,
    /// Replicas that move at once.
    pub(crate) moves_max: Option<usize>,
    /// Of those, from or to one chunkserver.
    pub(crate) moves_per_server_max: Option<usize>,
    /// Of those, from, to or within one zone.
    pub(crate) moves_per_zone_max: Option<usize>,
    /// Of those, of one pool.
    pub(crate) moves_per_pool_max: Option<usize>,
    /// Of those, from or to one device.
    pub(crate) moves_per_device_max: Option<usize>,
    /// One move may take so long.
    pub(crate) move_timeout_ms: Option<u64>,
    /// Leaders uneven for so long are moved; 0: never.
    pub(crate) balance_after_ms: Option<u64>,
    /// Devices that carry replicas unevenly for so long are evened out; 0: never.
    pub(crate) replica_balance_after_ms: Option<u64>,
    /// Two devices that differ by no more, in percent, are even.
    pub(crate) replica_balance_percent: Option<u64>,
    /// Leaders move for their load only if that evens out so much, in percent; 0: never.
    pub(crate) leader_load_percent: Option<u64>,
    /// A device of which so much is taken is nearly full, in percent; 0: never.
    pub(crate) nearly_full_percent: Option<u64>,
}

/// One member of the metadata group.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberSettings {
    /// Its number.
    pub(crate) id: u64,
    /// Its gRPC address.
    pub(crate) addr: String,
}

/// Settings of a chunkserver.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChunkserverSettings {
    /// Unique in the cluster.
    pub(crate) name: String,
    /// Failure domain.
    pub(crate) zone: String,
    /// Host; its own name if not given.
    pub(crate) server: Option<String>,
    /// One address per shard.
    pub(crate) listen: Vec<SocketAddr>,
    /// `auto`, `rdma` or `tcp`.
    pub(crate) transport: Option<String>,
    /// Processor of each shard; not pinned if not given.
    #[serde(default)]
    pub(crate) cpus: Vec<usize>,
    /// For how long an idle shard looks for work before it sleeps, in microseconds.
    #[serde(default)]
    pub(crate) poll_us: u64,
    /// gRPC addresses of the metadata servers.
    pub(crate) mds: Vec<String>,
    /// Address of /metrics and /healthz.
    pub(crate) metrics: Option<SocketAddr>,
    /// Devices.
    pub(crate) device: Vec<DeviceSettings>,
    /// Raft times.
    #[serde(default)]
    pub(crate) raft: RaftSettings,
    /// RDMA of each shard.
    #[serde(default)]
    pub(crate) rdma: RdmaSettings,
    /// Reading of all that is stored.
    #[serde(default)]
    pub(crate) scrub: ScrubSettings,
    /// What copies, comparisons and scrubbing may take together.
    #[serde(default)]
    pub(crate) background: BackgroundSettings,
    /// NVMe drives without the kernel.
    #[serde(default)]
    pub(crate) nvme: NvmeSettings,
}

/// One device of a chunkserver.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceSettings {
    /// File or block device; or `pci`, or `serial`.
    pub(crate) path: Option<PathBuf>,
    /// Address of an NVMe controller that the kernel does not drive.
    pub(crate) pci: Option<String>,
    /// Serial number that must be found there; without `pci` it is where the record of prepared drives has it.
    pub(crate) serial: Option<String>,
    /// Its namespace; the first one if not given.
    pub(crate) namespace: Option<u32>,
    /// Size of the file to make if there is none.
    pub(crate) create: Option<String>,
    /// Log of a store that is made.
    #[serde(default = "log_size")]
    pub(crate) log_size: String,
    /// Shard that owns it.
    #[serde(default)]
    pub(crate) shard: u16,
    /// hdd, ssd or nvme; what the kernel says, if not given.
    pub(crate) class: Option<String>,
}

/// Raft times in milliseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RaftSettings {
    pub(crate) heartbeat_ms: Option<u64>,
    pub(crate) election_min_ms: Option<u64>,
    pub(crate) election_max_ms: Option<u64>,
    pub(crate) lease_reads: Option<bool>,
    pub(crate) quiet_after_ms: Option<u64>,
    /// Bytes per second.
    pub(crate) copy_rate: Option<String>,
}

/// Reading of all that is stored, for what rots.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScrubSettings {
    /// Once in so many seconds; 0: never.
    pub(crate) period_s: Option<u64>,
    /// Metadata once in so many seconds; 0: only when a pass of all begins.
    pub(crate) light_period_s: Option<u64>,
    /// Hours of the day, in UTC, as `22-6`.
    pub(crate) hours: Option<String>,
}

/// What copies, comparisons and scrubbing may take together, in bytes per second.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackgroundSettings {
    /// Of each device.
    pub(crate) device_rate: Option<String>,
    /// Of the network, all shards together.
    pub(crate) network_rate: Option<String>,
}

/// NVMe drives without the kernel.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NvmeSettings {
    /// Where `ogee device prepare` remembers drives.
    pub(crate) records: Option<PathBuf>,
    /// `poll` or `interrupt`.
    pub(crate) wait: Option<String>,
}

/// RDMA of each shard; what is not given has the transport's default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RdmaSettings {
    /// Name of the device; the one that has the shard's address if not given.
    pub(crate) device: Option<String>,
    /// Connections at a time.
    pub(crate) connections_max: Option<u32>,
    /// Receive buffers.
    pub(crate) receives: Option<u32>,
    /// Pieces of 128 KiB.
    pub(crate) mediums: Option<u32>,
    /// Pieces of 1 MiB.
    pub(crate) larges: Option<u32>,
    /// MiB that devices are read into.
    pub(crate) transfers: Option<u32>,
    /// Traffic class of packets: DSCP in the upper six bits.
    pub(crate) traffic_class: Option<u8>,
    /// How long to look for completions before sleeping, in microseconds.
    pub(crate) spin_us: Option<u64>,
    /// Never sleep.
    pub(crate) busy_poll: Option<bool>,
}

fn one() -> u64 {
    1
}

fn ogee() -> String {
    String::from("ogee")
}

fn heartbeat_ms() -> u64 {
    1000
}

fn offline_ms() -> u64 {
    3000
}

fn log_size() -> String {
    String::from("512MiB")
}

/// Keys of each kind of daemon, for "did you mean".
const MDS_KEYS: &[&str] = &[
    "data_dir",
    "listen",
    "metrics",
    "id",
    "members",
    "join",
    "act_as_version",
    "cluster",
    "heartbeat_ms",
    "offline_ms",
    "heal",
    "recover_after_ms",
    "moves_max",
    "moves_per_server_max",
    "moves_per_zone_max",
    "moves_per_pool_max",
    "moves_per_device_max",
    "move_timeout_ms",
    "balance_after_ms",
    "sick",
    "factor",
    "floor_ms",
    "limping_after_ms",
    "well_after_ms",
    "eject_after_ms",
    "reinstate_after_ms",
    "replica_balance_after_ms",
    "replica_balance_percent",
    "leader_load_percent",
    "nearly_full_percent",
];
const CHUNKSERVER_KEYS: &[&str] = &[
    "name",
    "zone",
    "server",
    "listen",
    "transport",
    "cpus",
    "poll_us",
    "mds",
    "metrics",
    "device",
    "raft",
    "path",
    "pci",
    "serial",
    "namespace",
    "create",
    "log_size",
    "shard",
    "heartbeat_ms",
    "election_min_ms",
    "election_max_ms",
    "lease_reads",
    "quiet_after_ms",
    "copy_rate",
    "scrub",
    "period_s",
    "hours",
    "background",
    "device_rate",
    "network_rate",
    "nvme",
    "records",
    "wait",
    "rdma",
    "connections_max",
    "receives",
    "mediums",
    "larges",
    "transfers",
    "traffic_class",
    "spin_us",
    "busy_poll",
];

/// Settings of a metadata server.
pub(crate) fn mds(args: &DaemonArgs) -> Result<MdsSettings, CliError> {
    load(args, "OGEE_MDS_SERVER__", MDS_KEYS)
}

/// Settings of a chunkserver.
pub(crate) fn chunkserver(args: &DaemonArgs) -> Result<ChunkserverSettings, CliError> {
    load(args, "OGEE_CHUNKSERVER__", CHUNKSERVER_KEYS)
}

fn load<T: DeserializeOwned>(
    args: &DaemonArgs,
    prefix: &str,
    keys: &[&str],
) -> Result<T, CliError> {
    let mut table = match &args.config {
        Some(path) => read(path)?,
        None => Table::new(),
    };
    for (name, value) in std::env::vars() {
        if let Some(key) = name.strip_prefix(prefix) {
            set(
                &mut table,
                &key.to_lowercase().replace("__", "."),
                &value,
                &name,
            )?;
        }
    }
    for setting in &args.set {
        let (key, value) = setting.split_once('=').ok_or_else(|| {
            wrong(
                &format!("--set {setting}"),
                "it has no '='",
                "write --set key=value",
            )
        })?;
        set(&mut table, key, value, &format!("--set {setting}"))?;
    }
    let place = args.config.as_deref().unwrap_or(Path::new("the settings"));
    T::deserialize(Value::Table(table)).map_err(|error| {
        let cause = error.message().to_owned();
        let remedy = nearest(&cause, keys);
        wrong(&format!("cannot use {}", place.display()), &cause, &remedy)
    })
}

fn read(path: &Path) -> Result<Table, CliError> {
    let doing = format!("cannot read {}", path.display());
    let text = std::fs::read_to_string(path)
        .map_err(|error| CliError::io(&doing, &error, "check the path and its permissions"))?;
    text.parse::<Table>().map_err(|error| {
        let cause = error.to_string().replace('\n', " ");
        wrong(&doing, cause.trim(), "correct the TOML at the place named")
    })
}

/// Sets a dotted key. A value that is not TOML is taken as text.
fn set(table: &mut Table, key: &str, value: &str, origin: &str) -> Result<(), CliError> {
    let parsed = format!("v = {value}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("v"));
    let value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    let (path, last) = key
        .rsplit_once('.')
        .map_or((None, key), |(path, last)| (Some(path), last));
    let mut at = table;
    for part in path.into_iter().flat_map(|path| path.split('.')) {
        let next = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
        at = next.as_table_mut().ok_or_else(|| {
            wrong(
                &format!("cannot apply {origin}"),
                &format!("{part} is not a table"),
                "name a single setting",
            )
        })?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

fn nearest(cause: &str, keys: &[&str]) -> String {
    let unknown = cause
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split_once('`'));
    let close = unknown.and_then(|(unknown, _)| {
        let scored = keys
            .iter()
            .map(|key| (strsim::damerau_levenshtein(unknown, key), key));
        scored.min().filter(|(distance, _)| *distance <= 3)
    });
    match close {
        Some((_, key)) => format!("did you mean \"{key}\"?"),
        None => String::from("see docs/configuration.md for every setting"),
    }
}

/// A mistake in the settings.
pub(crate) fn wrong(what: &str, cause: &str, remedy: &str) -> CliError {
    CliError::new("OGEE-3003", what, cause, remedy).with_exit(Exit::Usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(file: &str, set: &[&str]) -> (tempfile::NamedTempFile, DaemonArgs) {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), file).unwrap();
        let config = Some(path.path().to_owned());
        let set = set.iter().map(ToString::to_string).collect();
        (
            path,
            DaemonArgs {
                config,
                set,
                ready_file: None,
            },
        )
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let (_file, args) = args("data_dirr = \"x\"\nlisten = \"127.0.0.1:1\"\n", &[]);
        let error = mds(&args).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert!(
            error.to_string().contains("did you mean \"data_dir\"?"),
            "{error}"
        );
    }

    #[test]
    fn a_setting_overrides_the_file() {
        let file = "data_dir = \"x\"\nlisten = \"127.0.0.1:1\"\n";
        let (_file, args) = args(file, &["listen=127.0.0.1:2", "id=7"]);
        let settings = mds(&args).unwrap();
        assert_eq!((settings.listen.port(), settings.id), (2, 7));
    }

    #[test]
    fn a_wrong_value_is_named() {
        let (_file, args) = args("data_dir = \"x\"\nlisten = \"nowhere\"\n", &[]);
        assert!(
            mds(&args)
                .unwrap_err()
                .to_string()
                .contains("socket address"),
            "names the kind"
        );
    }
}
