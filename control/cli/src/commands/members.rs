//! `ogee mds COMMAND`: who belongs to the group of metadata servers.

use super::{ask, backup, strangers};
use crate::args::{Format, MdsCommand};
use crate::error::CliError;
use crate::output::{line, print};
use ogee_client::ControlError;
use ogee_proto::service::{AddMemberRequest, MemberInfo};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long a new member's learning is waited for.
const LEARNING: Duration = Duration::from_secs(120);
/// The metadata server's word that a new member lacks too much.
const BEHIND: &str = "OGEE-2068";

pub(crate) fn run(mds: &[String], what: MdsCommand, format: Format) -> Result<ExitCode, CliError> {
    match what {
        MdsCommand::Ls => list(mds, format)?,
        MdsCommand::Add { id, address } => add(mds, id, &address)?,
        MdsCommand::Rm { id } => remove(mds, id)?,
        MdsCommand::TransferLeader { id } => transfer(mds, id)?,
        MdsCommand::Backup(args) => return backup::run(mds, &args, format),
        MdsCommand::Restore(args) => return backup::restore(&args),
        MdsCommand::Strangers => return strangers::list(mds, format),
        MdsCommand::Discard { volume, yes } => return strangers::discard(mds, volume, yes),
        MdsCommand::AcceptRestore { force } => return strangers::accept(mds, force),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(mds: &[String], format: Format) -> Result<(), CliError> {
    let doing = "cannot list the metadata servers";
    let members = ask(mds, doing, async |client| client.list_members().await)?.members;
    let json = json!({"members": members.iter().map(to_json).collect::<Vec<_>>()});
    let rows = members.iter().map(|member| {
        let said = |text: String| if member.reachable { text } else { "-".into() };
        vec![
            member.id.to_string(),
            member.address.clone(),
            member.role.clone(),
            if member.reachable { "yes" } else { "no" }.to_owned(),
            said(member.term.to_string()),
            said(member.applied.to_string()),
            member.lag.to_string(),
            said(member.version.clone()),
        ]
    });
    let header = [
        "ID", "ADDRESS", "ROLE", "ANSWERS", "TERM", "APPLIED", "LAG", "VERSION",
    ];
    print(format, &json, &header, rows.collect());
    let voters = members.iter().filter(|member| member.role != "learner");
    let voters = voters.count();
    if format == Format::Table && !matches!(voters, 1 | 3 | 5) {
        let less = voters - 1;
        eprintln!("{voters} that vote survive no more failures than {less} do: have 1, 3 or 5");
    }
    Ok(())
}

fn to_json(member: &MemberInfo) -> Value {
    json!({
        "id": member.id, "address": member.address, "role": member.role,
        "reachable": member.reachable, "term": member.term, "applied": member.applied,
        "lag": member.lag, "version": member.version, "cluster_id": member.cluster_id,
    })
}

fn add(mds: &[String], id: u64, address: &str) -> Result<(), CliError> {
    let doing = format!("cannot add metadata server {id}");
    let request = AddMemberRequest {
        id,
        address: address.to_owned(),
    };
    let is_behind = |error: &ControlError| match error {
        ControlError::Refused(refusal) => {
            let fault = refusal.fault();
            fault.is_some_and(|fault| fault.code() == BEHIND)
        }
        _ => false,
    };
    ask(mds, &doing, async |client| {
        let deadline = Instant::now() + LEARNING;
        loop {
            match client.add_member(request.clone()).await {
                // It goes on learning; the same request goes on waiting.
                Err(error) if is_behind(&error) && Instant::now() < deadline => {
                    eprintln!("metadata server {id} is learning");
                }
                answer => return answer,
            }
        }
    })?;
    line(&format!("metadata server {id} at {address} votes"));
    Ok(())
}

fn remove(mds: &[String], id: u64) -> Result<(), CliError> {
    let doing = format!("cannot take metadata server {id} out");
    ask(mds, &doing, async |client| client.remove_member(id).await)?;
    line(&format!(
        "metadata server {id} does not belong to the group any more: stop it; to use it again, empty its data \
         directory, start it with join = true and add it"
    ));
    Ok(())
}

fn transfer(mds: &[String], id: Option<u64>) -> Result<(), CliError> {
    let doing = "cannot transfer the leadership of the metadata";
    let to = id.unwrap_or(0);
    let leader = ask(mds, doing, async |client| {
        client.transfer_leadership(to).await
    })?;
    line(&format!("metadata server {leader} leads"));
    Ok(())
}
