//! `ogee device replace|reinstate`.

use super::{ask, job};
use crate::args::{Format, ReplaceArgs};
use crate::error::CliError;
use crate::output::{human, line, print};
use ogee_proto::service::{DevicesName, ReplaceDeviceRequest};
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn replace(
    mds: &[String],
    args: ReplaceArgs,
    format: Format,
) -> Result<ExitCode, CliError> {
    let ReplaceArgs {
        old,
        new,
        cancel,
        dry_run,
    } = args;
    let doing = format!("cannot replace device {old}");
    let request = ReplaceDeviceRequest {
        old: old.clone(),
        new: new.clone(),
        cancel,
    };
    if dry_run {
        let planned = ask(mds, &doing, async |client| {
            client.plan_replacement(request).await
        })?;
        job::show_plan(format, &planned.jobs);
        return Ok(ExitCode::SUCCESS);
    }
    let made = ask(mds, &doing, async |client| {
        client.replace_device(request).await
    })?;
    let next = next(cancel, made.replicas);
    let json = json!({
        "old": old, "new": new, "cancelled": cancel, "replicas": made.replicas, "bytes": made.bytes,
        "free_bytes": made.free, "jobs_cancelled": made.jobs_cancelled, "next": next,
    });
    let row = vec![
        old,
        if cancel { "-".to_owned() } else { new },
        made.replicas.to_string(),
        format!("about {}", human(made.bytes)),
        human(made.free),
    ];
    let header = ["OLD", "NEW", "REPLICAS LEFT", "TO MOVE", "ROOM"];
    print(format, &json, &header, vec![row]);
    if matches!(format, Format::Table) {
        line(next);
    }
    Ok(ExitCode::SUCCESS)
}

const fn next(cancel: bool, replicas: u32) -> &'static str {
    match (cancel, replicas) {
        (true, _) => "what has not begun to move stays; what is being copied goes on: ogee job ls",
        (false, 0) => {
            "it is empty: take it out of its chunkserver's configuration, restart that (ogee server ok-to-stop), and \
             pull it"
        }
        (false, _) => {
            "ogee job ls shows how far it is; when ogee device ls says empty, the same command says what to do next"
        }
    }
}

pub(crate) fn reinstate(
    mds: &[String],
    name: String,
    format: Format,
) -> Result<ExitCode, CliError> {
    let doing = format!("cannot take {name} back");
    let request = DevicesName { name: name.clone() };
    let made = ask(mds, &doing, async |client| {
        client.reinstate_devices(request).await
    })?;
    let json = json!({"name": name, "devices": made.devices});
    let row = vec![name, made.devices.to_string()];
    print(format, &json, &["NAME", "DEVICES"], vec![row]);
    Ok(ExitCode::SUCCESS)
}
