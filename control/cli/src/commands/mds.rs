//! `ogee mds`: a metadata server in the foreground.

use super::signal::on_stop;
use crate::args::DaemonArgs;
use crate::error::{CliError, chain};
use crate::settings;
use ogee_control::{Mds, MdsConfig, MdsError, Member};
use std::process::ExitCode;

pub(crate) fn run(args: &DaemonArgs) -> Result<ExitCode, CliError> {
    let settings = settings::mds(args)?;
    let mut config = MdsConfig::new(settings.data_dir, settings.listen);
    config.metrics_listen = settings.metrics;
    config.id = settings.id;
    config.join = settings.join;
    config.act_as_version = settings.act_as_version;
    config.cluster = settings.cluster;
    config.heartbeat_ms = settings.heartbeat_ms;
    config.offline_ms = settings.offline_ms;
    let heal = &settings.heal;
    config.recover_after_ms = heal.recover_after_ms.unwrap_or(config.recover_after_ms);
    config.moves_max = heal.moves_max.unwrap_or(config.moves_max);
    let per_server = heal.moves_per_server_max;
    config.moves_per_server_max = per_server.unwrap_or(config.moves_per_server_max);
    let per_zone = heal.moves_per_zone_max;
    config.moves_per_zone_max = per_zone.unwrap_or(config.moves_per_zone_max);
    let per_pool = heal.moves_per_pool_max;
    config.moves_per_pool_max = per_pool.unwrap_or(config.moves_per_pool_max);
    let per_device = heal.moves_per_device_max;
    config.moves_per_device_max = per_device.unwrap_or(config.moves_per_device_max);
    config.move_timeout_ms = heal.move_timeout_ms.unwrap_or(config.move_timeout_ms);
    config.balance_after_ms = heal.balance_after_ms.unwrap_or(config.balance_after_ms);
    config.sick = settings.sick.over(config.sick);
    let after = heal.replica_balance_after_ms;
    config.replica_balance_after_ms = after.unwrap_or(config.replica_balance_after_ms);
    let percent = heal.replica_balance_percent;
    config.replica_balance_percent = percent.unwrap_or(config.replica_balance_percent);
    let percent = heal.leader_load_percent;
    config.leader_load_percent = percent.unwrap_or(config.leader_load_percent);
    let percent = heal.nearly_full_percent;
    config.nearly_full_percent = percent.unwrap_or(config.nearly_full_percent);
    let members = settings.members.into_iter();
    config.members = members
        .map(|member| Member {
            id: member.id,
            addr: member.addr,
        })
        .collect();
    let failed = |error: MdsError| {
        let fault = error.fault();
        let remedy = match fault.remedy() {
            "" => "correct the setting named, or see docs/configuration.md",
            remedy => remedy,
        };
        let what = format!("the metadata server cannot run ({})", fault.code());
        CliError::new("OGEE-3101", &what, &chain(&error), remedy)
    };
    let handle = Mds::start(&config).map_err(failed)?;
    let stopper = handle.stopper();
    on_stop(move || stopper.stop())?;
    ready(args)?;
    handle.join().map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the ready file, if one was asked for.
pub(crate) fn ready(args: &DaemonArgs) -> Result<(), CliError> {
    let Some(path) = &args.ready_file else {
        return Ok(());
    };
    std::fs::write(path, b"ready\n").map_err(|error| {
        let doing = format!("cannot make the ready file {}", path.display());
        CliError::io(&doing, &error, "check the directory and its permissions")
    })
}
