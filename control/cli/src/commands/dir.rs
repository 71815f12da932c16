//! `ogee dir`.

use super::ask;
use super::volume::{all, volume_json};
use crate::args::{DirCommand, Format};
use crate::error::CliError;
use crate::output::{human, print};
use ogee_client::{ControlError, MdsClient};
use ogee_proto::service::{
    CreateDirectoryRequest, DirectoryInfo, ListDirectoriesRequest, ListVolumesRequest,
    RemoveDirectoryRequest, RenameRequest, VolumeInfo,
};
use serde_json::{Value, json};
use std::process::ExitCode;

/// What a directory has in it.
struct Listing {
    directory: DirectoryInfo,
    directories: Vec<DirectoryInfo>,
    volumes: Vec<VolumeInfo>,
}

pub(crate) fn run(mds: &[String], what: DirCommand, format: Format) -> Result<ExitCode, CliError> {
    match what {
        DirCommand::Create { path, parents } => {
            let doing = format!("cannot create directory {path}");
            let request = CreateDirectoryRequest {
                path: path.clone(),
                parents,
                ..CreateDirectoryRequest::default()
            };
            ask(mds, &doing, async |c| c.create_directory(request).await)?;
            done(format, &path);
        }
        DirCommand::Ls { path, recursive } => {
            let doing = match path.as_str() {
                "" => "cannot list directories".to_owned(),
                path => format!("cannot list directory {path}"),
            };
            let path = path.strip_suffix('/').unwrap_or(&path).to_owned();
            let listing = ask(mds, &doing, async |c| listing(c, path, recursive).await)?;
            show(format, &listing);
        }
        DirCommand::Rm { path } => {
            let doing = format!("cannot remove directory {path}");
            let request = RemoveDirectoryRequest {
                path,
                ..RemoveDirectoryRequest::default()
            };
            ask(mds, &doing, async |c| c.remove_directory(request).await)?;
        }
        DirCommand::Rename { from, to } => {
            let doing = format!("cannot rename directory {from} to {to}");
            let request = RenameRequest {
                from,
                to: to.clone(),
                ..RenameRequest::default()
            };
            ask(mds, &doing, async |c| c.rename_directory(request).await)?;
            done(format, &to);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn listing(
    client: MdsClient,
    path: String,
    recursive: bool,
) -> Result<Listing, ControlError> {
    let prefix = match path.as_str() {
        "" => String::new(),
        path => format!("{path}/"),
    };
    let asked = ListDirectoriesRequest { path, recursive };
    let found = client.list_directories(asked).await?;
    let volumes = ListVolumesRequest {
        prefix,
        direct: !recursive,
        ..ListVolumesRequest::default()
    };
    Ok(Listing {
        directory: found.directory.unwrap_or_default(),
        directories: found.directories,
        volumes: all(client, volumes).await?,
    })
}

fn done(format: Format, path: &str) {
    let rows = vec![vec![path.to_owned()]];
    print(format, &json!({"path": path}), &["DIRECTORY"], rows);
}

fn directory_json(it: &DirectoryInfo) -> Value {
    json!({
        "path": it.path, "directory_count": it.directories, "volume_count": it.volumes,
        "size_bytes": it.bytes, "created_unix_ms": it.created_unix_ms,
        "quota_bytes": it.bytes_max, "quota_volumes": it.volumes_max,
    })
}

fn show(format: Format, listing: &Listing) {
    let mut json = directory_json(&listing.directory);
    let directories = listing.directories.iter().map(directory_json);
    json["directories"] = directories.collect();
    json["volumes"] = listing.volumes.iter().map(volume_json).collect();
    let directories = listing.directories.iter().map(|it| {
        vec![
            format!("{}/", it.path),
            it.volumes.to_string(),
            human(it.bytes),
            quota(it.bytes_max, it.volumes_max),
        ]
    });
    let volumes = listing.volumes.iter().map(|it| {
        let (size, none) = (human(it.size), || "-".to_owned());
        vec![it.name.clone(), none(), size, none()]
    });
    let rows = directories.chain(volumes).collect();
    print(format, &json, &["NAME", "VOLUMES", "SIZE", "QUOTA"], rows);
}

/// What there may be, for people.
fn quota(bytes: Option<u64>, volumes: Option<u64>) -> String {
    let bytes = bytes.map(human);
    let volumes = volumes.map(|count| format!("{count} volumes"));
    let parts: Vec<String> = bytes.into_iter().chain(volumes).collect();
    match parts.is_empty() {
        true => "-".to_owned(),
        false => parts.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::quota;

    #[test]
    fn a_quota_says_what_it_bounds() {
        assert_eq!(quota(None, None), "-");
        assert_eq!(quota(Some(1 << 30), Some(3)), "1 GiB, 3 volumes");
        assert_eq!(quota(None, Some(0)), "0 volumes");
    }
}
