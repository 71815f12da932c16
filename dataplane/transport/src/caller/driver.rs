//! The task that connects, reads and reconnects.

use super::backoff::Backoff;
use super::expiry;
use super::session::Session;
use crate::connection::{Connection, connect_with};
use crate::endpoint::Endpoint;
use crate::error::{CallError, Doing, TransportError};
use crate::hello::Hello;
use crate::metrics::count;
use crate::options::CallerOptions;
use crate::signal::WakerSlot;
use ogee_runtime::channel::Notify;
use ogee_runtime::{Instant, now, sleep, spawn, timeout_at};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

/// What a caller's handles and its driver share.
pub(super) struct Shared {
    endpoint: Endpoint,
    hello: Hello,
    options: CallerOptions,
    session: RefCell<Option<Rc<Session>>>,
    connected: Notify,
    last_error: RefCell<Option<TransportError>>,
    stopped: Cell<bool>,
    driver: WakerSlot,
}

impl Shared {
    pub(super) fn new(endpoint: Endpoint, hello: Hello, options: CallerOptions) -> Self {
        Self {
            endpoint,
            hello,
            options,
            session: RefCell::default(),
            connected: Notify::new(),
            last_error: RefCell::default(),
            stopped: Cell::new(false),
            driver: WakerSlot::default(),
        }
    }

    pub(super) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) const fn options(&self) -> &CallerOptions {
        &self.options
    }

    /// The current connection, if it works.
    pub(super) fn session(&self) -> Option<Rc<Session>> {
        let session = self.session.borrow();
        session
            .as_ref()
            .filter(|session| session.sender().cause().is_none())
            .cloned()
    }

    /// Whether there is no connection and the last attempt found nobody listening.
    pub(super) fn is_refused(&self) -> bool {
        let refused = matches!(
            &*self.last_error.borrow(),
            Some(TransportError::Io {
                doing: Doing::Connect,
                kind: ErrorKind::ConnectionRefused,
                ..
            })
        );
        refused && self.session().is_none()
    }

    /// The current connection, or the next one before `deadline`.
    pub(super) async fn wait_session(&self, deadline: Instant) -> Result<Rc<Session>, CallError> {
        loop {
            if let Some(session) = self.session() {
                return Ok(session);
            }
            if timeout_at(deadline, self.connected.notified())
                .await
                .is_err()
            {
                let (endpoint, cause) = (self.endpoint.clone(), self.last_error.borrow().clone());
                return Err(CallError::Unreachable { endpoint, cause });
            }
        }
    }

    /// No handle is left: the driver closes the connection and ends.
    pub(super) fn stop(&self) {
        self.stopped.set(true);
        if let Some(session) = &*self.session.borrow() {
            session.sender().close();
        }
        self.driver.wake();
    }

    async fn unless_stopped<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if self.stopped.get() {
                return Poll::Ready(None);
            }
            self.driver.register(cx);
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

/// Connects, serves the connection until it ends, pauses, and again.
pub(super) async fn run(shared: Rc<Shared>) {
    let options = shared.options;
    let mut backoff = Backoff::new(options.backoff_min, options.backoff_max);
    let mut reconnect = false;
    while let Some(outcome) = shared.unless_stopped(attempt(&shared)).await {
        let started = now();
        let error = match outcome {
            Ok(connection) => {
                count(|metrics| metrics.reconnects.add(usize::from(reconnect)));
                reconnect = true;
                serve(&shared, connection).await
            }
            Err(error) => error,
        };
        tracing::debug!(endpoint = %shared.endpoint, %error, "not connected");
        *shared.last_error.borrow_mut() = Some(error);
        // A peer that accepts and hangs up at once must not be dialled in a tight loop.
        if now() - started >= options.backoff_max {
            backoff.reset();
        }
        if shared
            .unless_stopped(sleep(backoff.pause()))
            .await
            .is_none()
        {
            return;
        }
    }
}

async fn attempt(shared: &Shared) -> Result<Connection, TransportError> {
    let options = shared.options.connection;
    let connection = connect_with(&shared.endpoint, &shared.hello, options).await?;
    if connection.peer().credits == 0 {
        return Err(TransportError::NoCredits);
    }
    Ok(connection)
}

async fn serve(shared: &Shared, connection: Connection) -> TransportError {
    let (sender, mut receiver) = connection.split();
    let session = Rc::new(Session::new(sender));
    *shared.session.borrow_mut() = Some(Rc::clone(&session));
    shared.connected.notify_all();
    drop(spawn(expiry::run(Rc::clone(&session))));
    let cause = loop {
        match receiver.recv().await {
            Ok(frame) => {
                if let Err(error) = session.deliver(frame) {
                    session.sender().close_because(error);
                }
            }
            Err(cause) => break cause,
        }
    };
    drop(receiver);
    *shared.session.borrow_mut() = None;
    session.end();
    cause
}
