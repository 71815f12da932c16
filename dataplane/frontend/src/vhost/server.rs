//! One virtual disk behind one socket.
//!
//! *Place*: what `ogee export vhost-user` starts, once for each volume. *Owner*: one shard; a task accepts and serves one VM
//! at a time, a thread speaks with it.
//! *Invariants*: only our own user and root, or the owner that the operator has named, may connect. The next VM is served when
//! the one before is gone and nothing of it is under way. *On failure*: a broken connection is a log line, and
//! the VM may come again.

use super::config::Shape;
use super::control::Control;
use super::device::Device;
use super::execute::Executor;
use super::metrics::{DiskMetrics, DiskSnapshot};
use super::notifier::Notifier;
use super::queue::Shared;
use super::request::ID_LEN;
use crate::align::AlignedDisk;
use crate::disk::Disk;
use crate::limit::{ACCEPT_PAUSE, DISK_BYTES_MAX, DISK_REQUESTS_MAX, QUEUES_MAX};
use crate::socket::{SocketAccess, SocketError, SocketFile};
use futures_util::future::{Either, select};
use ogee_proto::unit::ByteLen;
use ogee_runtime::channel::{Semaphore, watch};
use ogee_runtime::net::UnixListener;
use ogee_runtime::{ScopedTask, bridge, sleep, spawn_scoped};
use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;
use vhost::vhost_user::{BackendReqHandler, Error as ProtocolError};

/// How a disk is offered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskOptions {
    /// Queues that a VM may use: 1 to [`QUEUES_MAX`].
    pub queues: u16,
    /// Unit in which the guest addresses the disk: 512 or 4096.
    pub block_size: u32,
    /// How long an idle queue looks for requests by itself before it asks to be woken: trades a core for latency.
    pub poll: Duration,
    /// What the guest reads as the disk's serial number: the first 20 bytes of it.
    pub serial: String,
    /// Who may connect.
    pub access: SocketAccess,
    /// Whether the guest's memory is announced (`ogee_runtime::area`): RDMA then registers it, which locks it, and what the
    /// guest reads is written there.
    pub announces_memory: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            queues: 4,
            block_size: 512,
            poll: Duration::ZERO,
            serial: String::new(),
            access: SocketAccess::default(),
            announces_memory: true,
        }
    }
}

/// Why options are refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OptionsError {
    /// The number of queues.
    #[error("{0} queues: 1 to {QUEUES_MAX}")]
    Queues(u16),
    /// The block size.
    #[error("a block size of {0}: 512 or 4096")]
    BlockSize(u32),
}

impl DiskOptions {
    /// Whether they can be offered.
    ///
    /// # Errors
    /// Names the value that cannot.
    pub fn check(&self) -> Result<(), OptionsError> {
        if self.queues == 0 || self.queues > QUEUES_MAX {
            return Err(OptionsError::Queues(self.queues));
        }
        if !matches!(self.block_size, 512 | 4096) {
            return Err(OptionsError::BlockSize(self.block_size));
        }
        Ok(())
    }
}

/// Why a disk cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum DiskServerError {
    /// The options.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

/// A virtual disk that is offered. Dropping it stops it without waiting.
pub struct DiskServer<D> {
    shared: Rc<Shared<D>>,
    /// Goes before the file, so that nobody is accepted at a path that is free.
    serving: ScopedTask<()>,
    resizing: ScopedTask<()>,
    line: Line,
    stop: watch::Sender<bool>,
    file: SocketFile,
}

/// The connection, if a VM is connected; hung up when dropped.
struct Line(Rc<RefCell<Option<Connected>>>);

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(Connected { stream, .. }) = &*self.0.borrow() {
            // An error means that it is down already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// The VM that is connected.
struct Connected {
    /// Ends the thread's waiting.
    stream: UnixStream,
    notifier: Notifier,
}

impl<D: Disk> DiskServer<D> {
    /// Offers `disk` at the socket `path`, under `name` in the log. Nobody else should write it from now on.
    ///
    /// # Errors
    /// If the path is in use or cannot be made, or the options make no sense.
    pub async fn bind(
        path: &Path,
        name: &str,
        disk: Rc<D>,
        options: DiskOptions,
    ) -> Result<Self, DiskServerError> {
        options.check()?;
        let (listener, file) = SocketFile::listen(path, options.access).await?;
        let (size, read_only) = (disk.size().get(), disk.read_only());
        let shape = Shape::new(size, options.block_size, read_only, options.queues);
        let resized = disk.resized();
        let shared = Rc::new(Shared {
            executor: Executor {
                name: name.to_owned(),
                disk: AlignedDisk::new(disk),
                serial: serial(&options.serial),
                metrics: DiskMetrics::default(),
            },
            shape,
            requests_max: DISK_REQUESTS_MAX / usize::from(options.queues),
            bytes: Semaphore::new(DISK_BYTES_MAX),
            poll: options.poll,
            announces_memory: options.announces_memory,
        });
        let connected = Rc::new(RefCell::new(None));
        let stop = watch::channel(false).0;
        let serving = spawn_scoped(serve(
            listener,
            Rc::clone(&shared),
            Rc::clone(&connected),
            options.access,
            stop.subscribe(),
        ));
        let resizing = spawn_scoped(resize(resized, Rc::clone(&shared), Rc::clone(&connected)));
        tracing::info!(disk = name, path = %path.display(), "serves vhost-user");
        Ok(Self {
            shared,
            serving,
            resizing,
            line: Line(connected),
            stop,
            file,
        })
    }

    /// Its counters.
    #[must_use]
    pub fn metrics(&self) -> DiskSnapshot {
        self.shared.executor.metrics.snapshot()
    }

    /// Disconnects the VM, finishes what it has under way and removes the socket.
    ///
    /// Takes at most `STOP_TIME_MAX` (30 s) for what is under way.
    pub async fn stop(self) {
        let Self {
            shared,
            serving,
            resizing,
            line,
            stop,
            file,
            ..
        } = self;
        drop(resizing);
        stop.send_replace(true);
        drop(line);
        let _ = serving.await;
        drop(file);
        let counts = shared.executor.metrics.snapshot();
        tracing::info!(
            disk = shared.executor.name,
            reads = counts.reads,
            read_bytes = counts.read_bytes,
            writes = counts.writes,
            written_bytes = counts.written_bytes,
            failures = counts.failures,
            "served vhost-user until now"
        );
    }
}

fn serial(text: &str) -> [u8; ID_LEN] {
    let mut serial = [0; ID_LEN];
    let len = text.len().min(ID_LEN);
    serial[..len].copy_from_slice(&text.as_bytes()[..len]);
    serial
}

/// Serves one VM after the other.
async fn serve<D: Disk>(
    listener: UnixListener,
    shared: Rc<Shared<D>>,
    connected: Rc<RefCell<Option<Connected>>>,
    access: SocketAccess,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = {
            let accepting = pin!(accept(&listener, access));
            let stopping = pin!(stop.changed());
            match select(accepting, stopping).await {
                Either::Left((accepted, _)) => accepted,
                Either::Right(_) => return,
            }
        };
        let stream = match accepted {
            Ok(Some(stream)) => stream,
            Ok(None) => continue,
            Err(error) => {
                let disk = &shared.executor.name;
                tracing::warn!(disk, %error, "cannot accept a VM");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if *stop.borrow_and_update() {
            return;
        }
        if let Err(error) = connect(stream, &shared, &connected).await {
            let disk = &shared.executor.name;
            tracing::warn!(disk, %error, "cannot serve a VM");
        }
        connected.borrow_mut().take();
        if *stop.borrow_and_update() {
            return;
        }
    }
}

async fn accept(listener: &UnixListener, access: SocketAccess) -> io::Result<Option<UnixStream>> {
    let stream = listener.accept().await?;
    if !access.admits(stream.peer_cred()?) {
        return Ok(None);
    }
    let stream = stream.to_std()?;
    stream.set_nonblocking(false)?;
    Ok(Some(stream))
}

/// Serves one connection to its end, and to that of what it had under way.
async fn connect<D: Disk>(
    stream: UnixStream,
    shared: &Rc<Shared<D>>,
    connected: &RefCell<Option<Connected>>,
) -> io::Result<()> {
    let name = shared.executor.name.clone();
    let notifier = Notifier::default();
    *connected.borrow_mut() = Some(Connected {
        stream: stream.try_clone()?,
        notifier: notifier.clone(),
    });
    shared.executor.metrics.connected();
    tracing::info!(disk = name, "a VM is connected");
    let (orders, inbox) = bridge::channel(1);
    let (done, is_done) = mpsc::channel();
    let control = Control::new(shared.shape.clone(), orders, notifier.clone());
    let speak = {
        let name = name.clone();
        move || speak(&stream, control, &notifier, &name, &is_done)
    };
    // Detached: its end is the end of the channel of orders.
    thread::Builder::new()
        .name("vhost-user".to_owned())
        .spawn(speak)?;
    Device::new(Rc::clone(shared)).run(inbox).await;
    drop(done);
    tracing::info!(disk = name, "a VM is gone");
    Ok(())
}

/// Speaks the protocol until the VM's process leaves or breaks it. On a thread of its own.
fn speak(
    stream: &UnixStream,
    control: Control,
    notifier: &Notifier,
    name: &str,
    is_done: &mpsc::Receiver<()>,
) {
    let control = Arc::new(Mutex::new(control));
    let outcome = converse(stream, Arc::clone(&control), notifier);
    // Whoever still holds the other end learns that nobody listens.
    let _ = stream.shutdown(Shutdown::Both);
    let memory = control.lock().map_or(None, |control| control.memory());
    // The shard stops the rings when nobody is left to give orders. Then the memory is unmapped here, where
    // it may take its time.
    drop(control);
    let _ = is_done.recv();
    drop(memory);
    match outcome {
        Ok(()) => {}
        Err(error) => tracing::warn!(disk = name, %error, "ends the connection to a VM"),
    }
}

fn converse(
    stream: &UnixStream,
    backend: Arc<Mutex<Control>>,
    notifier: &Notifier,
) -> Result<(), ProtocolError> {
    let broken = ProtocolError::SocketBroken;
    let ours = stream.try_clone().map_err(broken)?;
    let mut handler = BackendReqHandler::from_stream(ours, backend);
    loop {
        notifier.watch(stream).map_err(broken)?;
        match handler.handle_request() {
            Ok(()) => {}
            Err(ProtocolError::Disconnected) => return Ok(()),
            Err(ProtocolError::SocketBroken(error)) if is_end(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// Tells the VM when the disk has grown.
async fn resize<D: Disk>(
    mut resized: watch::Receiver<ByteLen>,
    shared: Rc<Shared<D>>,
    connected: Rc<RefCell<Option<Connected>>>,
) {
    while resized.changed().await.is_ok() {
        let size = resized.borrow_and_update().get();
        shared.shape.resize(size);
        let told = match &*connected.borrow() {
            Some(Connected { notifier, .. }) => notifier.config_changed(),
            None => Ok(false),
        };
        let disk = &shared.executor.name;
        match told {
            Ok(is_told) => tracing::info!(disk, size, is_told, "the disk was resized"),
            Err(error) => {
                tracing::warn!(disk, size, %error, "the VM could not be told that the disk was resized");
            }
        }
    }
}
