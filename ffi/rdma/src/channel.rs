//! Events of connections.
//!
//! *Place*: one per thread; every [`Id`] is made on one. *Owner*: its ids hold it. *Invariants*: an event is
//! copied and acknowledged at once, so no id's end waits for one. *On failure*: an event that this version does
//! not know is told by its number.

use crate::api::{Api, api};
use crate::domain::{none_if_empty, set_nonblocking};
use crate::error::{RdmaError, check};
use crate::id::{Id, IdKey};
use rdma_sys::{rdma_cm_event, rdma_cm_event_type as kind, rdma_event_channel};
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};
use std::rc::Rc;

/// Where events of connections come.
#[derive(Clone)]
pub struct Channel {
    pub(crate) inner: Rc<ChannelInner>,
}

pub(crate) struct ChannelInner {
    pub(crate) api: &'static Api,
    pub(crate) raw: NonNull<rdma_event_channel>,
}

/// An event of a connection.
#[derive(Debug)]
pub struct Event {
    /// Whose; of a request, the listener's.
    pub id: IdKey,
    /// What happened.
    pub kind: EventKind,
    /// 0, or why it failed: an errno, negative, or of a refusal the reason.
    pub status: i32,
    /// What the peer has sent with it. May be padded with zeros.
    pub data: Vec<u8>,
}

/// What happened to a connection.
#[derive(Debug)]
pub enum EventKind {
    /// The address was found.
    AddressResolved,
    /// It was not.
    AddressError,
    /// The route was found.
    RouteResolved,
    /// It was not.
    RouteError,
    /// Somebody wants to connect: accept or refuse; dropped, it is refused.
    Request(Id),
    /// Connected.
    Established,
    /// It could not be connected.
    ConnectError,
    /// Nobody answers there.
    Unreachable,
    /// Refused: nobody listens there, or whoever does does not want it.
    Rejected,
    /// Either side has disconnected.
    Disconnected,
    /// The device goes away: everything on it must be dropped.
    DeviceRemoval,
    /// The address moved to another device.
    AddressChange,
    /// The pair's number may be used anew.
    TimewaitExit,
    /// Another one, by its number.
    Other(u32),
}

impl Channel {
    /// A channel whose descriptor does not block.
    ///
    /// # Errors
    /// [`RdmaError::Library`] where rdma-core is missing, [`RdmaError::Call`] where the kernel has no RDMA.
    pub fn new() -> Result<Self, RdmaError> {
        let api = api()?;
        // SAFETY: takes nothing.
        let raw = unsafe { (api.rdma_create_event_channel)() };
        let raw = NonNull::new(raw).ok_or_else(|| RdmaError::last("rdma_create_event_channel"))?;
        let channel = Self {
            inner: Rc::new(ChannelInner { api, raw }),
        };
        set_nonblocking(channel.inner.fd()).map_err(|source| RdmaError::call("fcntl", source))?;
        Ok(channel)
    }

    /// The next event, if there is one; wait for the descriptor of [`AsFd`].
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn next(&self) -> Result<Option<Event>, RdmaError> {
        let (api, mut raw) = (self.inner.api, null_mut());
        // SAFETY: the channel is valid and does not block.
        let returned = unsafe { (api.rdma_get_cm_event)(self.inner.raw.as_ptr(), &raw mut raw) };
        if let Err(error) = check("rdma_get_cm_event", returned) {
            return none_if_empty(error);
        }
        let Some(raw) = NonNull::new(raw) else {
            return Ok(None);
        };
        // SAFETY: an event that was got and is not acknowledged yet.
        let event = unsafe { self.copy(raw) };
        // SAFETY: the same; it is not used after this.
        let returned = unsafe { (api.rdma_ack_cm_event)(raw.as_ptr()) };
        check("rdma_ack_cm_event", returned)?;
        Ok(Some(event))
    }

    /// # Safety
    /// `raw` is an event of this channel that is not acknowledged.
    unsafe fn copy(&self, raw: NonNull<rdma_cm_event>) -> Event {
        // SAFETY: by the caller.
        let raw = unsafe { raw.as_ref() };
        let is_request = raw.event == kind::RDMA_CM_EVENT_CONNECT_REQUEST;
        let data = match raw.event {
            kind::RDMA_CM_EVENT_CONNECT_REQUEST
            | kind::RDMA_CM_EVENT_ESTABLISHED
            | kind::RDMA_CM_EVENT_REJECTED => {
                // SAFETY: of these events the parameters are a connection's.
                let connection = unsafe { raw.param.conn };
                let len = usize::from(connection.private_data_len);
                if connection.private_data.is_null() {
                    Vec::new()
                } else {
                    // SAFETY: so many bytes, which live until the event is acknowledged.
                    let bytes = unsafe {
                        std::slice::from_raw_parts(connection.private_data.cast::<u8>(), len)
                    };
                    bytes.to_vec()
                }
            }
            _ => Vec::new(),
        };
        let of = if is_request { raw.listen_id } else { raw.id };
        // SAFETY: an event that is not acknowledged keeps its id, and a request's its listener.
        let id = unsafe { IdKey::of(of) };
        let kind = match (raw.event, NonNull::new(raw.id)) {
            (kind::RDMA_CM_EVENT_CONNECT_REQUEST, Some(id)) => {
                // SAFETY: an id that this event brings, and that nobody owns yet.
                EventKind::Request(unsafe { Id::of_request(self, id) })
            }
            (kind::RDMA_CM_EVENT_ADDR_RESOLVED, _) => EventKind::AddressResolved,
            (kind::RDMA_CM_EVENT_ADDR_ERROR, _) => EventKind::AddressError,
            (kind::RDMA_CM_EVENT_ROUTE_RESOLVED, _) => EventKind::RouteResolved,
            (kind::RDMA_CM_EVENT_ROUTE_ERROR, _) => EventKind::RouteError,
            (kind::RDMA_CM_EVENT_ESTABLISHED, _) => EventKind::Established,
            (kind::RDMA_CM_EVENT_CONNECT_ERROR, _) => EventKind::ConnectError,
            (kind::RDMA_CM_EVENT_UNREACHABLE, _) => EventKind::Unreachable,
            (kind::RDMA_CM_EVENT_REJECTED, _) => EventKind::Rejected,
            (kind::RDMA_CM_EVENT_DISCONNECTED, _) => EventKind::Disconnected,
            (kind::RDMA_CM_EVENT_DEVICE_REMOVAL, _) => EventKind::DeviceRemoval,
            (kind::RDMA_CM_EVENT_ADDR_CHANGE, _) => EventKind::AddressChange,
            (kind::RDMA_CM_EVENT_TIMEWAIT_EXIT, _) => EventKind::TimewaitExit,
            (other, _) => EventKind::Other(other),
        };
        Event {
            id,
            kind,
            status: raw.status,
            data,
        }
    }
}

impl ChannelInner {
    fn fd(&self) -> i32 {
        // SAFETY: a valid channel.
        unsafe { (*self.raw.as_ptr()).fd }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open as long as the channel.
        unsafe { BorrowedFd::borrow_raw(self.inner.fd()) }
    }
}

impl Drop for ChannelInner {
    fn drop(&mut self) {
        // SAFETY: its ids hold it, so none is left.
        unsafe { (self.api.rdma_destroy_event_channel)(self.raw.as_ptr()) };
    }
}
