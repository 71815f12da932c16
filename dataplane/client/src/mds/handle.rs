//! The control thread and the way to it.
//!
//! *Place*: between shards (or any thread) and [`MdsClient`].
//! *Owner*: one thread with a single-threaded tokio runtime, started by [`MdsHandle::start`]; it
//! ends when the last handle is gone.
//! *Invariants*: the queue holds at most `MDS_QUEUE_MAX` requests, and at most `MDS_CALLS_MAX` are
//! under way; an asker that is gone loses its answer, nothing else.
//! *On failure*: if the thread is gone, callers get [`ControlError::Stopped`].

use super::client::{MdsClient, MdsConfig};
use super::convert;
use super::error::ControlError;
use crate::control::{AttachSpec, Control, ControlFuture, Grant};
use crate::limit::{MDS_CALLS_MAX, MDS_QUEUE_MAX};
use crate::map::VolumeMap;
use ogee_proto::id::{ClientId, Epoch};
use ogee_proto::service::{AttachRequest, DetachRequest, RefreshRequest, VolumeInfo, VolumeName};
use ogee_runtime::bridge;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

type Work = Pin<Box<dyn Future<Output = ()>>>;
type Job = Box<dyn FnOnce(MdsClient) -> Work + Send>;

/// The metadata servers, reachable from any thread. Clones share one control thread.
#[derive(Clone)]
pub struct MdsHandle {
    jobs: bridge::Sender<Job>,
}

impl MdsHandle {
    /// Starts the control thread. Connects when first used.
    ///
    /// # Errors
    /// [`ControlError::Address`], [`ControlError::NoEndpoints`] or [`ControlError::Thread`].
    pub fn start(config: MdsConfig) -> Result<Self, ControlError> {
        let failed = |error: io::Error| ControlError::Thread(error.kind());
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().map_err(failed)?;
        let client = {
            let _entered = runtime.enter();
            MdsClient::new(config)?
        };
        let (jobs, queue) = bridge::channel(MDS_QUEUE_MAX);
        std::thread::Builder::new()
            .name("ogee-control".to_owned())
            .spawn(move || LocalSet::new().block_on(&runtime, serve(client, queue)))
            .map_err(failed)?;
        Ok(Self { jobs })
    }

    /// One volume as the metadata servers know it.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn show(&self, name: &str) -> Result<VolumeInfo, ControlError> {
        let request = VolumeName {
            name: name.to_owned(),
        };
        self.ask(async move |mds| mds.show(request).await).await
    }

    /// Runs `question` on the control thread and brings its answer back.
    ///
    /// # Errors
    /// The question's own, or [`ControlError::Stopped`].
    pub async fn ask<T, F>(&self, question: F) -> Result<T, ControlError>
    where
        T: Send + 'static,
        F: AsyncFnOnce(MdsClient) -> Result<T, ControlError> + Send + 'static,
    {
        let (answer, mut answered) = bridge::channel(1);
        let job: Job = Box::new(move |mds| {
            Box::pin(async move {
                // Refused only if the asker is gone.
                let _ = answer.try_send(question(mds).await);
            })
        });
        self.jobs
            .send(job)
            .await
            .map_err(|_| ControlError::Stopped)?;
        answered.recv().await.ok_or(ControlError::Stopped)?
    }
}

impl Control for MdsHandle {
    fn attach(&self, spec: AttachSpec) -> ControlFuture<'_, Grant> {
        let AttachSpec {
            name,
            host,
            read_only,
        } = spec;
        let request = AttachRequest {
            name,
            host,
            read_only,
            ..AttachRequest::default()
        };
        Box::pin(self.ask(async move |mds| Ok(convert::grant(mds.attach(request).await?)?)))
    }

    fn refresh(&self, name: &str, client: ClientId, epoch: Epoch) -> ControlFuture<'_, VolumeMap> {
        let (client, epoch) = (client.get(), epoch.get());
        let request = RefreshRequest {
            name: name.to_owned(),
            client,
            epoch,
        };
        Box::pin(self.ask(async move |mds| Ok(convert::map(mds.refresh(request).await?)?)))
    }

    fn detach(&self, name: &str, client: ClientId, epoch: Epoch) -> ControlFuture<'_, ()> {
        let (client, epoch) = (client.get(), epoch.get());
        let request = DetachRequest {
            name: name.to_owned(),
            client,
            epoch,
            ..DetachRequest::default()
        };
        Box::pin(self.ask(async move |mds| mds.detach(request).await.map(drop)))
    }
}

/// The control thread: takes jobs until every handle is gone.
async fn serve(client: MdsClient, mut queue: bridge::Receiver<Job>) {
    let calls = Arc::new(Semaphore::new(MDS_CALLS_MAX));
    while let Some(job) = queue.recv().await {
        let permit = Arc::clone(&calls).acquire_owned().await;
        let work = job(client.clone());
        tokio::task::spawn_local(async move {
            work.await;
            drop(permit);
        });
    }
}
