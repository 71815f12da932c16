//! `ogee copyset`.

use super::ask;
use super::digest::{self, Compared, DigestError, Holdings};
use super::job;
use super::reset;
use crate::args::{CopysetCommand, Format};
use crate::error::{CliError, Exit, chain};
use crate::output::print;
use ogee_proto::service::{CopysetInfo, ReplaceReplicaRequest, ReplicaInfo, TransferLeaderRequest};
use serde_json::{Value, json};
use std::process::ExitCode;

pub(crate) fn run(
    mds: &[String],
    what: CopysetCommand,
    format: Format,
) -> Result<ExitCode, CliError> {
    match what {
        CopysetCommand::Ls => list(format, &all(mds)?),
        CopysetCommand::Check { id } => return check(mds, id, format),
        CopysetCommand::Show { id } => show(format, &one(mds, id)?),
        CopysetCommand::Replace { id, replica, to } => replace(mds, format, (id, replica), to)?,
        CopysetCommand::Reset {
            id,
            from,
            dry_run,
            yes,
        } => reset::run(mds, format, (id, from), dry_run, yes)?,
        CopysetCommand::TransferLeader { id, to } => transfer(mds, id, &to)?,
        CopysetCommand::BalanceLeaders { dry_run, .. } => {
            return job::balance(mds, format, dry_run);
        }
        CopysetCommand::BalanceReplicas { dry_run, .. } => job::spread(mds, format, dry_run)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn all(mds: &[String]) -> Result<Vec<CopysetInfo>, CliError> {
    let doing = "cannot list copysets";
    Ok(ask(mds, doing, async |client| client.list_copysets().await)?.copysets)
}

fn one(mds: &[String], id: u32) -> Result<CopysetInfo, CliError> {
    all(mds)?
        .into_iter()
        .find(|copyset| copyset.id == id)
        .ok_or_else(|| {
            let what = format!("copyset {id} does not exist");
            CliError::new("OGEE-3201", &what, "", "ogee copyset ls").with_exit(Exit::NotFound)
        })
}

fn list(format: Format, copysets: &[CopysetInfo]) {
    let json = copysets.iter().map(copyset_json);
    let json = json!({"copysets": json.collect::<Vec<_>>()});
    let rows = copysets.iter().map(|copyset| {
        let leader = copyset
            .replicas
            .iter()
            .find(|r| r.id == copyset.leader_replica);
        let replicas = copyset.replicas.iter().map(short);
        vec![
            copyset.id.to_string(),
            copyset.pool.clone(),
            leader
                .map_or("none", |replica| replica.chunkserver_name.as_str())
                .to_owned(),
            copyset.term.to_string(),
            replicas.collect::<Vec<_>>().join(" "),
        ]
    });
    print(
        format,
        &json,
        &["COPYSET", "POOL", "LEADER", "TERM", "REPLICAS"],
        rows.collect(),
    );
}

fn copyset_json(copyset: &CopysetInfo) -> Value {
    let replicas = copyset.replicas.iter().chain(&copyset.leaving);
    let replicas = replicas.map(|replica| {
        json!({
            "id": replica.id, "chunkserver": replica.chunkserver_name, "zone": replica.zone,
            "store": replica.store, "endpoint": replica.endpoint, "online": replica.online,
            "role": replica.role, "state": replica.state,
            "applied": replica.applied, "last_log": replica.last_log,
            "leader": replica.id == copyset.leader_replica, "eta_ms": replica.eta_ms,
        })
    });
    json!({
        "id": copyset.id, "pool": copyset.pool, "term": copyset.term,
        "formed": copyset.formed, "replicas": replicas.collect::<Vec<_>>(),
    })
}

/// Its chunkserver, and what is not as it should be.
fn short(replica: &ReplicaInfo) -> String {
    let name = &replica.chunkserver_name;
    let words = [
        (replica.role != "voter").then(|| replica.role.clone()),
        (replica.state != "ok").then(|| replica.state.clone()),
        replica
            .eta_ms
            .map(|_| format!("{} left", job::left(replica.eta_ms))),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    match words.as_slice() {
        [] => name.clone(),
        some => format!("{name}({})", some.join(", ")),
    }
}

fn show(format: Format, copyset: &CopysetInfo) {
    let replicas = copyset.replicas.iter().chain(&copyset.leaving);
    let rows = replicas.map(|replica| {
        let leads = replica.id == copyset.leader_replica;
        let role = if leads { "leader" } else { &replica.role };
        vec![
            replica.id.to_string(),
            replica.chunkserver_name.clone(),
            replica.zone.clone(),
            replica.store.clone(),
            role.to_owned(),
            replica.state.clone(),
            replica.applied.to_string(),
            replica.last_log.to_string(),
            job::left(replica.eta_ms),
        ]
    });
    print(
        format,
        &copyset_json(copyset),
        &[
            "REPLICA",
            "CHUNKSERVER",
            "ZONE",
            "STORE",
            "ROLE",
            "STATE",
            "APPLIED",
            "LAST LOG",
            "LEFT",
        ],
        rows.collect(),
    );
}

fn replace(
    mds: &[String],
    format: Format,
    (copyset, replica): (u32, u64),
    to: String,
) -> Result<(), CliError> {
    let doing = format!("cannot replace replica {replica} of copyset {copyset}");
    let request = ReplaceReplicaRequest {
        copyset,
        replica,
        to,
    };
    let made = ask(mds, &doing, async |client| {
        client.replace_replica(request.clone()).await
    })?;
    let json = json!({"copyset": copyset, "replica": made.replica, "store": made.store});
    let row = vec![
        copyset.to_string(),
        replica.to_string(),
        made.replica.to_string(),
        made.store,
    ];
    print(
        format,
        &json,
        &["COPYSET", "REPLACED", "NEW REPLICA", "STORE"],
        vec![row],
    );
    Ok(())
}

fn transfer(mds: &[String], id: u32, to: &str) -> Result<(), CliError> {
    let copyset = one(mds, id)?;
    let target = copyset
        .replicas
        .iter()
        .find(|replica| replica.chunkserver_name == to);
    let Some(target) = target else {
        let what = format!("{to} has no replica of copyset {id}");
        return Err(CliError::new("OGEE-3202", &what, "", "ogee copyset ls"));
    };
    let request = TransferLeaderRequest {
        copyset: id,
        to_replica: target.id,
    };
    let doing = format!("cannot move the leader of copyset {id}");
    ask(mds, &doing, async |client| {
        client.transfer_leader(request).await
    })?;
    Ok(())
}

fn check(mds: &[String], id: Option<u32>, format: Format) -> Result<ExitCode, CliError> {
    let copysets = match id {
        Some(id) => vec![one(mds, id)?],
        None => all(mds)?,
    };
    let mut results = Vec::new();
    for copyset in &copysets {
        let collected = ogee_runtime::executor::block_on(digest::collect(copyset));
        results.push((
            copyset,
            collected.map(|replicas| (verdict(&replicas), replicas)),
        ));
    }
    let agree = results.iter().all(|(_, result)| {
        result
            .as_ref()
            .is_ok_and(|(differences, _)| differences.is_empty())
    });
    let json = results
        .iter()
        .map(|(copyset, result)| result_json(copyset, result));
    let json = json!({"agree": agree, "copysets": json.collect::<Vec<_>>()});
    let rows = results
        .iter()
        .map(|(copyset, result)| result_row(copyset, result));
    print(
        format,
        &json,
        &["COPYSET", "INDEX", "CHUNKS", "RESULT"],
        rows.collect(),
    );
    Ok(if agree {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(Exit::Failed as u8)
    })
}

/// Everything that keeps the replicas from being equal, in words.
fn verdict(replicas: &Compared) -> Vec<String> {
    let mut differences = Vec::new();
    let mut reference: Option<(&String, &Holdings)> = None;
    for (name, holdings) in replicas {
        match (holdings, reference) {
            (Err(error), _) => differences.push(chain(error)),
            (Ok(holdings), None) => reference = Some((name, holdings)),
            (Ok(holdings), Some((first, expected))) => {
                compare(first, expected, name, holdings, &mut differences);
            }
        }
    }
    differences
}

fn compare(
    first: &str,
    expected: &Holdings,
    name: &str,
    found: &Holdings,
    differences: &mut Vec<String>,
) {
    if expected.applied != found.applied {
        differences.push(format!("{name} digested another log index than {first}"));
    }
    let keys = expected.chunks.keys().chain(found.chunks.keys());
    let keys: std::collections::BTreeSet<_> = keys.collect();
    for key in keys {
        if expected.chunks.get(key) != found.chunks.get(key) {
            let (volume, chunk) = key;
            differences.push(format!("{name} differs from {first} in {volume}/{chunk}"));
        }
    }
}

fn result_json(
    copyset: &CopysetInfo,
    result: &Result<(Vec<String>, Compared), DigestError>,
) -> Value {
    match result {
        Err(error) => json!({"id": copyset.id, "agree": false, "differences": [chain(error)]}),
        Ok((differences, replicas)) => {
            let holdings = replicas
                .values()
                .find_map(|holdings| holdings.as_ref().ok());
            json!({
                "id": copyset.id,
                "agree": differences.is_empty(),
                "applied_index": holdings.map_or(0, |holdings| holdings.applied.1),
                "chunks": holdings.map_or(0, |holdings| holdings.chunks.len()),
                "replicas": replicas.keys().collect::<Vec<_>>(),
                "differences": differences,
            })
        }
    }
}

fn result_row(
    copyset: &CopysetInfo,
    result: &Result<(Vec<String>, Compared), DigestError>,
) -> Vec<String> {
    let id = copyset.id.to_string();
    match result {
        Err(error) => vec![id, String::from("-"), String::from("-"), chain(error)],
        Ok((differences, replicas)) => {
            let holdings = replicas
                .values()
                .find_map(|holdings| holdings.as_ref().ok());
            let text = match differences.as_slice() {
                [] => String::from("replicas agree"),
                some => some.join("; "),
            };
            vec![
                id,
                holdings
                    .map_or(0, |holdings| holdings.applied.1)
                    .to_string(),
                holdings
                    .map_or(0, |holdings| holdings.chunks.len())
                    .to_string(),
                text,
            ]
        }
    }
}
