//! A control plane whose last answer outlives it.
//!
//! *Place*: between `Volume` and the real control plane. *Owner*: the shard of the volume; files are touched on the
//! control thread. *Invariants*: the control plane is asked first; only when nobody answers does the record speak, and
//! then for the next incarnation, under a client id that no control plane issues and no other process has.
//! *On failure*: without a usable record the open fails with both reasons; a record that cannot be renewed is a warning,
//! since what it says stays true until the volume's copysets move.

use super::error::RecordError;
use super::file::RecordFile;
use super::format::Record;
use crate::control::{AttachSpec, Control, ControlFuture, Grant};
use crate::map::VolumeMap;
use crate::mds::{ControlError, MdsHandle};
use ogee_proto::id::{ClientId, Epoch, Incarnation};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// Set in the client ids of those who go on without the control plane, which counts from 1.
const RESUMED: u64 = 1 << 63;

/// A control plane, and what is kept of its last answer.
pub struct KeptControl {
    inner: Rc<dyn Control>,
    /// Whose thread touches the files.
    worker: MdsHandle,
    file: Arc<RecordFile>,
    kept: RefCell<Option<Record>>,
    is_failing: Cell<bool>,
}

impl KeptControl {
    /// Keeps in `file` what `inner` grants.
    #[must_use]
    pub fn new(inner: Rc<dyn Control>, worker: MdsHandle, file: RecordFile) -> Self {
        Self {
            inner,
            worker,
            file: Arc::new(file),
            kept: RefCell::new(None),
            is_failing: Cell::new(false),
        }
    }

    async fn attach_or_resume(&self, spec: AttachSpec) -> Result<Grant, ControlError> {
        let (name, is_read_only) = (spec.name.clone(), spec.read_only);
        let silence = match self.inner.attach(spec).await {
            Ok(grant) => {
                let record = Record {
                    client: grant.client,
                    epoch: grant.epoch,
                    incarnation: grant.incarnation,
                    is_read_only,
                    host: self.file.host().to_owned(),
                    map: grant.map.clone(),
                };
                self.store(record).await?;
                return Ok(grant);
            }
            Err(error) if is_silence(&error) => error,
            Err(error) => return Err(error),
        };
        match self.resume(&name, is_read_only).await {
            Ok(grant) => {
                tracing::warn!(
                    volume = name, epoch = %grant.epoch, incarnation = %grant.incarnation, error = %silence,
                    record = %self.file.path().display(),
                    "no metadata server answers: goes on with the attachment that was kept",
                );
                Ok(grant)
            }
            Err(ControlError::Record(RecordError::Absent { path })) => {
                let path = path.display();
                tracing::warn!(volume = name, record = %path, "nothing was kept of an earlier attachment");
                Err(silence)
            }
            Err(error) => {
                tracing::warn!(volume = name, %silence, "a metadata server is needed");
                Err(error)
            }
        }
    }

    /// Goes on with what was kept.
    async fn resume(&self, name: &str, is_read_only: bool) -> Result<Grant, ControlError> {
        let mut record = self.on_disk(RecordFile::load).await?;
        check(&record, name, is_read_only, self.file.host())?;
        let (map, epoch) = (record.map.clone(), record.epoch);
        if is_read_only {
            // Readers share one seal, and there is nothing of an earlier one to shut out.
            let (client, incarnation) = (record.client, record.incarnation);
            *self.kept.borrow_mut() = Some(record);
            return Ok(Grant {
                client,
                epoch,
                incarnation,
                map,
            });
        }
        let last = record.incarnation.get();
        let next = last.checked_add(1).ok_or(RecordError::Used(last))?;
        let incarnation = Incarnation::new(next);
        record.incarnation = incarnation;
        self.store(record).await?;
        Ok(Grant {
            client: ClientId::new(ogee_runtime::random_u64() | RESUMED),
            epoch,
            incarnation,
            map,
        })
    }

    async fn newest_map(
        &self,
        name: &str,
        client: ClientId,
        epoch: Epoch,
    ) -> Result<VolumeMap, ControlError> {
        let issued = self.issued(client);
        let map = self.inner.refresh(name, issued, epoch).await?;
        let changed = self.kept.borrow().as_ref().and_then(|kept| {
            // What is started again is started for the name that it was started for.
            let newest = map.clone().called(&kept.map.head().name);
            (!kept.map.is_same_place(&newest)).then(|| Record {
                map: newest,
                ..kept.clone()
            })
        });
        if let Some(record) = changed {
            let stored = self.store(record).await;
            self.is_failing.set(self.report(&stored));
        }
        Ok(map)
    }

    /// Once for each time that it fails.
    fn report(&self, stored: &Result<(), ControlError>) -> bool {
        let Err(error) = stored else { return false };
        if !self.is_failing.get() {
            let record = self.file.path().display();
            tracing::warn!(%record, %error, "the record of the attachment was not renewed: it names an old map");
        }
        true
    }

    async fn give_up(
        &self,
        name: &str,
        client: ClientId,
        epoch: Epoch,
    ) -> Result<(), ControlError> {
        let issued = self.issued(client);
        self.inner.detach(name, issued, epoch).await?;
        self.kept.take();
        self.on_disk(RecordFile::remove).await
    }

    /// Who we are to the control plane.
    fn issued(&self, client: ClientId) -> ClientId {
        self.kept
            .borrow()
            .as_ref()
            .map_or(client, |kept| kept.client)
    }

    async fn store(&self, record: Record) -> Result<(), ControlError> {
        let bytes = record.clone();
        self.on_disk(move |file| file.store(&bytes)).await?;
        *self.kept.borrow_mut() = Some(record);
        Ok(())
    }

    /// Runs what blocks away from the shard, and from other volumes' questions.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&RecordFile) -> Result<T, RecordError> + Send + 'static,
    ) -> Result<T, ControlError> {
        let file = Arc::clone(&self.file);
        let done = self.worker.ask(async move |_| {
            let done = tokio::task::spawn_blocking(move || work(&file)).await;
            Ok(done.map_err(|_| ControlError::Stopped)??)
        });
        done.await
    }
}

impl Control for KeptControl {
    fn attach(&self, spec: AttachSpec) -> ControlFuture<'_, Grant> {
        Box::pin(self.attach_or_resume(spec))
    }

    fn refresh(&self, name: &str, client: ClientId, epoch: Epoch) -> ControlFuture<'_, VolumeMap> {
        let name = name.to_owned();
        Box::pin(async move { self.newest_map(&name, client, epoch).await })
    }

    fn detach(&self, name: &str, client: ClientId, epoch: Epoch) -> ControlFuture<'_, ()> {
        let name = name.to_owned();
        Box::pin(async move { self.give_up(&name, client, epoch).await })
    }
}

/// Whether nobody has answered. A newer epoch that was granted in silence seals nothing: who asks again gets one of his own.
const fn is_silence(error: &ControlError) -> bool {
    matches!(
        error,
        ControlError::Unreachable { .. } | ControlError::OutcomeUnknown { .. }
    )
}

fn check(record: &Record, name: &str, is_read_only: bool, host: &str) -> Result<(), RecordError> {
    let found = record.host.as_str();
    if found != host {
        let (found, ours) = (found.into(), host.into());
        return Err(RecordError::OtherHost { found, ours });
    }
    let found = record.map.head().name.as_str();
    if found != name {
        let (found, wanted) = (found.into(), name.into());
        return Err(RecordError::OtherVolume { found, wanted });
    }
    if record.is_read_only != is_read_only {
        let is_read_only = record.is_read_only;
        return Err(RecordError::OtherUse { is_read_only });
    }
    Ok(())
}
