//! One end of a connection before it has a queue pair, and listeners.
//!
//! *Place*: made on a [`Channel`], or brought by a request; becomes a [`Pair`](crate::Pair). *Owner*: whoever
//! holds it. *Invariants*: its channel outlives it; its queue pair is destroyed before it. *On failure*: an error
//! that names the call; what fails later comes as an event.

use crate::channel::{Channel, ChannelInner};
use crate::error::{RdmaError, check};
use libc::{c_int, sockaddr};
use rdma_sys::{rdma_cm_id, rdma_conn_param, rdma_port_space};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr::{NonNull, null, null_mut, without_provenance_mut};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes that a request to connect carries: 92, of which the connection manager takes 36.
const CONNECT_DATA_MAX: usize = 56;
/// Bytes that an answer carries.
const ACCEPT_DATA_MAX: usize = 196;
/// Means the least of what the peer asks for and the device takes.
const READS_MAX: u8 = 255;
/// 7 means for ever.
const RETRY_MAX: u8 = 6;

const OPTION_ID: c_int = 0;
const OPTION_ID_TOS: c_int = 0;
const OPTION_ID_ACK_TIMEOUT: c_int = 3;

/// One end of a connection before it has a queue pair, or a listener.
#[derive(Debug)]
pub struct Id {
    raw: NonNull<rdma_cm_id>,
    key: IdKey,
    channel: Rc<ChannelInner>,
}

/// Tells whose an event is; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdKey(usize);

impl IdKey {
    fn next() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Of an id that an event is about: it is carried as the id's context.
    ///
    /// # Safety
    /// `raw` is an id of ours that is not destroyed, or null.
    pub(crate) unsafe fn of(raw: *const rdma_cm_id) -> Self {
        if raw.is_null() {
            return Self(0);
        }
        // SAFETY: by the caller.
        let context = unsafe { (*raw).context };
        Self(context.addr())
    }
}

impl std::fmt::Debug for ChannelInner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Channel")
    }
}

/// How a connection is made.
#[derive(Debug, Clone)]
pub struct ConnectParams {
    /// RDMA READs under way in each direction; at most what the device takes. Who accepts takes what was asked.
    pub reads: u8,
    /// How often a packet is sent again when nobody acknowledges it; at most 6.
    pub retries: u8,
    /// How often a send is tried again when the peer has no receive buffer; at most 6.
    pub receiver_retries: u8,
    /// For the peer: at most 56 bytes with a request, 196 with an answer.
    pub data: Vec<u8>,
}

impl Default for ConnectParams {
    fn default() -> Self {
        Self {
            reads: 16,
            retries: 3,
            receiver_retries: 3,
            data: Vec::new(),
        }
    }
}

impl Id {
    /// An id for a connection to come, or a listener.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn new(channel: &Channel) -> Result<Self, RdmaError> {
        let (inner, mut raw) = (&channel.inner, null_mut());
        let (space, key) = (rdma_port_space::RDMA_PS_TCP, IdKey::next());
        // SAFETY: the channel is valid; there is room for the pointer; the context is only given back.
        let returned = unsafe {
            (inner.api.rdma_create_id)(
                inner.raw.as_ptr(),
                &raw mut raw,
                without_provenance_mut(key.0),
                space,
            )
        };
        check("rdma_create_id", returned)?;
        let raw = NonNull::new(raw).ok_or_else(|| RdmaError::last("rdma_create_id"))?;
        Ok(Self {
            raw,
            key,
            channel: inner.clone(),
        })
    }

    /// # Safety
    /// `raw` came with a request on `channel`, and nobody owns it.
    pub(crate) unsafe fn of_request(channel: &Channel, raw: NonNull<rdma_cm_id>) -> Self {
        let key = IdKey::next();
        // SAFETY: by the caller; it has inherited the listener's.
        unsafe { (*raw.as_ptr()).context = without_provenance_mut(key.0) };
        Self {
            raw,
            key,
            channel: channel.inner.clone(),
        }
    }

    /// Tells its events.
    #[must_use]
    pub const fn key(&self) -> IdKey {
        self.key
    }

    pub(crate) fn raw(&self) -> NonNull<rdma_cm_id> {
        self.raw
    }

    /// Takes requests at `address`; with port 0 at a free one. Returns the port.
    ///
    /// # Errors
    /// When no device has that address, or another process listens there.
    pub fn listen(&self, address: SocketAddr, backlog: u16) -> Result<u16, RdmaError> {
        let (api, raw) = (self.channel.api, self.raw.as_ptr());
        let mut address = Address::of(address);
        // SAFETY: a valid id; the address is copied.
        let returned = unsafe { (api.rdma_bind_addr)(raw, address.as_mut()) };
        check("rdma_bind_addr", returned)?;
        // SAFETY: a valid id.
        let returned = unsafe { (api.rdma_listen)(raw, c_int::from(backlog)) };
        check("rdma_listen", returned)?;
        // SAFETY: a valid id.
        let port = unsafe { (api.rdma_get_src_port)(raw) };
        Ok(u16::from_be(port))
    }

    /// Looks for the device that leads to `address`; then comes `AddressResolved`.
    ///
    /// # Errors
    /// When it cannot even be tried.
    pub fn resolve(&self, address: SocketAddr, limit: Duration) -> Result<(), RdmaError> {
        let mut address = Address::of(address);
        // SAFETY: a valid id; the address is copied.
        let returned = unsafe {
            (self.channel.api.rdma_resolve_addr)(
                self.raw.as_ptr(),
                null_mut(),
                address.as_mut(),
                millis(limit),
            )
        };
        check("rdma_resolve_addr", returned)
    }

    /// Looks for the route; then comes `RouteResolved`.
    ///
    /// # Errors
    /// When it cannot even be tried.
    pub fn resolve_route(&self, limit: Duration) -> Result<(), RdmaError> {
        // SAFETY: a valid id.
        let returned =
            unsafe { (self.channel.api.rdma_resolve_route)(self.raw.as_ptr(), millis(limit)) };
        check("rdma_resolve_route", returned)
    }

    /// The traffic class of its packets (DSCP in the upper six bits); before it resolves or listens.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn set_traffic_class(&self, class: u8) -> Result<(), RdmaError> {
        self.set_option(OPTION_ID_TOS, class)
    }

    /// How long an acknowledgement may take: 4.096 µs × 2^`exponent`; before it connects or accepts.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn set_ack_timeout(&self, exponent: u8) -> Result<(), RdmaError> {
        self.set_option(OPTION_ID_ACK_TIMEOUT, exponent)
    }

    fn set_option(&self, name: c_int, mut value: u8) -> Result<(), RdmaError> {
        // SAFETY: a valid id; the value is a byte, as both options want, and is copied.
        let returned = unsafe {
            (self.channel.api.rdma_set_option)(
                self.raw.as_ptr(),
                OPTION_ID,
                name,
                (&raw mut value).cast(),
                size_of::<u8>(),
            )
        };
        check("rdma_set_option", returned)
    }

    /// Refuses a request, with up to 148 bytes for the peer.
    ///
    /// # Errors
    /// When it is over already.
    pub fn reject(self, data: &[u8]) -> Result<(), RdmaError> {
        let len = u8::try_from(data.len()).ok().filter(|len| *len <= 148);
        let len = len.ok_or(RdmaError::TooMuch {
            what: "the data of a refusal",
            value: data.len(),
            limit: 148,
        })?;
        // SAFETY: a valid id; the data is copied.
        let returned =
            unsafe { (self.channel.api.rdma_reject)(self.raw.as_ptr(), data.as_ptr().cast(), len) };
        check("rdma_reject", returned)
    }

    pub(crate) fn connect(&self, params: &ConnectParams) -> Result<(), RdmaError> {
        let mut raw = params.raw(CONNECT_DATA_MAX)?;
        // SAFETY: a valid id with a queue pair; the parameters are copied.
        let returned = unsafe { (self.channel.api.rdma_connect)(self.raw.as_ptr(), &raw mut raw) };
        check("rdma_connect", returned)
    }

    pub(crate) fn accept(&self, params: &ConnectParams) -> Result<(), RdmaError> {
        let mut raw = params.raw(ACCEPT_DATA_MAX)?;
        // As many as the request and the device have.
        (raw.responder_resources, raw.initiator_depth) = (READS_MAX, READS_MAX);
        // SAFETY: a valid id with a queue pair; the parameters are copied.
        let returned = unsafe { (self.channel.api.rdma_accept)(self.raw.as_ptr(), &raw mut raw) };
        check("rdma_accept", returned)
    }

    pub(crate) fn disconnect(&self) -> Result<(), RdmaError> {
        // SAFETY: a valid id.
        let returned = unsafe { (self.channel.api.rdma_disconnect)(self.raw.as_ptr()) };
        check("rdma_disconnect", returned)
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        // SAFETY: a valid id without a queue pair; all its events are acknowledged.
        unsafe { (self.channel.api.rdma_destroy_id)(self.raw.as_ptr()) };
    }
}

impl ConnectParams {
    fn raw(&self, data_max: usize) -> Result<rdma_conn_param, RdmaError> {
        let len = u8::try_from(self.data.len()).ok();
        let len = len.filter(|len| usize::from(*len) <= data_max);
        let private_data_len = len.ok_or(RdmaError::TooMuch {
            what: "the data of a connection",
            value: self.data.len(),
            limit: data_max,
        })?;
        for (what, value) in [
            ("retries", self.retries),
            ("receiver_retries", self.receiver_retries),
        ] {
            if value > RETRY_MAX {
                return Err(RdmaError::TooMuch {
                    what,
                    value: value.into(),
                    limit: RETRY_MAX.into(),
                });
            }
        }
        Ok(rdma_conn_param {
            private_data: match self.data.is_empty() {
                true => null(),
                false => self.data.as_ptr().cast(),
            },
            private_data_len,
            responder_resources: self.reads,
            initiator_depth: self.reads,
            flow_control: 0,
            retry_count: self.retries,
            rnr_retry_count: self.receiver_retries,
            srq: 0,
            qp_num: 0,
        })
    }
}

fn millis(limit: Duration) -> c_int {
    c_int::try_from(limit.as_millis()).unwrap_or(c_int::MAX)
}

/// A socket address as C has it.
union Address {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Address {
    fn of(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self {
                v4: Self::v4(address),
            },
            SocketAddr::V6(address) => Self {
                v6: Self::v6(address),
            },
        }
    }

    fn v4(address: SocketAddrV4) -> libc::sockaddr_in {
        libc::sockaddr_in {
            sin_family: family(libc::AF_INET),
            sin_port: address.port().to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes(address.ip().octets()),
            },
            sin_zero: [0; 8],
        }
    }

    fn v6(address: SocketAddrV6) -> libc::sockaddr_in6 {
        libc::sockaddr_in6 {
            sin6_family: family(libc::AF_INET6),
            sin6_port: address.port().to_be(),
            sin6_flowinfo: address.flowinfo(),
            sin6_addr: libc::in6_addr {
                s6_addr: address.ip().octets(),
            },
            sin6_scope_id: address.scope_id(),
        }
    }

    fn as_mut(&mut self) -> *mut sockaddr {
        (&raw mut *self).cast()
    }
}

fn family(number: c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(number).expect("invariant: a small constant")
}

#[cfg(test)]
mod tests {
    use super::{Address, ConnectParams};

    #[test]
    fn addresses_are_in_network_order() {
        let v4 = Address::v4("10.9.0.1:7000".parse().expect("an address"));
        assert_eq!(v4.sin_port.to_ne_bytes(), 7000_u16.to_be_bytes());
        assert_eq!(v4.sin_addr.s_addr.to_ne_bytes(), [10, 9, 0, 1]);
        let v6 = Address::v6("[fe80::1%3]:7000".parse().expect("an address"));
        assert_eq!((v6.sin6_addr.s6_addr[0], v6.sin6_scope_id), (0xfe, 3));
    }

    #[test]
    fn nothing_is_tried_for_ever() {
        let params = ConnectParams {
            retries: 7,
            ..ConnectParams::default()
        };
        let error = params.raw(56).err().expect("refused").to_string();
        assert!(
            error.contains("retries is 7") && error.contains('6'),
            "{error}"
        );
        let params = ConnectParams {
            data: vec![0; 57],
            ..ConnectParams::default()
        };
        assert!(params.raw(56).is_err() && params.raw(196).is_ok());
    }
}
