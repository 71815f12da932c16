//! The answering side: accepts connections and hands their frames to a handler.
//!
//! *Place*: under a shard's routing. *Owner*: one shard; an accept task, and one task per
//! connection that shakes hands, reads and dispatches.
//!
//! *Invariants*: frames of one connection reach the handler in order, one at a time, without a
//! task or an allocation per frame. The handler returns at once: it queues or spawns. No more
//! requests than the offered credits are in a handler's care per connection.
//!
//! *On failure*: a connection that breaks, or whose peer breaks a rule, ends alone; its
//! [`Peer`] says so to whoever still works for it. A failed accept is logged and tried again.

mod peer;

pub use peer::{Peer, PeerId};

use crate::endpoint::Endpoint;
use crate::error::TransportError;
use crate::frame::Frame;
use crate::hello::Hello;
use crate::limit::ACCEPT_PAUSE;
use crate::listener::{Incoming, Listener};
use crate::options::ServiceOptions;
use crate::receiver::FrameReceiver;
use ogee_runtime::channel::Notify;
use ogee_runtime::{sleep, spawn};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

/// Takes each frame. It must not block; every request frame must be answered exactly once through
/// the peer, now or later, or its credit is lost.
pub type Handler = Rc<dyn Fn(Peer, Frame)>;

/// The answering side of one endpoint. Dropping it closes the listener and every connection.
#[must_use = "dropping it closes the listener and every connection"]
pub struct Service {
    shared: Rc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    hello: Hello,
    options: ServiceOptions,
    handler: Handler,
    peers: RefCell<BTreeMap<PeerId, Peer>>,
    next_peer: Cell<u64>,
    /// Connection tasks, those shaking hands included, and the accept task.
    tasks: Cell<usize>,
    idle: Notify,
    stopped: Cell<bool>,
    stopping: Notify,
}

impl Service {
    /// Serves with default options. `hello.credits` is what each peer may have in flight.
    pub fn serve(listener: Listener, hello: Hello, handler: Handler) -> Self {
        Self::serve_with(listener, hello, ServiceOptions::default(), handler)
    }

    /// Serves.
    pub fn serve_with(
        listener: Listener,
        hello: Hello,
        options: ServiceOptions,
        handler: Handler,
    ) -> Self {
        let shared = Rc::new(Shared {
            endpoint: listener.endpoint().clone(),
            hello,
            options,
            handler,
            peers: RefCell::default(),
            next_peer: Cell::new(1),
            tasks: Cell::new(0),
            idle: Notify::new(),
            stopped: Cell::new(false),
            stopping: Notify::new(),
        });
        let task = Task::start(&shared);
        drop(spawn(accept(task, listener)));
        Self { shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// Who is connected.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        self.shared.peers.borrow().values().cloned().collect()
    }

    /// Stops accepting, closes every connection after what is queued has been written (for at most
    /// a second), and returns when the endpoint is free again.
    pub async fn close(self) {
        self.shared.stop();
        while self.shared.tasks.get() > 0 {
            self.shared.idle.notified().await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Shared {
    fn stop(&self) {
        self.stopped.set(true);
        self.stopping.notify_all();
        for peer in self.peers.borrow().values() {
            peer.close();
        }
    }

    async fn stopped(&self) {
        while !self.stopped.get() {
            self.stopping.notified().await;
        }
    }

    /// Runs `future` unless the service is stopped first.
    async fn unless_stopped<F: Future>(&self, future: F) -> Option<F::Output> {
        let (mut future, mut stopped) = (pin!(future), pin!(self.stopped()));
        poll_fn(|cx| match stopped.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => future.as_mut().poll(cx).map(Some),
        })
        .await
    }

    fn next_peer(&self) -> PeerId {
        let id = self.next_peer.get();
        self.next_peer.set(id + 1);
        PeerId::new(id)
    }
}

/// Counts a task of the service while it lives.
struct Task {
    shared: Rc<Shared>,
}

impl Task {
    fn start(shared: &Rc<Shared>) -> Self {
        shared.tasks.set(shared.tasks.get() + 1);
        Self {
            shared: Rc::clone(shared),
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.shared.tasks.set(self.shared.tasks.get() - 1);
        self.shared.idle.notify_all();
    }
}

async fn accept(task: Task, mut listener: Listener) {
    let shared = Rc::clone(&task.shared);
    while let Some(incoming) = shared.unless_stopped(listener.accept()).await {
        match incoming {
            Ok(incoming) if shared.tasks.get() <= shared.options.connections_max => {
                drop(spawn(connection(Task::start(&shared), incoming)));
            }
            Ok(_) => {
                tracing::warn!(endpoint = %shared.endpoint, "too many connections: one refused");
            }
            Err(error) => {
                tracing::warn!(endpoint = %shared.endpoint, %error, "cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // The endpoint is free before the task is counted out.
    #[cfg(feature = "rdma")]
    let is_both = matches!(listener.endpoint(), Endpoint::Both(_));
    drop(listener);
    // Its accept was under way when it was dropped: the rings end that in their next turns.
    #[cfg(feature = "rdma")]
    if is_both {
        sleep(ACCEPT_PAUSE).await;
    }
    drop(task);
}

async fn connection(task: Task, incoming: Incoming) {
    let shared = &task.shared;
    let handshake = incoming.handshake(&shared.hello, shared.options.connection);
    let connection = match shared.unless_stopped(handshake).await {
        None => return,
        Some(Ok(connection)) => connection,
        Some(Err(error)) => {
            tracing::debug!(endpoint = %shared.endpoint, %error, "handshake failed");
            return;
        }
    };
    let (sender, mut receiver) = connection.split();
    let peer = Peer::new(shared.next_peer(), sender, shared.hello.credits);
    shared.peers.borrow_mut().insert(peer.id(), peer.clone());
    let cause = dispatch(shared, &peer, &mut receiver).await;
    shared.peers.borrow_mut().remove(&peer.id());
    tracing::debug!(peer = %peer.hello().name, error = %cause, "connection ended");
    receiver.linger().await;
}

async fn dispatch(shared: &Shared, peer: &Peer, receiver: &mut FrameReceiver) -> TransportError {
    loop {
        match receiver.recv().await {
            Ok(frame) => match peer.admit(&frame.header) {
                Ok(()) => (shared.handler)(peer.clone(), frame),
                Err(error) => peer.refuse(&frame.header, error),
            },
            Err(cause) => return cause,
        }
    }
}
