//! `ogee status`.

use super::ask;
use crate::args::{Format, StatusArgs};
use crate::error::{CliError, Exit};
use crate::output::{human, line};
use ogee_proto::service::ClusterStatus;
use serde_json::json;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) fn run(mds: &[String], args: &StatusArgs, format: Format) -> Result<ExitCode, CliError> {
    let Some(seconds) = args.watch else {
        return once(mds, format);
    };
    let is_screen = std::io::stdout().is_terminal() && format == Format::Table;
    loop {
        if is_screen {
            // Home, and clear what is below.
            line("\x1b[H\x1b[2J");
        }
        // A cluster that does not answer is what one wants to see as well.
        if let Err(error) = once(mds, format) {
            line(&error.to_string());
        }
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

fn once(mds: &[String], format: Format) -> Result<ExitCode, CliError> {
    let status = ask(mds, "cannot get the cluster's status", async |client| {
        client.status().await
    })?;
    match format {
        Format::Json => line(&format!("{:#}", to_json(&status))),
        Format::Table => print_table(&status),
    }
    Ok(match status.health.as_str() {
        "OK" => ExitCode::SUCCESS,
        _ => ExitCode::from(Exit::Degraded as u8),
    })
}

fn to_json(status: &ClusterStatus) -> serde_json::Value {
    let codes = status.codes.iter().map(|code| {
        json!({
            "code": code.code, "severity": code.severity, "count": code.count,
            "detail": code.detail, "remedy": code.remedy,
        })
    });
    json!({
        "health": status.health,
        "codes": codes.collect::<Vec<_>>(),
        "servers": {"total": status.servers, "online": status.servers_online},
        "copysets": {"total": status.copysets, "ready": status.copysets_ready},
        "volumes": status.volumes,
        "capacity_bytes": status.capacity,
        "used_bytes": status.used,
        "mds": {"leader": status.mds_leader, "members": status.mds_count},
        "version": status.version,
    })
}

fn print_table(status: &ClusterStatus) {
    line(&format!("health    {}", status.health));
    for code in &status.codes {
        line(&format!(
            "          {} {} ×{}: {}",
            code.severity, code.code, code.count, code.detail
        ));
        if !code.remedy.is_empty() {
            line(&format!("            try: {}", code.remedy));
        }
    }
    line(&format!(
        "servers   {} of {} online",
        status.servers_online, status.servers
    ));
    line(&format!(
        "copysets  {} of {} ready",
        status.copysets_ready, status.copysets
    ));
    line(&format!("volumes   {}", status.volumes));
    line(&format!(
        "space     {} of {} used",
        human(status.used),
        human(status.capacity)
    ));
    line(&format!(
        "mds       member {} of {} leads",
        status.mds_leader, status.mds_count
    ));
}
