//! A protection domain: what may touch what.
//!
//! *Place*: one per device and thread; memory, rails and windows are made in it. *Owner*: whoever opened it;
//! everything made in it holds it. *Invariants*: its device stays open while it lives, and one that is gone is closed behind
//! the last of them. *On failure*: an error that names the device.

use crate::api::{Api, RawAsyncEvent};
use crate::device::{Opened, Use, name_of};
use crate::error::{RdmaError, check};
use libc::c_uint;
use rdma_sys::{ibv_context, ibv_context_ops, ibv_pd, ibv_qp};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::rc::Rc;

/// A protection domain on a device.
#[derive(Clone)]
pub struct Domain {
    pub(crate) inner: Rc<DomainInner>,
}

pub(crate) struct DomainInner {
    pub(crate) api: &'static Api,
    pub(crate) context: NonNull<ibv_context>,
    /// The driver's functions.
    pub(crate) ops: ibv_context_ops,
    pub(crate) raw: NonNull<ibv_pd>,
    pub(crate) device: String,
    /// Behind the domain itself, and before the device closes.
    used: Use,
    /// Last: the device closes behind the domain.
    _opened: Rc<Opened>,
}

/// Something happened to a device, or to a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsyncEvent {
    /// A port works again.
    PortActive,
    /// A port has lost its link.
    PortDown,
    /// The device is gone, or must be reset: everything on it is broken.
    DeviceFatal,
    /// A completion queue overflowed.
    CompletionQueueError,
    /// A connection broke in a way that no completion tells.
    PairError,
    /// A shared receive queue broke.
    ReceiveQueueError,
    /// An address of a port came, went or changed.
    AddressChange,
    /// Somebody in this process was told that the device goes away: see [`Domain::is_gone`].
    DeviceRemoved,
    /// Something that needs no answer, or that this version does not know.
    Other(u32),
}

/// Something happened, and to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceEvent {
    /// What.
    pub what: AsyncEvent,
    /// Of a pair its hardware's number, of a queue its address, of a port its number.
    pub(crate) of: u64,
}

impl DeviceEvent {
    /// Of an event of a port, its number.
    #[must_use]
    pub fn port(&self) -> u8 {
        u8::try_from(self.of).unwrap_or(0)
    }
}

impl Domain {
    /// A domain on the device called `name`; on the first, for `None`.
    ///
    /// # Errors
    /// [`RdmaError`] when there is no such device, or no RDMA here at all.
    pub fn open(name: Option<&str>) -> Result<Self, RdmaError> {
        let opened = Opened::all()?;
        let api = opened.api();
        let names: Vec<String> = opened
            .contexts()
            .iter()
            .map(|context| name_of(api, *context))
            .collect();
        let at = match name {
            None => Some(0),
            Some(name) => names.iter().position(|known| known == name),
        };
        let Some(at) = at else {
            return Err(RdmaError::UnknownDevice {
                name: name.unwrap_or_default().into(),
                found: names.join(", "),
            });
        };
        let context = opened.contexts()[at];
        // SAFETY: a valid context; its functions do not change after it was opened.
        let ops = unsafe { (*context.as_ptr()).ops };
        let used = Use::begin(context);
        let async_fd = async_fd(context);
        set_nonblocking(async_fd).map_err(|source| RdmaError::call("fcntl", source))?;
        // SAFETY: a valid context.
        let raw = unsafe { (api.ibv_alloc_pd)(context.as_ptr()) };
        let raw = NonNull::new(raw).ok_or_else(|| RdmaError::last("ibv_alloc_pd"))?;
        Ok(Self {
            inner: Rc::new(DomainInner {
                api,
                context,
                ops,
                raw,
                device: names[at].clone(),
                used,
                _opened: opened,
            }),
        })
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.inner.device
    }

    /// The device goes away, as an event of a connection tells: the process lets go of it behind its last domain there. Some
    /// drivers (rxe) wait for that, and tell those of nothing who have no connection, so all who watch the device hear of it.
    pub fn gone(&self) {
        self.inner.used.gone();
        let (what, of) = (AsyncEvent::DeviceRemoved, 0);
        crate::events::tell(&self.inner.device, DeviceEvent { what, of });
    }

    /// Whether the device that was opened has gone away; another one may have its name.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.inner.used.is_gone()
    }

    /// The next event of the device, if there is one; wait for the descriptor of [`AsFd`].
    ///
    /// A process has one queue of them for each device, whatever domains it has opened there: see
    /// [`Watch`](crate::Watch).
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn next_event(&self) -> Result<Option<DeviceEvent>, RdmaError> {
        let (api, mut raw) = (self.inner.api, MaybeUninit::<RawAsyncEvent>::zeroed());
        // SAFETY: the context is valid, its descriptor does not block, and there is room for an event.
        let returned =
            unsafe { (api.ibv_get_async_event)(self.inner.context.as_ptr(), raw.as_mut_ptr()) };
        if let Err(error) = check("ibv_get_async_event", returned) {
            return none_if_empty(error);
        }
        // SAFETY: zeroed, and then written as far as the event needs.
        let mut raw = unsafe { raw.assume_init() };
        let what = AsyncEvent::of(raw.event_type);
        let of = match what {
            // SAFETY: its pair is not destroyed before the event is acknowledged.
            AsyncEvent::PairError => unsafe { (*raw.element.cast::<ibv_qp>()).qp_num }.into(),
            _ => raw.element.addr() as u64,
        };
        let of = match what {
            // The union has a number of four bytes there.
            AsyncEvent::PortActive | AsyncEvent::PortDown => of & 0xffff_ffff,
            _ => of,
        };
        let event = DeviceEvent { what, of };
        // SAFETY: an event that was got and not yet acknowledged.
        unsafe { (api.ibv_ack_async_event)(&raw mut raw) };
        Ok(Some(event))
    }
}

/// The descriptor of the device's events; the caller holds what keeps the context.
fn async_fd(context: NonNull<ibv_context>) -> i32 {
    // SAFETY: a valid context; read by its address, since C locks other parts of it.
    unsafe { (*context.as_ptr()).async_fd }
}

/// No event is no error.
pub(crate) fn none_if_empty<T>(error: RdmaError) -> Result<Option<T>, RdmaError> {
    match &error {
        RdmaError::Call { source, .. } if source.kind() == io::ErrorKind::WouldBlock => Ok(None),
        _ => Err(error),
    }
}

pub(crate) fn set_nonblocking(fd: i32) -> io::Result<()> {
    // SAFETY: reads flags of a descriptor; a wrong number is an error.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: sets flags of a descriptor.
    let set = unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl AsFd for Domain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let fd = async_fd(self.inner.context);
        // SAFETY: open as long as the context, which the domain holds.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

impl Drop for DomainInner {
    fn drop(&mut self) {
        // SAFETY: everything made in the domain holds it, so nothing of that is left.
        unsafe { (self.api.ibv_dealloc_pd)(self.raw.as_ptr()) };
    }
}

impl AsyncEvent {
    const fn of(number: c_uint) -> Self {
        match number {
            0 => Self::CompletionQueueError,
            1..=3 | 7 => Self::PairError,
            8 => Self::DeviceFatal,
            9 => Self::PortActive,
            10 => Self::PortDown,
            14 => Self::ReceiveQueueError,
            11 | 18 => Self::AddressChange,
            other => Self::Other(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::AsyncEvent;
    use rdma_sys::ibv_event_type;

    #[test]
    fn events_are_known_by_the_headers_numbers() {
        let of = |event: ibv_event_type| AsyncEvent::of(event as u32);
        assert_eq!(
            of(ibv_event_type::IBV_EVENT_CQ_ERR),
            AsyncEvent::CompletionQueueError
        );
        assert_eq!(
            of(ibv_event_type::IBV_EVENT_QP_FATAL),
            AsyncEvent::PairError
        );
        assert_eq!(
            of(ibv_event_type::IBV_EVENT_DEVICE_FATAL),
            AsyncEvent::DeviceFatal
        );
        assert_eq!(
            of(ibv_event_type::IBV_EVENT_PORT_ACTIVE),
            AsyncEvent::PortActive
        );
        assert_eq!(of(ibv_event_type::IBV_EVENT_PORT_ERR), AsyncEvent::PortDown);
        assert_eq!(
            of(ibv_event_type::IBV_EVENT_SRQ_ERR),
            AsyncEvent::ReceiveQueueError
        );
        assert_eq!(
            of(ibv_event_type::IBV_EVENT_GID_CHANGE),
            AsyncEvent::AddressChange
        );
        assert_eq!(AsyncEvent::of(4711), AsyncEvent::Other(4711));
    }
}
