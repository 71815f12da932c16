//! `ogee mds COMMAND`: who belongs to the group of metadata servers.

use super::{ask, backup, strangers};
use crate::args::{Format, MdsCommand};
use crate::error::{CliError, Exit};
use crate::output::{line, print};
use ogee_client::ControlError;
use ogee_proto::service::{AddMemberRequest, MemberInfo};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long a new member's learning is waited for.
const LEARNING: Duration = Duration::from_secs(120);
/// How long members that are at different log entries are asked again.
const SETTLING: Duration = Duration::from_secs(10);
/// Between two of these questions.
const CHECK_PAUSE: Duration = Duration::from_millis(200);
/// The metadata server's word that a new member lacks too much.
const BEHIND: &str = "OGEE-2068";

pub(crate) fn run(mds: &[String], what: MdsCommand, format: Format) -> Result<ExitCode, CliError> {
    match what {
        MdsCommand::Ls => list(mds, format)?,
        MdsCommand::Show { id } => show(mds, id, format)?,
        MdsCommand::Check => return check(mds, format),
        MdsCommand::Add { id, address } => add(mds, id, &address)?,
        MdsCommand::Rm { id } => remove(mds, id)?,
        MdsCommand::OkToStop { id } => return ok_to_stop(mds, id, format),
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
    let members = ask(mds, doing, async |client| client.list_members(false).await)?.members;
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
            said(commands(member)),
        ]
    });
    let header = [
        "ID", "ADDRESS", "ROLE", "ANSWERS", "TERM", "APPLIED", "LAG", "VERSION", "COMMANDS",
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

/// The version of the metadata's commands that it understands. A release from before there were any says none.
fn commands(member: &MemberInfo) -> String {
    member.commands.max(1).to_string()
}

/// Whether all hold the same metadata, which is only comparable as of the same log entry.
fn check(mds: &[String], format: Format) -> Result<ExitCode, CliError> {
    let doing = "cannot compare the metadata servers";
    let (members, verdict) = ask(mds, doing, async |client| {
        let deadline = Instant::now() + SETTLING;
        loop {
            let members = client.list_members(true).await?.members;
            let verdict = verdict(&members);
            if verdict.is_some() || Instant::now() >= deadline {
                return Ok((members, verdict));
            }
            tokio::time::sleep(CHECK_PAUSE).await;
        }
    })?;
    let silent = members.iter().filter(|member| !member.reachable);
    let silent: Vec<String> = silent.map(|member| member.id.to_string()).collect();
    if !silent.is_empty() {
        let because = format!("no answer from metadata server {}", silent.join(", "));
        let remedy = "start it, or take it out of the group: ogee mds ls, ogee mds rm";
        return Err(CliError::new("OGEE-3407", doing, &because, remedy));
    }
    let Some(agree) = verdict else {
        let because = "they were at different log entries each time: the metadata changes, or one does not catch up";
        let remedy = "ogee mds ls shows who lags; again when less is changed";
        return Err(CliError::new("OGEE-3408", doing, because, remedy));
    };
    let json = json!({"agree": agree, "members": members.iter().map(|member| json!({
        "id": member.id, "applied": member.applied, "digest": member.digest,
    })).collect::<Vec<_>>()});
    let rows = members.iter().map(|member| {
        vec![
            member.id.to_string(),
            member.applied.to_string(),
            member.digest.clone(),
        ]
    });
    print(format, &json, &["ID", "APPLIED", "DIGEST"], rows.collect());
    if agree {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "the metadata servers differ: stop one that differs from the others, empty its data directory and take it in \
         anew (ogee mds rm, ogee mds add); make a backup first (ogee mds backup)"
    );
    Ok(ExitCode::FAILURE)
}

/// Whether they agree; nothing while they cannot be compared.
fn verdict(members: &[MemberInfo]) -> Option<bool> {
    let first = members.first()?;
    let is_comparable = |it: &MemberInfo| it.reachable && it.applied == first.applied;
    let comparable = members.iter().all(is_comparable);
    comparable.then(|| members.iter().all(|it| it.digest == first.digest))
}

fn to_json(member: &MemberInfo) -> Value {
    json!({
        "id": member.id, "address": member.address, "role": member.role,
        "reachable": member.reachable, "term": member.term, "applied": member.applied,
        "lag": member.lag, "version": member.version,
        "commands": member.commands.max(1), "group_commands": member.group_commands.max(1),
        "cluster_id": member.cluster_id,
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

fn show(mds: &[String], id: u64, format: Format) -> Result<(), CliError> {
    let doing = format!("cannot show metadata server {id}");
    let members = ask(mds, &doing, async |client| client.list_members(false).await)?.members;
    let found = members.iter().find(|member| member.id == id);
    let member = found.ok_or_else(|| no_member(id))?;
    let Some(left) = Left::without(&members, id) else {
        return Err(no_member(id));
    };
    let json = json!({"member": to_json(member), "ok_to_stop": left.ok()});
    let said = |text: String| if member.reachable { text } else { "-".into() };
    let rows = [
        ("metadata server", id.to_string()),
        ("address", member.address.clone()),
        ("role", member.role.clone()),
        (
            "answers",
            if member.reachable { "yes" } else { "no" }.to_owned(),
        ),
        ("term", said(member.term.to_string())),
        ("applied", said(member.applied.to_string())),
        ("entries that it lacks", member.lag.to_string()),
        ("version", said(member.version.clone())),
        (
            "commands",
            said(format!(
                "{}, the group uses {}",
                commands(member),
                member.group_commands.max(1)
            )),
        ),
        ("cluster", said(member.cluster_id.clone())),
        ("may it stop", left.in_words(id)),
    ];
    let rows = rows
        .into_iter()
        .map(|(key, value)| vec![key.to_owned(), value]);
    print(format, &json, &["", ""], rows.collect());
    Ok(())
}

fn no_member(id: u64) -> CliError {
    let what = format!("metadata server {id} does not belong to the group");
    CliError::new("OGEE-3205", &what, "", "ogee mds ls").with_exit(Exit::NotFound)
}

/// Whether a majority answers without that one.
fn ok_to_stop(mds: &[String], id: u64, format: Format) -> Result<ExitCode, CliError> {
    let doing = format!("cannot tell whether metadata server {id} may stop");
    let members = ask(mds, &doing, async |client| client.list_members(false).await)?.members;
    let left = Left::without(&members, id).ok_or_else(|| no_member(id))?;
    let json = json!({
        "ok": left.ok(), "voters": left.voters, "needed": left.needed(), "answering_without_it": left.answering,
        "silent": left.silent,
    });
    match format {
        Format::Json => line(&format!("{json:#}")),
        Format::Table => line(&left.in_words(id)),
    }
    Ok(if left.ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(Exit::Failed as u8)
    })
}

/// What is left of the voters without one member.
struct Left {
    voters: usize,
    votes: bool,
    /// Of the others.
    answering: usize,
    silent: Vec<u64>,
}

impl Left {
    fn without(members: &[MemberInfo], id: u64) -> Option<Self> {
        let one = members.iter().find(|member| member.id == id)?;
        let is_voter = |member: &&MemberInfo| member.role != "learner";
        let others = || members.iter().filter(is_voter).filter(|it| it.id != id);
        let silent = others().filter(|it| !it.reachable);
        Some(Self {
            voters: members.iter().filter(is_voter).count(),
            votes: is_voter(&one),
            answering: others().filter(|it| it.reachable).count(),
            silent: silent.map(|it| it.id).collect(),
        })
    }

    const fn needed(&self) -> usize {
        self.voters / 2 + 1
    }

    const fn ok(&self) -> bool {
        self.answering >= self.needed()
    }

    fn in_words(&self, id: u64) -> String {
        let (answering, voters, needed) = (self.answering, self.voters, self.needed());
        let count =
            format!("without it {answering} of {voters} that vote answer, and {needed} are needed");
        let silent: Vec<String> = self.silent.iter().map(u64::to_string).collect();
        let remedy = match silent.as_slice() {
            [] => "add others first: ogee mds add".to_owned(),
            some => format!("first start metadata server {}", some.join(", ")),
        };
        match (self.ok(), self.votes) {
            (true, true) => format!("yes: {count}"),
            (true, false) => "yes: it does not vote".to_owned(),
            (false, true) => format!(
                "no: {count}. Volumes that are attached go on, but nothing is attached, changed or healed meanwhile; {remedy}"
            ),
            (false, false) => {
                format!("no: metadata server {id} does not vote, but {count}; {remedy}")
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, applied: u64, digest: &str) -> MemberInfo {
        MemberInfo {
            id,
            applied,
            digest: digest.into(),
            reachable: true,
            ..MemberInfo::default()
        }
    }

    #[test]
    fn one_may_stop_if_a_majority_answers_without_it() {
        let voter = |id: u64, reachable: bool| MemberInfo {
            role: "voter".into(),
            reachable,
            ..member(id, 1, "")
        };
        let without =
            |members: &[MemberInfo], id: u64| Left::without(members, id).expect("a member");
        let three = [voter(1, true), voter(2, true), voter(3, true)];
        assert!(without(&three, 2).ok());
        assert!(Left::without(&three, 4).is_none());
        let two = [voter(1, true), voter(2, true), voter(3, false)];
        let left = without(&two, 2);
        assert!(!left.ok());
        assert!(left.in_words(2).contains("first start metadata server 3"));
        assert!(without(&two, 3).ok(), "it does not answer anyway");
        let alone = without(&[voter(1, true)], 1);
        assert!(!alone.ok() && alone.in_words(1).contains("ogee mds add"));
        let mut learner = voter(4, true);
        learner.role = "learner".into();
        let left = without(&[voter(1, true), learner], 4);
        assert!(left.ok() && left.in_words(4).contains("does not vote"));
    }

    #[test]
    fn digests_count_at_the_same_entry_only() {
        let same = [member(1, 7, "a"), member(2, 7, "a")];
        assert_eq!(verdict(&same), Some(true));
        assert_eq!(
            verdict(&[member(1, 7, "a"), member(2, 7, "b")]),
            Some(false)
        );
        assert_eq!(verdict(&[member(1, 7, "a"), member(2, 8, "a")]), None);
        let mut silent = same;
        silent[1].reachable = false;
        assert_eq!(verdict(&silent), None);
        assert_eq!(verdict(&[]), None);
    }
}
