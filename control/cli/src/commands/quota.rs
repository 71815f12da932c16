//! `ogee quota`.

use super::ask;
use crate::args::{Bound, Format, QuotaCommand, QuotaOfArgs};
use crate::error::CliError;
use crate::output::{human, print};
use ogee_proto::service::{QuotaInfo, SetQuotaRequest};
use serde_json::{Value, json};
use std::process::ExitCode;

pub(crate) fn run(
    mds: &[String],
    what: QuotaCommand,
    format: Format,
) -> Result<ExitCode, CliError> {
    let (of, bytes, volumes) = match what {
        QuotaCommand::Ls => {
            let found = ask(mds, "cannot list quotas", async |c| c.list_quotas().await)?;
            show(format, &found.quotas);
            return Ok(ExitCode::SUCCESS);
        }
        QuotaCommand::Set { of, bytes, volumes } => (of, bytes, volumes),
        QuotaCommand::Clear { of } => (of, Some(Bound(None)), Some(Bound(None))),
    };
    let request = request(of, bytes, volumes);
    let (owner, directory) = (request.owner.clone(), request.directory.clone());
    let doing = match directory.as_str() {
        "" => format!("cannot set the quota of owner \"{owner}\""),
        path => format!("cannot set the quota of directory {path}"),
    };
    let found = ask(mds, &doing, async |client| {
        client.set_quota(request).await?;
        client.list_quotas().await
    })?;
    let is_it = |it: &QuotaInfo| it.owner == owner && it.directory == directory;
    let own: Vec<QuotaInfo> = found.quotas.into_iter().filter(is_it).collect();
    show(format, &own);
    Ok(ExitCode::SUCCESS)
}

fn request(of: QuotaOfArgs, bytes: Option<Bound>, volumes: Option<Bound>) -> SetQuotaRequest {
    let is_lifted = |bound: Option<Bound>| bound == Some(Bound(None));
    SetQuotaRequest {
        owner: of.owner.unwrap_or_default(),
        directory: of.dir.unwrap_or_default(),
        bytes: bytes.and_then(|bound| bound.0),
        volumes: volumes.and_then(|bound| bound.0),
        any_bytes: is_lifted(bytes),
        any_volumes: is_lifted(volumes),
        ..SetQuotaRequest::default()
    }
}

fn quota_json(it: &QuotaInfo) -> Value {
    let left = |max: Option<u64>, used: u64| max.map(|max| max.saturating_sub(used));
    json!({
        "owner": it.owner, "directory": it.directory,
        "quota_bytes": it.bytes_max, "used_bytes": it.bytes, "left_bytes": left(it.bytes_max, it.bytes),
        "quota_volumes": it.volumes_max, "used_volumes": it.volumes,
        "left_volumes": left(it.volumes_max, it.volumes),
    })
}

fn show(format: Format, quotas: &[QuotaInfo]) {
    let json = json!({"quotas": quotas.iter().map(quota_json).collect::<Vec<_>>()});
    let rows = quotas.iter().map(|it| {
        let of = match it.directory.as_str() {
            "" => format!("owner {}", it.owner),
            path => format!("directory {path}"),
        };
        let any = |max: Option<String>| max.unwrap_or_else(|| "any".to_owned());
        let bytes = any(it.bytes_max.map(human));
        let volumes = any(it.volumes_max.map(|max| max.to_string()));
        vec![
            of,
            format!("{} of {bytes}", human(it.bytes)),
            format!("{} of {volumes}", it.volumes),
        ]
    });
    print(
        format,
        &json,
        &["QUOTA OF", "SIZE", "VOLUMES"],
        rows.collect(),
    );
}
