//! `ogee copyset reset`: one replica goes on without a majority that is lost.

use super::ask;
use super::confirm::confirm;
use crate::args::Format;
use crate::error::CliError;
use crate::output::{line, print};
use ogee_proto::service::{ResetCopysetRequest, ResetCopysetResponse};
use serde_json::json;

/// Tells what may be lost, has it confirmed, and does it.
pub(crate) fn run(
    mds: &[String],
    format: Format,
    (copyset, from): (u32, String),
    dry_run: bool,
    yes: bool,
) -> Result<(), CliError> {
    let request = |from: &str, dry_run| ResetCopysetRequest {
        copyset,
        from: from.to_owned(),
        dry_run,
    };
    let doing = format!("cannot reset copyset {copyset}");
    let plan = ask(mds, &doing, async |client| {
        client.reset_copyset(request(&from, true)).await
    })?;
    if dry_run {
        tell(format, copyset, &plan);
        return Ok(());
    }
    if !yes {
        let question = format!(
            "{}\nType the copyset's number to go on with that replica alone: ",
            in_words(copyset, &plan)
        );
        let otherwise = format!("copyset {copyset} was not reset");
        confirm(&copyset.to_string(), &question, &otherwise)?;
    }
    // The one that was told of, whoever is furthest by now.
    let done = ask(mds, &doing, async |client| {
        client.reset_copyset(request(&plan.store, false)).await
    })?;
    tell(format, copyset, &done);
    Ok(())
}

fn in_words(copyset: u32, plan: &ResetCopysetResponse) -> String {
    let volumes = match plan.volume_count {
        0 => "No volume has chunks there".to_owned(),
        some => {
            let more = u64::from(some).saturating_sub(plan.volumes.len() as u64);
            let names = plan.volumes.join(", ");
            let names = match more {
                0 => names,
                more => format!("{names} and {more} more"),
            };
            format!("{some} volumes have {} chunks there: {names}", plan.chunks)
        }
    };
    format!(
        "Copyset {copyset} goes on with the replica on {} alone, which ends with entry {}. The replicas on {} are given up \
         for good, also if they come back. Whatever only they have is lost: writes that were acknowledged while {} was away \
         or behind. Blocks of one volume may then be of different times.\n{volumes}.",
        plan.chunkserver,
        plan.last_log,
        plan.given_up.join(", "),
        plan.chunkserver,
    )
}

fn tell(format: Format, copyset: u32, made: &ResetCopysetResponse) {
    let json = json!({
        "copyset": copyset, "replica": made.replica, "from_replica": made.from_replica,
        "chunkserver": made.chunkserver, "store": made.store, "last_log": made.last_log,
        "given_up": made.given_up, "volumes": made.volumes, "volume_count": made.volume_count,
        "chunks": made.chunks,
    });
    if format == Format::Table && made.replica == 0 {
        return line(&in_words(copyset, made));
    }
    let row = vec![
        copyset.to_string(),
        made.chunkserver.clone(),
        made.replica.to_string(),
        made.given_up.join(" "),
        made.volume_count.to_string(),
    ];
    let header = ["COPYSET", "GOES ON", "NEW REPLICA", "GIVEN UP", "VOLUMES"];
    print(format, &json, &header, vec![row]);
}

#[cfg(test)]
mod tests {
    use super::in_words;
    use ogee_proto::service::ResetCopysetResponse;

    #[test]
    fn the_question_names_what_may_be_lost() {
        let plan = ResetCopysetResponse {
            chunkserver: "cs1".into(),
            last_log: 77,
            given_up: vec!["cs2".into(), "cs3".into()],
            volumes: vec!["db".into(), "web".into()],
            volume_count: 5,
            chunks: 12,
            ..ResetCopysetResponse::default()
        };
        let text = in_words(4, &plan);
        for part in [
            "Copyset 4",
            "cs1 alone",
            "cs2, cs3",
            "acknowledged",
            "db, web and 3 more",
            "12 chunks",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
