//! A client: the metadata servers, and the thread that does the I/O of its volumes.
//!
//! *Place*: under the calls, over `volume`. *Owner*: the registry; the thread belongs to it.
//! *Invariants*: it is not closed while volumes are open or being opened, or memory is registered. *On failure*: without io_uring or
//! memory for its rings it does not open, and says what is missing.

use crate::abi::OgeeStatus;
use crate::failure::Failure;
use crate::limit::ORDERS_MAX;
use crate::threads::{block_on, without_signals};
use crate::uses::Uses;
use crate::volume::{self, Open, Volume};
use ogee_client::{MdsConfig, MdsHandle, OpenOptions};
use ogee_runtime::executor::{ShardBuilder, ShardHandle};
use ogee_runtime::{area, bridge, spawn, yield_now};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

static CLIENTS: AtomicU64 = AtomicU64::new(0);

/// A client.
pub(crate) struct Client {
    /// Tells it from every other one of the process.
    number: u64,
    host: String,
    uses: Uses,
    running: Mutex<Option<Running>>,
}

struct Running {
    orders: bridge::Sender<Order>,
    thread: ShardHandle<()>,
}

/// What its thread is asked.
enum Order {
    Open(Open),
    Announce(Announce),
}

/// Memory to be announced there.
struct Announce {
    start: Start,
    len: usize,
    /// Told when it is.
    begun: bridge::Sender<()>,
    /// Closed when it is to end.
    end: bridge::Receiver<()>,
    /// Told when nothing knows of it any more.
    over: LastWord,
}

/// Where memory of the caller begins.
struct Start(NonNull<u8>);

// SAFETY: the caller's promise is about the memory, not about a thread.
unsafe impl Send for Start {}

/// Tells when it is dropped.
struct LastWord(bridge::Sender<()>);

/// Memory that its thread has announced.
pub(crate) struct Announcement {
    end: bridge::Sender<()>,
    over: bridge::Receiver<()>,
}

/// A volume of it is open, or being opened, or memory is registered with it.
pub(crate) struct ClientUse(Arc<Client>);

impl Client {
    /// Starts the threads. Connects when the first volume is opened.
    pub(crate) fn open(mds: &str, host: String) -> Result<Self, Failure> {
        let addresses = mds.split(',').map(str::trim);
        let addresses = addresses.filter(|address| !address.is_empty());
        let config = MdsConfig::new(addresses.map(str::to_owned).collect());
        let (orders, received) = bridge::channel(ORDERS_MAX);
        let thread = without_signals(|| {
            let mds = MdsHandle::start(config).map_err(|error| Failure::control(&error))?;
            let builder = ShardBuilder::new("ogee-io");
            let started = builder.start(move || serve(mds, received));
            started.map_err(|error| Failure::system("cannot start the I/O thread", &error))
        })?;
        Ok(Self {
            number: CLIENTS.fetch_add(1, Ordering::Relaxed),
            host,
            uses: Uses::new(),
            running: Mutex::new(Some(Running { orders, thread })),
        })
    }

    /// Attaches a volume.
    pub(crate) fn open_volume(
        self: &Arc<Self>,
        name: String,
        mut options: OpenOptions,
        depth: usize,
    ) -> Result<Volume, Failure> {
        let client = self.take()?;
        options.host.clone_from(&self.host);
        let orders = self
            .running()
            .as_ref()
            .map(|running| running.orders.clone());
        let (reply, mut opened) = bridge::channel(1);
        let open = Open {
            name,
            options,
            depth,
            client,
            reply,
        };
        block_on(async {
            let sent = orders.ok_or_else(closed)?.send(Order::Open(open)).await;
            sent.map_err(|_| Failure::stopped())?;
            opened.recv().await.ok_or_else(Failure::stopped)?
        })
    }

    /// For something of it.
    pub(crate) fn take(self: &Arc<Self>) -> Result<ClientUse, Failure> {
        match self.uses.take() {
            true => Ok(ClientUse(Arc::clone(self))),
            false => Err(closed()),
        }
    }

    /// From here on nothing can be opened.
    pub(crate) fn retire(&self) -> Result<(), Failure> {
        self.uses.retire().map_err(|uses| {
            let what = format!("{uses} volumes and registrations of memory of the client are open");
            Failure::new(OgeeStatus::Busy, &what, "close and unregister them first")
        })
    }

    /// Ends the thread; after [`Self::retire`].
    pub(crate) fn stop(&self) -> Result<(), Failure> {
        let running = self.running().take();
        let Some(Running { orders, thread }) = running else {
            return Ok(());
        };
        drop(orders);
        thread.join().map_err(|_panicked| Failure::stopped())
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        // Nothing that may panic runs under the lock.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientUse {
    /// Whose.
    pub(crate) fn number(&self) -> u64 {
        self.0.number
    }

    /// Has the client's thread announce memory.
    ///
    /// # Safety
    /// It is mapped until [`Announcement::withdraw`] has returned.
    pub(crate) unsafe fn announce(
        &self,
        start: NonNull<u8>,
        len: usize,
    ) -> Result<Announcement, Failure> {
        let running = self.0.running();
        let orders = running.as_ref().map(|running| running.orders.clone());
        drop(running);
        let (begun, mut has_begun) = bridge::channel(1);
        let (end, ended) = bridge::channel(1);
        let (last, over) = bridge::channel(1);
        let announce = Announce {
            start: Start(start),
            len,
            begun,
            end: ended,
            over: LastWord(last),
        };
        block_on(async {
            let order = Order::Announce(announce);
            let sent = orders.ok_or_else(closed)?.send(order).await;
            sent.map_err(|_| Failure::stopped())?;
            has_begun.recv().await.ok_or_else(Failure::stopped)
        })?;
        Ok(Announcement { end, over })
    }
}

impl Announcement {
    /// Waits until nothing knows of the memory any more.
    pub(crate) fn withdraw(self) {
        let Self { end, mut over } = self;
        drop(end);
        // Nothing comes either when the thread has ended, and with it all that it knew.
        let _ = block_on(over.recv());
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        // There is room; who does not wait has his reasons.
        let _ = self.0.try_send(());
    }
}

impl Drop for ClientUse {
    fn drop(&mut self) {
        self.0.uses.give_back();
    }
}

fn closed() -> Failure {
    let what = "the client was closed meanwhile";
    Failure::new(OgeeStatus::Closed, what, "open it again")
}

/// The I/O thread: takes orders until the client is closed.
async fn serve(mds: MdsHandle, mut orders: bridge::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        // Bounded by the threads that wait for it, and by the handles there are.
        match order {
            Order::Open(open) => drop(spawn(volume::serve(mds.clone(), open))),
            Order::Announce(announce) => drop(spawn(keep_announced(announce))),
        }
    }
}

/// Announces memory until that is to end.
async fn keep_announced(announce: Announce) {
    let Announce {
        start,
        len,
        begun,
        mut end,
        over,
    } = announce;
    // SAFETY: mapped until `over` has told that it was dropped, which is the owner: the promise of who asked.
    let announced = unsafe { area::announce(start.0, len, "memory of the program", Rc::new(over)) };
    // Who registers it has heard of it then, and has done so if it is short.
    for _turn in 0..2 {
        yield_now().await;
    }
    // The caller waits for it.
    let _ = begun.try_send(());
    let _ended = end.recv().await;
    drop(announced);
}
