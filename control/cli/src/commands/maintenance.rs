//! `ogee server maintenance`: a chunkserver is about to be stopped for a while.

use super::ask;
use super::job::{ago, span};
use crate::args::{Format, MaintenanceArgs};
use crate::error::{CliError, Exit};
use crate::output::line;
use ogee_proto::service::{DevicesName, MaintenanceRequest, MaintenanceResponse, ServerInfo};
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long leaders are waited for: a chunkserver that just came back is no target for half a minute.
const LEADERS: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Exit code 1: it is not to be stopped yet.
pub(crate) fn run(
    mds: &[String],
    args: MaintenanceArgs,
    format: Format,
) -> Result<ExitCode, CliError> {
    let MaintenanceArgs { name, time, cancel } = args;
    let doing = format!("cannot put {name} into maintenance");
    let request = MaintenanceRequest {
        name: name.clone(),
        for_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        cancel,
    };
    let made = ask(mds, &doing, async |client| {
        client.set_maintenance(request.clone()).await
    })?;
    if cancel {
        let text = format!("{name} is in no maintenance");
        tell(
            format,
            &name,
            &made,
            Verdict {
                leaders: 0,
                may_stop: false,
                text,
            },
        );
        return Ok(ExitCode::SUCCESS);
    }
    let verdict = until_it_may_stop(mds, &name, &made)?;
    let code = match verdict.may_stop {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(Exit::Failed as u8),
    };
    tell(format, &name, &made, verdict);
    Ok(code)
}

/// Whether it may be stopped, and why not.
struct Verdict {
    leaders: u32,
    may_stop: bool,
    text: String,
}

/// Waits until it leads nothing.
fn until_it_may_stop(
    mds: &[String],
    name: &str,
    made: &MaintenanceResponse,
) -> Result<Verdict, CliError> {
    let deadline = Instant::now() + LEADERS;
    let left = span(until(made.until_unix_ms));
    let mut server = look(mds, name)?;
    while server.online && server.leaders > 0 && Instant::now() < deadline {
        std::thread::sleep(LOOK);
        server = look(mds, name)?;
    }
    let leaders = server.leaders;
    let verdict = |may_stop: bool, text: String| Verdict {
        leaders,
        may_stop,
        text,
    };
    if !server.online {
        let since = match server.absent_since_unix_ms {
            0 => String::new(),
            since => format!(" for {}", ago(since)),
        };
        let text = format!("{name} is offline{since}; what it has is not made anew for {left}");
        return Ok(verdict(true, text));
    }
    if leaders > 0 {
        let text = format!(
            "not yet: {name} still leads {leaders} copysets, which nobody else can take over; ogee status says why. \
             Then again, or: ogee server maintenance {name} --cancel"
        );
        return Ok(verdict(false, text));
    }
    // Others may have gone since it began.
    let doing = format!("cannot tell whether {name} may stop");
    let asked = ask(mds, &doing, async |client| {
        let name = name.to_owned();
        client.ok_to_stop(DevicesName { name }).await
    })?;
    if !asked.ok {
        let ids: Vec<String> = asked.without_quorum.iter().map(u32::to_string).collect();
        let text = format!(
            "not now: these copysets would have no quorum without {name}: {}",
            ids.join(" ")
        );
        return Ok(verdict(false, text));
    }
    let text = format!(
        "{name} leads nothing and may be stopped now; what it has is not made anew for {left}. When it is back: ogee \
         server maintenance {name} --cancel"
    );
    Ok(verdict(true, text))
}

fn look(mds: &[String], name: &str) -> Result<ServerInfo, CliError> {
    let doing = "cannot list chunkservers";
    let servers = ask(mds, doing, async |client| client.list_servers().await)?.servers;
    let found = servers.into_iter().find(|server| server.name == name);
    found.ok_or_else(|| {
        let what = format!("chunkserver {name} does not exist");
        CliError::new(
            "OGEE-3204",
            &what,
            "it was forgotten meanwhile",
            "ogee server ls",
        )
        .with_exit(Exit::NotFound)
    })
}

fn tell(format: Format, name: &str, made: &MaintenanceResponse, verdict: Verdict) {
    match format {
        Format::Table => line(&verdict.text),
        Format::Json => line(&format!(
            "{:#}",
            json!({
                "name": name, "until_unix_ms": made.until_unix_ms, "replicas": made.replicas,
                "online": made.online, "leaders": verdict.leaders, "may_stop": verdict.may_stop,
            })
        )),
    }
}

/// How long it is until a moment.
pub(crate) fn until(unix_ms: u64) -> Duration {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Duration::from_millis(unix_ms).saturating_sub(now)
}
