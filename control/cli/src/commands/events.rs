//! `ogee events`.

use crate::args::{EventsArgs, Format, span};
use crate::error::CliError;
use crate::output::line;
use crate::settings::wrong;
use ogee_client::{ControlError, MdsClient};
use ogee_proto::service::{EventInfo, ListEventsResponse};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Between two questions for new events.
const LOOK: Duration = Duration::from_millis(500);

/// From where on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Since {
    /// After this sequence number.
    sequence: u64,
    /// Not before this moment.
    unix_ms: u64,
}

pub(crate) fn run(mds: &[String], args: &EventsArgs, format: Format) -> Result<ExitCode, CliError> {
    let since = args.since.as_deref().map_or(Ok(Since::default()), since)?;
    super::ask(mds, "cannot list events", async |client| {
        if args.follow {
            follow(&client, since, format).await
        } else {
            once(&client, since, format).await
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn once(client: &MdsClient, since: Since, format: Format) -> Result<(), ControlError> {
    let mut answer = client.list_events(since.sequence).await?;
    answer.events.retain(|event| event.unix_ms >= since.unix_ms);
    if format == Format::Json {
        let events: Vec<Value> = answer.events.iter().map(to_json).collect();
        let missed = missed(&answer, since);
        let all = json!({"events": events, "missed": missed, "newest": answer.newest});
        line(&format!("{all:#}"));
        return Ok(());
    }
    tell(&answer, since, format);
    Ok(())
}

/// Until it is interrupted. With no metadata server to ask it goes on asking, and says so once.
async fn follow(client: &MdsClient, since: Since, format: Format) -> Result<(), ControlError> {
    let mut since = since;
    let mut is_first = true;
    let mut is_away = false;
    loop {
        match client.list_events(since.sequence).await {
            Ok(mut answer) => {
                answer.events.retain(|event| event.unix_ms >= since.unix_ms);
                tell(&answer, since, format);
                since = Since {
                    sequence: answer.newest.max(since.sequence),
                    unix_ms: 0,
                };
                (is_first, is_away) = (false, false);
            }
            Err(error) if is_first => return Err(error),
            Err(error) => {
                if !std::mem::replace(&mut is_away, true) {
                    eprintln!("no answer, asking again: {error}");
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Events that are not kept any more, of those that were asked for by number.
const fn missed(answer: &ListEventsResponse, since: Since) -> u64 {
    match since.sequence {
        0 => 0,
        _ => answer.missed,
    }
}

fn tell(answer: &ListEventsResponse, since: Since, format: Format) {
    let missed = missed(answer, since);
    if missed > 0 {
        match format {
            Format::Json => line(&json!({"missed": missed}).to_string()),
            Format::Table => line(&format!("({missed} events are not kept any more)")),
        }
    }
    for event in &answer.events {
        match format {
            Format::Json => line(&to_json(event).to_string()),
            Format::Table => line(&format!(
                "{:>6} {} {:4} {:18} {}",
                event.sequence,
                clock(event.unix_ms),
                event.severity,
                event.kind,
                event.text
            )),
        }
    }
}

fn to_json(event: &EventInfo) -> Value {
    json!({
        "sequence": event.sequence, "unix_ms": event.unix_ms, "kind": event.kind,
        "severity": event.severity, "subject": event.subject, "text": event.text,
    })
}

/// Date and time of day in UTC.
fn clock(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of year 0, in eras of 400 years: the leap day is a year's last.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{of_month:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

fn since(text: &str) -> Result<Since, CliError> {
    let refused = || {
        let remedy = "a sequence number, or a time ago such as 90s, 15m, 2h, 1d";
        wrong("cannot use --since", &format!("{text:?}"), remedy)
    };
    if let Ok(sequence) = text.parse() {
        return Ok(Since {
            sequence,
            unix_ms: 0,
        });
    }
    let ago = span(text).map_err(|_| refused())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = now.unwrap_or_default().saturating_sub(ago).as_millis();
    Ok(Since {
        sequence: 0,
        unix_ms: u64::try_from(since).map_err(|_| refused())?,
    })
}

#[cfg(test)]
mod tests {
    use super::{clock, since};

    #[test]
    fn times_are_of_the_calendar() {
        assert_eq!(clock(0), "1970-01-01T00:00:00Z");
        assert_eq!(clock(951_782_399_000), "2000-02-28T23:59:59Z");
        assert_eq!(clock(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(clock(1_709_251_199_000), "2024-02-29T23:59:59Z");
        assert_eq!(clock(1_767_225_600_000), "2026-01-01T00:00:00Z");
        assert_eq!(clock(4_107_542_400_000), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn since_is_a_number_or_a_time() {
        assert_eq!(since("17").unwrap().sequence, 17);
        let (hour, day) = (since("1h").unwrap(), since("1d").unwrap());
        assert!(hour.unix_ms > day.unix_ms && day.unix_ms > 0);
        for wrong in ["", "x", "5w", "-3", "99999999999999999999d"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
