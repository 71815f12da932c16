//! What a restore leaves to an operator: `ogee mds strangers`, `discard`, `accept-restore`.

use super::ask;
use super::confirm::confirm;
use super::job::ago;
use crate::args::Format;
use crate::error::CliError;
use crate::output::{line, print};
use ogee_proto::service::{ListStrangersResponse, StrangeReplica, StrangeVolume};
use serde_json::{Value, json};
use std::process::ExitCode;

pub(super) fn list(mds: &[String], format: Format) -> Result<ExitCode, CliError> {
    let doing = "cannot list what the metadata does not know";
    let found = ask(mds, doing, async |client| client.list_strangers().await)?;
    let volumes = found.volumes.iter().map(volume_row);
    let rows = volumes.chain(found.replicas.iter().map(replica_row));
    let header = ["WHAT", "ID", "CHUNKS", "EPOCH", "COPYSETS", "CHUNKSERVERS"];
    print(format, &to_json(&found), &header, rows.collect());
    if format == Format::Table {
        if let Some(restore) = &found.restore {
            let is = if restore.accepted {
                "accepted"
            } else {
                "not accepted yet"
            };
            let (made, restored) = (ago(restore.backup_unix_ms), ago(restore.restored_unix_ms));
            eprintln!("backup of {made} ago, restored {restored} ago, {is}");
        }
        if !found.not_heard.is_empty() {
            let names = found.not_heard.join(", ");
            eprintln!("not known yet what these hold: {names}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn volume_row(volume: &StrangeVolume) -> Vec<String> {
    let held = volume.held.clone().unwrap_or_default();
    let what = match volume.name.as_str() {
        "" => "volume".to_owned(),
        name => format!("removed volume \"{name}\""),
    };
    let copysets = held.copysets.iter().map(ToString::to_string);
    vec![
        what,
        held.volume.to_string(),
        held.chunks.to_string(),
        held.epoch.to_string(),
        copysets.collect::<Vec<_>>().join(","),
        volume.chunkservers.join(","),
    ]
}

fn replica_row(replica: &StrangeReplica) -> Vec<String> {
    vec![
        "replica".into(),
        replica.replica.to_string(),
        String::new(),
        String::new(),
        replica.copyset.to_string(),
        format!("{} {}", replica.chunkserver, replica.store),
    ]
}

fn to_json(found: &ListStrangersResponse) -> Value {
    let volume = |volume: &StrangeVolume| {
        let held = volume.held.clone().unwrap_or_default();
        let name = Some(&volume.name).filter(|name| !name.is_empty());
        json!({
            "id": held.volume, "name": name, "removed": held.removed, "chunks": held.chunks,
            "epoch": held.epoch, "copysets": held.copysets, "chunkservers": volume.chunkservers,
        })
    };
    let replica = |replica: &StrangeReplica| {
        json!({
            "copyset": replica.copyset, "copyset_known": replica.copyset_known,
            "replica": replica.replica, "chunkserver": replica.chunkserver, "store": replica.store,
        })
    };
    let restore = found.restore.as_ref().map(|restore| {
        json!({
            "backup_unix_ms": restore.backup_unix_ms, "restored_unix_ms": restore.restored_unix_ms,
            "applied": restore.applied, "accepted": restore.accepted,
        })
    });
    json!({
        "volumes": found.volumes.iter().map(volume).collect::<Vec<_>>(),
        "replicas": found.replicas.iter().map(replica).collect::<Vec<_>>(),
        "restore": restore,
        "not_heard": found.not_heard,
    })
}

pub(super) fn discard(mds: &[String], volume: u64, yes: bool) -> Result<ExitCode, CliError> {
    let name = volume.to_string();
    if !yes {
        let question = format!("all data of volume {name} will be gone; type its number: ");
        confirm(
            &name,
            &question,
            &format!("volume {name} was not discarded"),
        )?;
    }
    let doing = format!("cannot discard volume {name}");
    ask(mds, &doing, async |client| {
        client.discard_volume(volume).await
    })?;
    line(&format!("the chunks of volume {name} are being freed"));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn accept(mds: &[String], force: bool) -> Result<ExitCode, CliError> {
    let doing = "cannot accept the restored metadata";
    ask(mds, doing, async |client| {
        client.accept_restore(force).await
    })?;
    line("accepted: replicas are made, moved and deleted again");
    Ok(ExitCode::SUCCESS)
}
