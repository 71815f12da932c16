//! Request and reply, and append streams, over one connection that heals itself.
//!
//! *Place*: what `client` and `group` use to reach one peer. *Owner*: one shard; a driver task per
//! caller connects, reads and dispatches; one expiry task per connection watches deadlines.
//!
//! *Invariants*: at most as many calls are in flight as the peer offered credits, including those
//! that gave up and whose reply is still to come. A reply reaches the call that it answers or
//! nobody: slots carry a generation. A call whose request was never queued says so.
//!
//! *On failure*: a lost connection fails every call in flight at once, with whether it was sent,
//! and ends every stream; then the driver reconnects with jittered, growing pauses. Nothing is
//! retried here, since only the layer above knows what may be repeated.

mod append;
mod backoff;
mod driver;
mod expiry;
mod request;
mod session;
mod slots;

pub use append::{StreamReceiver, StreamSender};

use crate::endpoint::Endpoint;
use crate::error::CallError;
use crate::frame::Frame;
use crate::hello::Hello;
use crate::options::CallerOptions;
use driver::Shared;
use ogee_runtime::{now, spawn};
use std::rc::Rc;
use std::time::Duration;

/// Request and reply, and append streams, over one connection that heals itself. Clones share it;
/// when the last is dropped the connection closes.
#[derive(Clone)]
pub struct Caller {
    handle: Rc<Handle>,
}

struct Handle {
    shared: Rc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Caller {
    /// Starts connecting, with default options.
    #[must_use]
    pub fn new(endpoint: Endpoint, hello: Hello) -> Self {
        Self::with_options(endpoint, hello, CallerOptions::default())
    }

    /// Starts connecting.
    #[must_use]
    pub fn with_options(endpoint: Endpoint, hello: Hello, options: CallerOptions) -> Self {
        let shared = Rc::new(Shared::new(endpoint, hello, options));
        drop(spawn(driver::run(Rc::clone(&shared))));
        Self {
            handle: Rc::new(Handle { shared }),
        }
    }

    /// Where to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        self.handle.shared.endpoint()
    }

    /// Who answers, while connected.
    #[must_use]
    pub fn peer(&self) -> Option<Hello> {
        self.handle
            .shared
            .session()
            .map(|session| session.peer().clone())
    }

    /// Whether nobody listens at the endpoint: the last attempt to connect was refused. The process
    /// that served there is gone, or was a moment ago; one that is only silent refuses nothing.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.handle.shared.is_refused()
    }

    /// Sends a request and waits for its reply, within the default time. The caller sets every
    /// field of the header but `request_id`, lengths and checksum. Dropping the future gives the
    /// call up: its credit comes back with the late reply.
    ///
    /// # Errors
    /// [`CallError`]; see [`CallError::outcome_unknown`].
    pub async fn call(&self, frame: Frame) -> Result<Frame, CallError> {
        self.call_within(frame, self.handle.shared.options().call_timeout)
            .await
    }

    /// The same within `limit`, which covers waiting for a connection and for a credit.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_within(&self, frame: Frame, limit: Duration) -> Result<Frame, CallError> {
        request::run(&self.handle.shared, frame, now() + limit, limit).await
    }

    /// Opens a stream on the current connection, waiting for one if need be. At most `replies_max`
    /// replies may wait unread: more end the stream, so it must be at least the number of frames
    /// that the user keeps unanswered.
    ///
    /// # Errors
    /// [`CallError::Unreachable`].
    pub async fn open_stream(
        &self,
        replies_max: usize,
    ) -> Result<(StreamSender, StreamReceiver), CallError> {
        let shared = &self.handle.shared;
        let session = shared
            .wait_session(now() + shared.options().connect_wait)
            .await?;
        Ok(append::open(&session, replies_max))
    }
}
