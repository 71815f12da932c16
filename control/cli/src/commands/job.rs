//! `ogee job`, and the jobs that even out leaders and replicas.

use super::ask;
use crate::args::{Format, JobCommand};
use crate::error::{CliError, Exit};
use crate::output::{human, line, print};
use ogee_proto::service::{
    BalanceLeadersRequest, BalanceReplicasRequest, JobInfo, JobName, ListJobsResponse,
    PauseJobsRequest,
};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long transfers that were asked for are waited for: they are given up before.
const TRANSFERS: Duration = Duration::from_secs(30);
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) fn run(mds: &[String], what: JobCommand, format: Format) -> Result<ExitCode, CliError> {
    match what {
        JobCommand::Ls => {
            let listed = listed(mds)?;
            tell_paused(format, listed.paused_since_unix_ms);
            list_all(format, &listed);
        }
        JobCommand::Pause => hold(mds, format, false)?,
        JobCommand::Resume => hold(mds, format, true)?,
        JobCommand::Show { id } => show(format, &one(mds, id)?),
        JobCommand::Cancel { id } => {
            let doing = format!("cannot cancel job {id}");
            let job = ask(mds, &doing, async |client| {
                client.cancel_job(JobName { id }).await
            })?;
            show(format, &job);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn listed(mds: &[String]) -> Result<ListJobsResponse, CliError> {
    let doing = "cannot list jobs";
    ask(mds, doing, async |client| client.list_jobs().await)
}

fn all(mds: &[String]) -> Result<Vec<JobInfo>, CliError> {
    Ok(listed(mds)?.jobs)
}

/// Says that nothing begins, if that is so.
pub(crate) fn tell_paused(format: Format, since_unix_ms: Option<u64>) {
    if let Some(since) = since_unix_ms.filter(|_| format == Format::Table) {
        eprintln!(
            "jobs are paused for {}: none begins until ogee job resume",
            ago(since)
        );
    }
}

fn hold(mds: &[String], format: Format, resume: bool) -> Result<(), CliError> {
    let doing = if resume {
        "cannot let jobs go on"
    } else {
        "cannot pause jobs"
    };
    let since = ask(mds, doing, async |client| {
        client.pause_jobs(PauseJobsRequest { resume }).await
    })?
    .paused_since_unix_ms;
    match (format, since) {
        (Format::Json, since) => line(&format!("{:#}", json!({"paused_since_unix_ms": since}))),
        (Format::Table, None) => line("jobs begin again"),
        (Format::Table, Some(since)) => line(&format!(
            "jobs are paused for {}: none begins until ogee job resume; what had begun goes on",
            ago(since)
        )),
    }
    Ok(())
}

fn one(mds: &[String], id: u64) -> Result<JobInfo, CliError> {
    let found = all(mds)?.into_iter().find(|job| job.id == id);
    found.ok_or_else(|| {
        let what = format!("job {id} does not exist");
        let cause = "jobs that have ended are forgotten when newer ones have";
        CliError::new("OGEE-3203", &what, cause, "ogee job ls").with_exit(Exit::NotFound)
    })
}

fn list(format: Format, jobs: &[JobInfo]) {
    print_jobs(
        format,
        jobs,
        &json!({"jobs": jobs.iter().map(to_json).collect::<Vec<_>>()}),
    );
}

/// Jobs that were not made, and how much they would copy in all.
pub(crate) fn show_plan(format: Format, jobs: &[JobInfo]) {
    list(format, jobs);
    if format == Format::Table {
        let moves = jobs.iter().filter(|job| job.kind != "transfer_leader");
        let stuck = moves.clone().filter(|job| !job.step.is_empty()).count();
        let bytes = moves.clone().filter(|job| job.step.is_empty());
        let bytes = bytes.fold(0u64, |sum, job| sum.saturating_add(job.bytes));
        eprintln!(
            "nothing was done: {} moves of about {}, {stuck} that cannot go now",
            moves.count() - stuck,
            human(bytes)
        );
    }
}

fn list_all(format: Format, listed: &ListJobsResponse) {
    let jobs = listed.jobs.iter().map(to_json).collect::<Vec<_>>();
    let json = json!({"jobs": jobs, "paused_since_unix_ms": listed.paused_since_unix_ms});
    print_jobs(format, &listed.jobs, &json);
}

fn print_jobs(format: Format, jobs: &[JobInfo], json: &Value) {
    let rows = jobs.iter().map(|job| {
        vec![
            job.id.to_string(),
            job.kind.clone(),
            job.state.clone(),
            job.copyset.to_string(),
            job.from.clone(),
            job.to.clone(),
            progress(job),
            left(job.eta_ms),
            job.reason.clone(),
        ]
    });
    let header = [
        "JOB", "KIND", "STATE", "COPYSET", "FROM", "TO", "PROGRESS", "LEFT", "WHY",
    ];
    print(format, json, &header, rows.collect());
}

fn show(format: Format, job: &JobInfo) {
    let rows = [
        ("job", job.id.to_string()),
        ("kind", job.kind.clone()),
        ("state", job.state.clone()),
        ("why", job.reason.clone()),
        ("copyset", job.copyset.to_string()),
        ("replica", job.replica.to_string()),
        ("from", job.from.clone()),
        ("to", format!("{} {}", job.to, job.store)),
        ("progress", progress(job)),
        ("left", left(job.eta_ms)),
        ("priority", job.priority.to_string()),
        ("attempt", job.attempt.to_string()),
        ("made", format!("{} ago", ago(job.created_unix_ms))),
    ];
    let rows = rows
        .into_iter()
        .map(|(key, value)| vec![key.to_owned(), value]);
    print(format, &to_json(job), &["", ""], rows.collect());
}

fn progress(job: &JobInfo) -> String {
    match (job.state.as_str(), job.bytes) {
        ("running", 0) => format!("{} ({} %)", job.step, job.percent),
        ("running", bytes) => format!("{} ({} % of about {})", job.step, job.percent, human(bytes)),
        ("pending", _) => job.step.clone(),
        ("planned", _) if !job.step.is_empty() => job.step.clone(),
        ("planned", 0) => "would move".to_owned(),
        ("planned", bytes) => format!("about {}", human(bytes)),
        _ => format!("ended {} ago", ago(job.ended_unix_ms)),
    }
}

fn to_json(job: &JobInfo) -> Value {
    json!({
        "id": job.id, "kind": job.kind, "state": job.state, "copyset": job.copyset,
        "replica": job.replica, "from": job.from, "to": job.to, "store": job.store,
        "priority": job.priority, "attempt": job.attempt, "step": job.step, "reason": job.reason,
        "bytes": job.bytes, "percent": job.percent, "created_unix_ms": job.created_unix_ms,
        "started_unix_ms": job.started_unix_ms, "ended_unix_ms": job.ended_unix_ms, "eta_ms": job.eta_ms,
    })
}

/// How long something still takes, for people, if that can be said.
pub(crate) fn left(eta_ms: Option<u64>) -> String {
    eta_ms.map_or_else(
        || "-".to_owned(),
        |ms| format!("about {}", span(Duration::from_millis(ms.max(1000)))),
    )
}

/// How long a moment lies back, for people.
pub(crate) fn ago(unix_ms: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    span(now.saturating_sub(Duration::from_millis(unix_ms)))
}

/// A time in the unit that suits it.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `ogee copyset balance-leaders --now`: asks, and waits for the transfers. Exit code 1 when one of them was
/// given up.
pub(crate) fn balance(mds: &[String], format: Format, dry_run: bool) -> Result<ExitCode, CliError> {
    let doing = "cannot even out leaders";
    let asked = ask(mds, doing, async |client| {
        let request = BalanceLeadersRequest { dry_run };
        client.balance_leaders(request).await
    })?
    .jobs;
    if dry_run {
        list(format, &asked);
        return Ok(ExitCode::SUCCESS);
    }
    let mut jobs = asked.clone();
    let deadline = Instant::now() + TRANSFERS;
    while jobs.iter().any(is_live) && Instant::now() < deadline {
        std::thread::sleep(LOOK);
        let all = all(mds)?;
        let newest = |job: &JobInfo| {
            let now = all.iter().find(|now| now.id == job.id).unwrap_or(job);
            // What spoke for it is in the first answer only.
            let reason = job.reason.clone();
            JobInfo {
                reason,
                ..now.clone()
            }
        };
        jobs = asked.iter().map(newest).collect();
    }
    list(format, &jobs);
    Ok(if jobs.iter().all(|job| job.state == "done") {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(Exit::Failed as u8)
    })
}

/// `ogee copyset balance-replicas --now`: asks; the copies take their time.
pub(crate) fn spread(mds: &[String], format: Format, dry_run: bool) -> Result<(), CliError> {
    let doing = "cannot even out replicas";
    let jobs = ask(mds, doing, async |client| {
        let request = BalanceReplicasRequest { dry_run };
        client.balance_replicas(request).await
    })?
    .jobs;
    list(format, &jobs);
    if format == Format::Table {
        let bytes = jobs
            .iter()
            .fold(0u64, |sum, job| sum.saturating_add(job.bytes));
        let what = if dry_run { "would move" } else { "are to move" };
        println!("{} replicas {what}, about {}", jobs.len(), human(bytes));
    }
    Ok(())
}

fn is_live(job: &JobInfo) -> bool {
    matches!(job.state.as_str(), "pending" | "running")
}
