//! `ogee chunkserver`: a chunkserver in the foreground.

use super::mds::ready;
use super::signal::on_stop;
use crate::args::DaemonArgs;
use crate::error::{CliError, chain};
use crate::settings::{
    self, ChunkserverSettings, DeviceSettings, RaftSettings, RdmaSettings, ScrubSettings, wrong,
};
use ogee_group::GroupConfig;
use ogee_proto::size::parse_size;
use ogee_proto::unit::ByteLen;
use ogee_shard::{Chunkserver, ChunkserverConfig, StoreConfig};
use ogee_transport::{RdmaOptions, Transport};
use std::process::ExitCode;
use std::time::Duration;

/// A slower copy of a replica would hardly ever end.
const COPY_RATE_MIN: ByteLen = ByteLen::new(1 << 20);
/// A week.
const SCRUB_PERIOD_S: u64 = 7 * 24 * 3600;

pub(crate) fn run(args: &DaemonArgs) -> Result<ExitCode, CliError> {
    let config = config(settings::chunkserver(args)?)?;
    let (chunkserver, stop) = Chunkserver::new(config);
    on_stop(move || stop.stop())?;
    let ready_args = args.ready_file.clone();
    let outcome = chunkserver.run(move || {
        let args = DaemonArgs {
            config: None,
            set: Vec::new(),
            ready_file: ready_args,
        };
        if let Err(error) = ready(&args) {
            tracing::error!(%error, "not announced as ready");
        }
    });
    outcome.map_err(|error| {
        let remedy = "correct the device, address or setting named; docs/configuration.md has all";
        CliError::new(
            "OGEE-3102",
            "the chunkserver cannot run",
            &chain(&error),
            remedy,
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn config(settings: ChunkserverSettings) -> Result<ChunkserverConfig, CliError> {
    let host = || {
        nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
    };
    let server = settings
        .server
        .or_else(host)
        .unwrap_or_else(|| settings.name.clone());
    let stores = settings
        .device
        .into_iter()
        .map(store)
        .collect::<Result<_, _>>()?;
    Ok(ChunkserverConfig {
        name: settings.name,
        zone: settings.zone,
        server,
        listen: settings.listen,
        transport: transport(settings.transport.as_deref())?,
        rdma: rdma(settings.rdma),
        cpus: settings.cpus,
        stores,
        mds: settings.mds,
        metrics: settings.metrics,
        group: raft(settings.raft)?,
        scrub_period: scrub_period(&settings.scrub),
    })
}

/// 0 is never.
fn scrub_period(settings: &ScrubSettings) -> Option<Duration> {
    let seconds = settings.period_s.unwrap_or(SCRUB_PERIOD_S);
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

fn transport(text: Option<&str>) -> Result<Transport, CliError> {
    text.map_or(Ok(Transport::default()), str::parse)
        .map_err(|error| {
            wrong(
                "cannot use a transport",
                &error.to_string(),
                "write transport = \"auto\", \"rdma\" or \"tcp\"",
            )
        })
}

fn rdma(settings: RdmaSettings) -> RdmaOptions {
    let defaults = RdmaOptions::default();
    RdmaOptions {
        device: settings.device,
        connections_max: settings.connections_max.unwrap_or(defaults.connections_max),
        receives: settings.receives.unwrap_or(defaults.receives),
        mediums: settings.mediums.unwrap_or(defaults.mediums),
        larges: settings.larges.unwrap_or(defaults.larges),
        traffic_class: settings.traffic_class,
        spin: settings
            .spin_us
            .map_or(defaults.spin, Duration::from_micros),
        busy_poll: settings.busy_poll.unwrap_or(defaults.busy_poll),
    }
}

fn store(device: DeviceSettings) -> Result<StoreConfig, CliError> {
    Ok(StoreConfig {
        create: device.create.as_deref().map(size).transpose()?,
        log_len: size(&device.log_size)?,
        path: device.path,
        shard: device.shard,
    })
}

fn size(text: &str) -> Result<ByteLen, CliError> {
    parse_size(text).map_err(|error| {
        wrong(
            "cannot use a size",
            &error.to_string(),
            "write a size such as 8GiB",
        )
    })
}

fn raft(settings: RaftSettings) -> Result<GroupConfig, CliError> {
    let defaults = GroupConfig::default();
    let time = |ms: Option<u64>, default| ms.map_or(default, Duration::from_millis);
    let config = GroupConfig {
        heartbeat: time(settings.heartbeat_ms, defaults.heartbeat),
        election_min: time(settings.election_min_ms, defaults.election_min),
        election_max: time(settings.election_max_ms, defaults.election_max),
        quiet_after: time(settings.quiet_after_ms, defaults.quiet_after),
        copy_rate: settings.copy_rate.as_deref().map(size).transpose()?,
        lease_reads: settings.lease_reads.unwrap_or(defaults.lease_reads),
        ..defaults
    };
    if config.copy_rate.is_some_and(|rate| rate < COPY_RATE_MIN) {
        return Err(wrong(
            "cannot use raft.copy_rate",
            "it is less than 1MiB per second",
            "give at least 1MiB, or leave it out for no limit",
        ));
    }
    config.raft().map_err(|error| {
        let remedy = "keep heartbeat < election_min < election_max";
        wrong("cannot use the Raft times", &error.to_string(), remedy)
    })?;
    Ok(config)
}
