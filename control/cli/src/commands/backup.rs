//! `ogee mds backup` and `ogee mds restore`.

use super::ask;
use super::job::ago;
use crate::args::{BackupArgs, Format, RestoreArgs};
use crate::error::CliError;
use crate::output::{human, line, print};
use ogee_control::{Backup, BackupError, Restore, restore as restore_backup};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(super) fn run(mds: &[String], args: &BackupArgs, format: Format) -> Result<ExitCode, CliError> {
    if !args.check {
        make(mds, args)?;
    }
    show(&read(&args.file)?, &args.file, format);
    Ok(ExitCode::SUCCESS)
}

/// Under another name until every byte of it is on disk and was read back.
fn make(mds: &[String], args: &BackupArgs) -> Result<(), CliError> {
    let doing = format!("cannot write {}", args.file.display());
    let failed = |error: &std::io::Error| {
        let remedy = "check the directory, its permissions and its space";
        CliError::io(&doing, error, remedy)
    };
    if !args.force && args.file.symlink_metadata().is_ok() {
        let remedy = "another name; or --force to write over it";
        return Err(CliError::new("OGEE-3601", &doing, "it exists", remedy));
    }
    let partial = partial_name(&args.file);
    let mut file = OpenOptions::new();
    // Whoever reads it can make a cluster that chunkservers take for theirs.
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    let file = file.write(true).create_new(true).open(&partial);
    let mut file = file.map_err(|error| failed(&error))?;
    let outcome = fill(mds, &mut file, failed).and_then(|()| read(&partial).map(drop));
    let outcome = outcome.and_then(|()| publish(&partial, args).map_err(|error| failed(&error)));
    if outcome.is_err() {
        // It is of no use; if it cannot be removed, its name says what it is.
        let _ = std::fs::remove_file(&partial);
    }
    outcome
}

fn partial_name(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    name.into()
}

fn fill(
    mds: &[String],
    file: &mut File,
    failed: impl Fn(&std::io::Error) -> CliError,
) -> Result<(), CliError> {
    let doing = "cannot back the metadata up";
    let taken = ask(mds, doing, async |client| {
        client.backup(|bytes| file.write_all(bytes)).await
    })?;
    taken
        .and_then(|()| file.sync_all())
        .map_err(|error| failed(&error))
}

fn publish(partial: &Path, args: &BackupArgs) -> std::io::Result<()> {
    if args.force {
        std::fs::rename(partial, &args.file)?;
    } else {
        // Unlike a rename, a link refuses a file that was made meanwhile.
        std::fs::hard_link(partial, &args.file)?;
        std::fs::remove_file(partial)?;
    }
    let dir = args.file.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

fn read(path: &Path) -> Result<Backup, CliError> {
    let what = format!("cannot use {} as a backup", path.display());
    let refused = |error: BackupError| CliError::fault(error.fault(&what));
    let file = File::open(path).map_err(|error| refused(BackupError::Read(error)))?;
    Backup::read(file).map_err(refused)
}

fn show(backup: &Backup, path: &Path, format: Format) {
    let head = backup.head();
    let volumes = backup
        .volumes()
        .map(|(name, size)| json!({"name": name, "size_bytes": size}));
    let json = json!({
        "file": path.display().to_string(),
        "format": 1, "cluster_id": head.cluster_id, "cluster": head.cluster,
        "applied": head.applied, "term": head.term, "member": head.member,
        "created_unix_ms": head.created_unix_ms, "version": head.version,
        "pools": head.pools, "chunkservers": head.chunkservers, "copysets": head.copysets,
        "metadata_bytes": head.body_len, "volumes": volumes.collect::<Vec<_>>(),
    });
    let rows = [
        ("file", format!("{}, whole", path.display())),
        ("cluster", format!("{} {}", head.cluster, head.cluster_id)),
        (
            "made",
            format!(
                "{} ago, by metadata server {}",
                ago(head.created_unix_ms),
                head.member
            ),
        ),
        (
            "as of",
            format!("log entry {} of term {}", head.applied, head.term),
        ),
        (
            "volumes",
            format!("{}, {}", head.volumes, human(head.volume_bytes)),
        ),
        (
            "copysets",
            format!("{} in {} pools", head.copysets, head.pools),
        ),
        ("servers", head.chunkservers.to_string()),
        ("metadata", human(head.body_len)),
    ];
    let rows = rows.map(|(key, value)| vec![key.to_owned(), value]);
    print(format, &json, &["", ""], rows.into());
}

pub(super) fn restore(args: &RestoreArgs) -> Result<ExitCode, CliError> {
    let backup = read(&args.file)?;
    let head = backup.head().clone();
    let to = Restore {
        data_dir: args.data_dir.clone(),
        id: args.id,
        addr: args.address.clone(),
    };
    let what = format!("nothing was restored to {}", args.data_dir.display());
    restore_backup(backup, &to).map_err(|error| CliError::fault(error.fault(&what)))?;
    line(&format!(
        "restored: cluster {} as of {} ago (log entry {}), {} volumes\n\
         lost: every change of the metadata after that; no data. Volumes made since are kept and reported,\n\
         volumes resized since have their old size, volumes removed since are listed but empty\n\
         next: 1. make sure that no other metadata server of this cluster runs, or ever starts with its old data\n\
         \x20     2. start this one: id = {}, this data_dir, no [[members]]\n\
         \x20     3. ogee status, ogee mds strangers; then ogee mds accept-restore\n\
         \x20     4. others with empty data directories and join = true: ogee mds add ID --address HOST:PORT\n\
         users that are attached go on; attach them anew when it suits",
        head.cluster,
        ago(head.created_unix_ms),
        head.applied,
        head.volumes,
        args.id,
    ));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::publish;
    use crate::args::BackupArgs;

    #[test]
    fn a_file_that_came_in_between_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let (partial, file) = (dir.path().join("p"), dir.path().join("b"));
        std::fs::write(&partial, "new").unwrap();
        std::fs::write(&file, "old").unwrap();
        let mut args = BackupArgs {
            file: file.clone(),
            check: false,
            force: false,
        };
        assert!(publish(&partial, &args).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
        args.force = true;
        publish(&partial, &args).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert!(!partial.exists());
    }
}
