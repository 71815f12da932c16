//! A volume: its handle for any thread, and its task on the I/O thread.
//!
//! *Place*: over `ogee_client`. *Owner*: the handle belongs to the registry, the task to the client's thread.
//! *Invariants*: at most `depth` requests run, and at most as many wait; what was accepted ends, at the
//! latest when the task does. *On failure*: requests wait as those of a disk do; closing with a limit of
//! time cancels what has not ended.

use crate::abi::OgeeStatus;
use crate::client::ClientUse;
use crate::failure::Failure;
use crate::limit::{BURST, DETACH_WAIT, NOTICES_MAX, ORDERS_MAX};
use crate::queue::Outcome;
use crate::request::{Operation, Reply, Request, Waiter};
use crate::threads::block_on;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use ogee_client::{ClientSnapshot, MdsHandle, OpenOptions};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::channel::mpsc::TrySendError;
use ogee_runtime::channel::watch;
use ogee_runtime::{Payload, bridge, spawn_scoped, timeout};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// What any thread knows of a volume.
pub(crate) struct Volume {
    pub(crate) facts: Arc<Facts>,
    depth: usize,
    requests: bridge::Sender<Request>,
    orders: bridge::Sender<Order>,
}

/// What it is.
pub(crate) struct Facts {
    /// Whose volume it is.
    pub(crate) client: u64,
    pub(crate) id: u64,
    pub(crate) epoch: u64,
    pub(crate) read_only: bool,
    size: AtomicU64,
}

/// A volume to open.
pub(crate) struct Open {
    pub(crate) name: String,
    pub(crate) options: OpenOptions,
    pub(crate) depth: usize,
    pub(crate) client: ClientUse,
    pub(crate) reply: bridge::Sender<Result<Volume, Failure>>,
}

/// Counters of a volume, and bytes copied for frames by its thread.
pub(crate) type Stats = (ClientSnapshot, u64);

enum Order {
    Close {
        patience: Option<Duration>,
        reply: bridge::Sender<Result<(), Failure>>,
    },
    Stats(bridge::Sender<Stats>),
}

impl Facts {
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }
}

impl Volume {
    /// Runs a request, and waits for its end.
    pub(crate) fn call(&self, make: impl FnOnce(&Arc<Reply>) -> Operation) -> Outcome {
        let waiter = Arc::new(Waiter::default());
        let reply = Reply::to_waiter(&waiter);
        let operation = make(&reply);
        let sent = block_on(self.requests.send(Request { operation, reply }));
        sent.map_err(|_refused| Failure::closed())?;
        waiter.wait()
    }

    /// Has a request run, if there is room for it.
    pub(crate) fn submit(&self, request: Request) -> Result<(), Failure> {
        let (request, failure) = match self.requests.try_send(request) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(request)) => {
                let what = format!(
                    "the volume's queue is full: it takes {} and as many run",
                    self.depth
                );
                let remedy = "take completions, then submit again";
                (request, Failure::new(OgeeStatus::Again, &what, remedy))
            }
            Err(TrySendError::Closed(request)) => (request, Failure::closed()),
        };
        request.reply.revoke();
        Err(failure)
    }

    /// Its counters.
    pub(crate) fn stats(&self) -> Result<Stats, Failure> {
        self.order(Order::Stats)
    }

    /// Ends it: waits for what was accepted, for so long.
    pub(crate) fn close(&self, patience: Option<Duration>) -> Result<(), Failure> {
        self.order(|reply| Order::Close { patience, reply })?
    }

    fn order<T: Send>(&self, order: impl FnOnce(bridge::Sender<T>) -> Order) -> Result<T, Failure> {
        let (reply, mut replied) = bridge::channel(1);
        block_on(async {
            let sent = self.orders.send(order(reply)).await;
            sent.map_err(|_| Failure::closed())?;
            replied.recv().await.ok_or_else(Failure::closed)
        })
    }
}

/// Attaches a volume and serves it until it is closed.
pub(crate) async fn serve(mds: MdsHandle, open: Open) {
    let Open {
        name,
        options,
        depth,
        client,
        reply,
    } = open;
    let volume = match ogee_client::Volume::open(mds, &name, options).await {
        Ok(volume) => volume,
        Err(error) => {
            drop(client);
            // The caller waits for it.
            let _ = reply.try_send(Err(error.into()));
            return;
        }
    };
    let facts = Arc::new(Facts {
        client: client.number(),
        id: volume.id().get(),
        epoch: volume.epoch().get(),
        read_only: volume.is_read_only(),
        size: AtomicU64::new(volume.size().get()),
    });
    let (requests, received) = bridge::channel(depth);
    let (orders, ordered) = bridge::channel(ORDERS_MAX);
    let _mirror = spawn_scoped(mirror(volume.resized(), Arc::clone(&facts)));
    let handle = Volume {
        facts: Arc::clone(&facts),
        depth,
        requests,
        orders,
    };
    // The caller waits for it.
    let _ = reply.try_send(Ok(handle));
    let server = Server {
        volume,
        facts,
        depth,
        requests: received,
        orders: ordered,
        running: FuturesUnordered::new(),
        notices: FuturesUnordered::new(),
    };
    if let Some((ended, closed)) = server.run().await {
        drop(client);
        // The caller waits for it.
        let _ = closed.try_send(ended);
    }
}

/// Keeps the size that other threads see.
async fn mirror(mut resized: watch::Receiver<ByteLen>, facts: Arc<Facts>) {
    loop {
        let size = resized.borrow_and_update().get();
        facts.size.store(size, Ordering::Release);
        if resized.changed().await.is_err() {
            return;
        }
    }
}

struct Server {
    volume: ogee_client::Volume,
    facts: Arc<Facts>,
    depth: usize,
    requests: bridge::Receiver<Request>,
    orders: bridge::Receiver<Order>,
    running: FuturesUnordered<LocalBoxFuture<'static, ()>>,
    /// Apart from those: they hold no one up.
    notices: FuturesUnordered<LocalBoxFuture<'static, ()>>,
}

/// How closing ended, and who is to know.
type Closed = (Result<(), Failure>, bridge::Sender<Result<(), Failure>>);

impl Server {
    /// Runs until it is closed; nothing if the handle has gone without.
    async fn run(mut self) -> Option<Closed> {
        loop {
            match poll_fn(|cx| self.poll(cx)).await? {
                Order::Stats(reply) => {
                    let copied = ogee_transport::metrics().bytes_copied;
                    // The caller waits for it.
                    let _ = reply.try_send((self.volume.metrics().snapshot(), copied));
                }
                Order::Close { patience, reply } => {
                    return Some((self.close(patience).await, reply));
                }
            }
        }
    }

    /// Serves requests until there is an order.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Order>> {
        for _ in 0..BURST {
            if let Poll::Ready(order) = self.orders.poll_recv(cx) {
                return Poll::Ready(order);
            }
            let mut has_moved = false;
            if self.running.len() < self.depth
                && let Poll::Ready(Some(request)) = self.requests.poll_recv(cx)
            {
                self.start(request);
                has_moved = true;
            }
            has_moved |= matches!(self.running.poll_next_unpin(cx), Poll::Ready(Some(())));
            has_moved |= matches!(self.notices.poll_next_unpin(cx), Poll::Ready(Some(())));
            if !has_moved {
                return Poll::Pending;
            }
        }
        // The others of this thread have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn start(&self, request: Request) {
        let Request { operation, reply } = request;
        match operation {
            Operation::AwaitResize { .. } if self.notices.len() >= NOTICES_MAX => {
                let what = format!("{NOTICES_MAX} notices of a new size are waited for");
                let failure = Failure::new(OgeeStatus::Limit, &what, "wait for one of them");
                reply.set(Err(failure));
            }
            Operation::AwaitResize { known } => {
                let (resized, facts) = (self.volume.resized(), Arc::clone(&self.facts));
                self.notices.push(Box::pin(async move {
                    reply.set(await_resize(resized, &facts, known).await);
                }));
            }
            operation => {
                let volume = self.volume.clone();
                self.running.push(Box::pin(async move {
                    reply.set(run(&volume, operation).await);
                }));
            }
        }
    }

    async fn close(mut self, patience: Option<Duration>) -> Result<(), Failure> {
        // Those that were accepted before; whoever submits on while closing takes the risk.
        for _ in 0..self.depth {
            match self.requests.try_recv() {
                Ok(request) => self.start(request),
                Err(_none) => break,
            }
        }
        let Self {
            volume,
            requests,
            notices,
            mut running,
            ..
        } = self;
        drop((requests, notices));
        let drained = async { while running.next().await.is_some() {} };
        let have_ended = match patience {
            None => {
                drained.await;
                true
            }
            Some(patience) => timeout(patience, drained).await.is_ok(),
        };
        let cancelled = running.len();
        drop(running);
        let given_up = match patience {
            None => volume.close().await,
            Some(patience) => {
                let limit = patience.max(DETACH_WAIT);
                let closed = timeout(limit, volume.close()).await;
                closed.unwrap_or(Err(ogee_client::ClientError::TimedOut(limit)))
            }
        };
        if !have_ended {
            let what = format!("{cancelled} requests had not ended, and were cancelled");
            let remedy = "`ogee status` says what the cluster lacks";
            return Err(Failure::new(OgeeStatus::TimedOut, &what, remedy));
        }
        given_up.map_err(Failure::from)
    }
}

/// Runs a request. Its memory is given up before the caller hears of its end.
async fn run(volume: &ogee_client::Volume, operation: Operation) -> Outcome {
    let ended = match operation {
        Operation::Read { offset, into } => {
            let target = into.target();
            let read = volume.read_to(ByteOffset::new(offset), &target).await;
            read.map(|()| target.len() as u64)
        }
        Operation::Write { offset, data } => {
            let data = Payload::from(Bytes::from_owner(data));
            let len = data.len() as u64;
            let written = volume.write(ByteOffset::new(offset), data).await;
            written.map(|()| len)
        }
        Operation::Discard { offset, len } => {
            let (offset, bytes) = (ByteOffset::new(offset), ByteLen::new(len));
            volume.discard(offset, bytes).await.map(|()| len)
        }
        Operation::WriteZeroes { offset, len } => {
            let (offset, bytes) = (ByteOffset::new(offset), ByteLen::new(len));
            volume.write_zeroes(offset, bytes).await.map(|()| len)
        }
        Operation::Flush => volume.flush().await.map(|()| 0),
        Operation::AwaitResize { .. } => unreachable!("invariant: notices are waited for apart"),
    };
    ended.map_err(Failure::from)
}

async fn await_resize(mut resized: watch::Receiver<ByteLen>, facts: &Facts, known: u64) -> Outcome {
    loop {
        let size = resized.borrow_and_update().get();
        if size != known {
            // Whoever hears of it and asks is told the same.
            facts.size.store(size, Ordering::Release);
            return Ok(size);
        }
        let changed = resized.changed().await;
        changed.map_err(|_| Failure::closed())?;
    }
}
