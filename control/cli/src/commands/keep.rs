//! Volumes whose attachment is kept on this host, so that a frontend can come back while no metadata server answers.

use super::ask::config;
use super::bench::{check_transport, not_attached, open_through};
use crate::error::{CliError, chain};
use ogee_client::{
    ClientError, ControlError, KeptControl, MdsHandle, RecordError, RecordFile, Volume,
};
use ogee_runtime::{now, sleep};
use ogee_transport::Transport;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// How long metadata servers are waited for when there is something to go on with: an election of theirs fits.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one that was killed may take to go: the kernel gives its lock back when its memory is unmapped.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Where records of attachments are kept.
#[derive(Clone, Debug)]
pub(super) struct Keeping {
    directory: PathBuf,
    /// The operator named it: then it has to be of use.
    is_asked: bool,
}

impl Keeping {
    /// In a directory that the operator named for this; made, if only its last part is missing.
    pub(super) fn asked(directory: &Path) -> Result<Self, CliError> {
        make(directory, 0o700)?;
        Ok(Self {
            directory: directory.to_owned(),
            is_asked: true,
        })
    }

    /// Beside sockets, if nobody else can write there.
    pub(super) fn beside_sockets(directory: &Path, mode: u32) -> Result<Self, CliError> {
        make(directory, mode)?;
        Ok(Self {
            directory: directory.to_owned(),
            is_asked: false,
        })
    }

    /// Attaches a volume, or goes on with the attachment that was kept of it.
    pub(super) async fn open(
        &self,
        mds: &[String],
        name: &str,
        read_only: bool,
        transport: Transport,
    ) -> Result<Volume, CliError> {
        let doing = format!("cannot attach volume {name}");
        check_transport(&doing, transport)?;
        let file = self.lock(name).await?;
        let mut config = config(mds);
        if file.as_ref().is_some_and(RecordFile::exists) {
            config.patience = PATIENCE;
        }
        let handle = MdsHandle::start(config).map_err(|error| CliError::control(&doing, &error))?;
        let opened = match file {
            Some(file) => {
                let kept = KeptControl::new(Rc::new(handle.clone()), handle, file);
                open_through(Rc::new(kept), name, read_only, transport).await
            }
            None => open_through(Rc::new(handle), name, read_only, transport).await,
        };
        opened.map_err(|error| match &error {
            ClientError::Control(ControlError::Record(record)) => refused(&doing, record),
            other => not_attached(&doing, other),
        })
    }

    /// The record of a volume; none if the directory is not fit for one and nobody has asked for it.
    async fn lock(&self, name: &str) -> Result<Option<RecordFile>, CliError> {
        let started = now();
        loop {
            let error = match RecordFile::lock(&self.directory, name, &host()) {
                Ok(file) => return Ok(Some(file)),
                Err(error) => error,
            };
            match error {
                RecordError::Busy { .. }
                    if now().saturating_duration_since(started) < LOCK_WAIT =>
                {
                    sleep(LOCK_PAUSE).await;
                }
                RecordError::Exposed { .. } if !self.is_asked => {
                    tracing::warn!(
                        volume = name, %error,
                        "keeps no record of the attachment: started again, this waits for a metadata server; --state-dir names a better place",
                    );
                    return Ok(None);
                }
                error => return Err(refused(&format!("cannot attach volume {name}"), &error)),
            }
        }
    }
}

fn refused(doing: &str, error: &RecordError) -> CliError {
    let remedy = match error {
        RecordError::Busy { .. } => "stop the other process, or give --state-dir",
        RecordError::Exposed { .. } | RecordError::File { .. } => {
            "give --state-dir a directory of our own that nobody else writes"
        }
        RecordError::Name(_) => "ogee volume ls lists the names",
        _ => "start a metadata server: with one, no record is needed (ogee status)",
    };
    CliError::new("OGEE-3503", doing, &chain(error), remedy)
}

fn make(directory: &Path, mode: u32) -> Result<(), CliError> {
    if directory.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().mode(mode).create(directory);
    made.map_err(|error| {
        let doing = format!("cannot make the directory {}", directory.display());
        CliError::io(&doing, &error, "make it, or name another")
    })
}

/// What no other host calls itself.
fn host() -> String {
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    match id.trim() {
        "" => super::bench::host_name(),
        id => id.chars().take(64).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_place_that_others_write_is_refused_only_if_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(directory.path(), open).unwrap();
        ogee_runtime::executor::block_on(async {
            let asked = Keeping::asked(directory.path()).unwrap();
            let said = asked.lock("v").await.unwrap_err().to_string();
            assert!(
                said.contains("OGEE-3503") && said.contains("mode 777"),
                "{said}"
            );
            let beside = Keeping::beside_sockets(directory.path(), 0o700).unwrap();
            assert!(beside.lock("v").await.unwrap().is_none());
        });
    }

    #[test]
    fn what_was_locked_a_moment_ago_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        ogee_runtime::executor::block_on(async {
            let keeping = Keeping::asked(directory.path()).unwrap();
            let held = keeping.lock("v").await.unwrap();
            let freed = ogee_runtime::spawn(async move {
                sleep(Duration::from_millis(200)).await;
                drop(held);
            });
            assert!(keeping.lock("v").await.unwrap().is_some());
            let _ = freed.await;
        });
    }
}
