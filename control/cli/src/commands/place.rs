//! `ogee server|device`: what operators want of them.

use super::ask;
use super::confirm::confirm;
use super::{maintenance, replace, scrub, topology};
use crate::args::{DeviceCommand, DrainArgs, Format, LostArgs, ServerCommand};
use crate::drive;
use crate::error::{CliError, Exit};
use crate::output::{line, print};
use ogee_proto::service::{DevicesName, MarkDevicesRequest, OkToStopResponse, ServerName};
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn server(
    mds: &[String],
    what: ServerCommand,
    format: Format,
) -> Result<ExitCode, CliError> {
    match what {
        ServerCommand::Ls => topology::servers(mds, format),
        ServerCommand::Drain(args) => drain(mds, &args, format),
        ServerCommand::Lost(args) => lost(mds, "chunkserver", args, format),
        ServerCommand::Maintenance(args) => maintenance::run(mds, args, format),
        ServerCommand::OkToStop { name } => ok_to_stop(mds, name, format),
        ServerCommand::Rm { name } => {
            let doing = format!("cannot forget chunkserver {name}");
            ask(mds, &doing, async |client| {
                client.remove_server(ServerName { name }).await
            })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

pub(crate) fn device(
    mds: &[String],
    what: DeviceCommand,
    format: Format,
) -> Result<ExitCode, CliError> {
    match what {
        DeviceCommand::Ls { local: false } => topology::devices(mds, format),
        DeviceCommand::Ls { local: true } => drive::ls(format),
        DeviceCommand::Drain(args) => drain(mds, &args, format),
        DeviceCommand::Lost(args) => lost(mds, "device", args, format),
        DeviceCommand::OkToStop { name } => ok_to_stop(mds, name, format),
        DeviceCommand::Prepare(args) => drive::prepare(&args, format),
        DeviceCommand::Release(args) => drive::release(&args),
        DeviceCommand::Health(args) => drive::health(mds, &args, format),
        DeviceCommand::Replace(args) => replace::replace(mds, args, format),
        DeviceCommand::Scrub(args) => scrub::scrub(mds, &args, format),
        DeviceCommand::Reinstate { name } => replace::reinstate(mds, name, format),
    }
}

fn drain(mds: &[String], args: &DrainArgs, format: Format) -> Result<ExitCode, CliError> {
    let wish = if args.cancel { "" } else { "draining" };
    let name = &args.name;
    mark(mds, &format!("cannot drain {name}"), name, wish, format)
}

fn lost(mds: &[String], kind: &str, args: LostArgs, format: Format) -> Result<ExitCode, CliError> {
    let LostArgs { name, yes, cancel } = args;
    if !yes && !cancel {
        let question = format!(
            "What only {kind} {name} has is given up, and its replicas are made anew elsewhere. Type its \
             name: "
        );
        confirm(
            &name,
            &question,
            &format!("{kind} {name} was not declared lost"),
        )?;
    }
    let wish = if cancel { "" } else { "lost" };
    let doing = format!("cannot declare {name} lost");
    mark(mds, &doing, &name, wish, format)
}

fn mark(
    mds: &[String],
    doing: &str,
    name: &str,
    wish: &str,
    format: Format,
) -> Result<ExitCode, CliError> {
    let request = MarkDevicesRequest {
        name: name.to_owned(),
        mark: wish.to_owned(),
    };
    let made = ask(mds, doing, async |client| {
        client.mark_devices(request).await
    })?;
    let json = json!({
        "name": name, "mark": wish, "devices": made.devices, "replicas": made.replicas,
        "jobs_cancelled": made.jobs_cancelled,
    });
    let mark = if wish.is_empty() { "none" } else { wish };
    let row = vec![
        name.to_owned(),
        mark.to_owned(),
        made.devices.to_string(),
        made.replicas.to_string(),
    ];
    let header = ["NAME", "MARK", "DEVICES", "REPLICAS"];
    print(format, &json, &header, vec![row]);
    Ok(ExitCode::SUCCESS)
}

fn ok_to_stop(mds: &[String], name: String, format: Format) -> Result<ExitCode, CliError> {
    let doing = format!("cannot tell whether {name} may stop");
    let answer = ask(mds, &doing, async |client| {
        client.ok_to_stop(DevicesName { name }).await
    })?;
    match format {
        Format::Json => line(&format!(
            "{:#}",
            json!({
                "ok": answer.ok, "without_quorum": answer.without_quorum,
                "degraded": answer.degraded,
            })
        )),
        Format::Table => line(&in_words(&answer)),
    }
    Ok(if answer.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(Exit::Failed as u8)
    })
}

fn in_words(answer: &OkToStopResponse) -> String {
    let names = |ids: &[u32]| {
        ids.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    if !answer.ok {
        return format!(
            "no: these copysets would have no quorum: {}",
            names(&answer.without_quorum)
        );
    }
    match answer.degraded.as_slice() {
        [] => "yes: it has no replicas".to_owned(),
        some => format!(
            "yes: these copysets would go on with fewer replicas: {}",
            names(some)
        ),
    }
}
