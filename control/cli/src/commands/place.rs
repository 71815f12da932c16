//! `ogee server|device`: what operators want of them.

use super::ask;
use super::confirm::confirm;
use super::{job, maintenance, replace, scrub, show, topology};
use crate::args::{DeviceCommand, DrainArgs, Format, LostArgs, ServerCommand, ZoneCommand};
use crate::drive;
use crate::error::{CliError, Exit};
use crate::output::{human, line, print};
use ogee_proto::service::{
    DevicesName, MarkDevicesRequest, OkToRemoveResponse, OkToStopResponse, ServerName,
};
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn server(
    mds: &[String],
    what: ServerCommand,
    format: Format,
) -> Result<ExitCode, CliError> {
    match what {
        ServerCommand::Ls => topology::servers(mds, format),
        ServerCommand::Show { name } => show::server(mds, &name, format),
        ServerCommand::Drain(args) => drain(mds, &args, format),
        ServerCommand::Lost(args) => lost(mds, "chunkserver", args, format),
        ServerCommand::Maintenance(args) => maintenance::run(mds, args, format),
        ServerCommand::OkToStop { name } => ok_to_stop(mds, name, format),
        ServerCommand::OkToRemove { name } => ok_to_remove(mds, name, format),
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
        DeviceCommand::Show { name } => show::device(mds, &name, format),
        DeviceCommand::Drain(args) => drain(mds, &args, format),
        DeviceCommand::Lost(args) => lost(mds, "device", args, format),
        DeviceCommand::OkToStop { name } => ok_to_stop(mds, name, format),
        DeviceCommand::OkToRemove { name } => ok_to_remove(mds, name, format),
        DeviceCommand::Prepare(args) => drive::prepare(&args, format),
        DeviceCommand::Release(args) => drive::release(&args),
        DeviceCommand::Health(args) => drive::health(mds, &args, format),
        DeviceCommand::Replace(args) => replace::replace(mds, args, format),
        DeviceCommand::Scrub(args) => scrub::scrub(mds, &args, format),
        DeviceCommand::Reinstate { name } => replace::reinstate(mds, name, format),
    }
}

pub(crate) fn zone(
    mds: &[String],
    what: ZoneCommand,
    format: Format,
) -> Result<ExitCode, CliError> {
    match what {
        ZoneCommand::Ls => topology::zones(mds, format),
        ZoneCommand::Show { name } => show::zone(mds, &name, format),
        ZoneCommand::OkToStop { name } => {
            let doing = format!("cannot tell whether zone {name} may stop");
            let answer = ask(mds, &doing, async |client| {
                client.ok_to_stop_zone(DevicesName { name }).await
            })?;
            Ok(tell_stop(format, &answer))
        }
    }
}

fn drain(mds: &[String], args: &DrainArgs, format: Format) -> Result<ExitCode, CliError> {
    let wish = if args.cancel { "" } else { "draining" };
    let name = &args.name;
    if args.dry_run {
        let doing = format!("cannot tell what draining {name} would do");
        let request = DevicesName { name: name.clone() };
        let planned = ask(mds, &doing, async |client| client.plan_drain(request).await)?;
        job::show_plan(format, &planned.jobs);
        return Ok(ExitCode::SUCCESS);
    }
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
    job::tell_paused(format, made.paused_since_unix_ms);
    let json = json!({
        "paused_since_unix_ms": made.paused_since_unix_ms,
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
    Ok(tell_stop(format, &answer))
}

fn tell_stop(format: Format, answer: &OkToStopResponse) -> ExitCode {
    match format {
        Format::Json => line(&format!(
            "{:#}",
            json!({
                "ok": answer.ok, "without_quorum": answer.without_quorum,
                "degraded": answer.degraded,
            })
        )),
        Format::Table => line(&in_words(answer)),
    }
    verdict(answer.ok)
}

fn verdict(ok: bool) -> ExitCode {
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(Exit::Failed as u8)
    }
}

fn ok_to_remove(mds: &[String], name: String, format: Format) -> Result<ExitCode, CliError> {
    let doing = format!("cannot tell whether {name} may be removed");
    let request = DevicesName { name: name.clone() };
    let answer = ask(mds, &doing, async |client| {
        client.ok_to_remove(request).await
    })?;
    match format {
        Format::Json => line(&format!("{:#}", removal_json(&answer))),
        Format::Table => tell_removal(&name, &answer),
    }
    Ok(verdict(answer.ok))
}

fn removal_json(answer: &OkToRemoveResponse) -> serde_json::Value {
    let replicas = answer.replicas.iter().map(|it| {
        json!({
            "copyset": it.copyset, "replica": it.replica, "store": it.store, "to": it.to,
            "to_store": it.to_store, "bytes": it.bytes, "leads": it.leads, "obstacle": it.obstacle,
        })
    });
    json!({"ok": answer.ok, "replicas": replicas.collect::<Vec<_>>(), "mds_voters": answer.mds})
}

fn tell_removal(name: &str, answer: &OkToRemoveResponse) {
    let count = answer.replicas.len();
    let all = answer.replicas.iter();
    let bytes = all
        .clone()
        .fold(0u64, |sum, it| sum.saturating_add(it.bytes));
    let stuck = all.filter(|it| !it.obstacle.is_empty());
    let stuck: Vec<Vec<String>> = stuck
        .map(|it| {
            vec![
                it.copyset.to_string(),
                it.replica.to_string(),
                it.store.clone(),
                it.obstacle.clone(),
            ]
        })
        .collect();
    let what = format!("{count} replicas are there, about {}", human(bytes));
    match (answer.ok, count) {
        (true, 0) => line("yes: it has no replicas"),
        (true, _) => line(&format!(
            "yes: {what}, and each has somewhere to go: drain {name} first"
        )),
        (false, _) if stuck.is_empty() => {
            line(&format!("no: {what}, and each has somewhere to go"));
        }
        (false, _) => {
            let few = stuck.len();
            line(&format!("no: {what}, and {few} of them cannot go:"));
            let header = ["COPYSET", "REPLICA", "STORE", "WHY"];
            print(Format::Table, &json!(null), &header, stuck);
        }
    }
    if !answer.mds.is_empty() {
        let ids: Vec<String> = answer.mds.iter().map(u64::to_string).collect();
        line(&format!(
            "no: metadata server {} votes at its address: ogee mds ok-to-stop, then ogee mds rm",
            ids.join(", ")
        ));
    }
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
