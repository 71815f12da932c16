//! The devices of this host.
//!
//! *Place*: found through the connection manager, so that its connections and our memory share one opened
//! device. *Owner*: an `Opened` list, held by every domain; a table of the process counts the domains of each context.
//! *Invariants*: a context is valid while the list that it came from lives. The kernel's side of one whose device is gone is
//! closed behind its last domain, whatever the connection manager keeps. *On failure*: [`RdmaError::NoDevice`], also where
//! the kernel has no RDMA at all.

use crate::api::{Api, api};
use crate::error::{RdmaError, check};
use crate::sysfs::{self, Gid};
use rdma_sys::{ibv_context, ibv_device_attr, ibv_port_attr, ibv_port_state};
use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// A device, as far as it matters for choosing one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name, such as `mlx5_0`.
    pub name: String,
    /// Connections that it takes.
    pub pairs_max: u32,
    /// Requests under way of one connection.
    pub pair_depth_max: u32,
    /// Entries of one completion queue.
    pub completions_max: u32,
    /// Receive buffers of one shared queue.
    pub receives_max: u32,
    /// RDMA READs under way towards one connection.
    pub reads_max: u32,
    /// Memory windows; 0: it has none.
    pub windows_max: u32,
    /// Completion queues.
    pub completion_queues_max: u32,
    /// Shared receive queues.
    pub receive_queues_max: u32,
    /// Registered ranges of memory.
    pub regions_max: u32,
    /// Pieces of memory of one send.
    pub send_parts_max: u32,
    /// Pieces of memory of one receive of a shared queue.
    pub receive_parts_max: u32,
    /// Its ports.
    pub ports: Vec<PortInfo>,
}

/// A port of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// Its number, from 1.
    pub number: u8,
    /// Whether it works.
    pub state: PortState,
    /// Whether it is Ethernet (RoCE), not InfiniBand.
    pub is_ethernet: bool,
    /// Bytes of a packet that it uses.
    pub mtu: u32,
    /// Its addresses.
    pub gids: Vec<Gid>,
}

/// Whether a port works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortState {
    /// Packets go through.
    Active,
    /// No link.
    Down,
    /// On its way between the two (or another state that a driver has made up).
    Other(u32),
}

/// `IBV_LINK_LAYER_ETHERNET`.
const ETHERNET: u8 = 2;

/// All devices, opened.
pub(crate) struct Opened {
    api: &'static Api,
    list: NonNull<*mut ibv_context>,
    contexts: Vec<NonNull<ibv_context>>,
}

impl Opened {
    pub(crate) fn all() -> Result<Rc<Self>, RdmaError> {
        let (api, mut count) = (api()?, 0);
        // SAFETY: the count is written before it returns.
        let list = unsafe { (api.rdma_get_devices)(&raw mut count) };
        let Some(list) = NonNull::new(list) else {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                Some(libc::ENODEV | libc::ENOENT | libc::ENOSYS | 0) | None => RdmaError::NoDevice,
                _ => RdmaError::call("rdma_get_devices", error),
            });
        };
        let mut opened = Self {
            api,
            list,
            contexts: Vec::new(),
        };
        for at in 0..usize::try_from(count).unwrap_or(0) {
            // SAFETY: within the list, which has `count` entries.
            let entry = unsafe { list.add(at) };
            // SAFETY: the same; an entry is a pointer.
            let context = unsafe { entry.read() };
            opened.contexts.extend(NonNull::new(context));
        }
        match opened.contexts.is_empty() {
            true => Err(RdmaError::NoDevice),
            false => Ok(Rc::new(opened)),
        }
    }

    pub(crate) fn contexts(&self) -> &[NonNull<ibv_context>] {
        &self.contexts
    }

    pub(crate) fn api(&self) -> &'static Api {
        self.api
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: the list is ours, and nothing made from a context is left: it would hold us.
        unsafe { (self.api.rdma_free_devices)(self.list.as_ptr()) };
    }
}

/// A domain's use of a context, until it is dropped.
pub(crate) struct Use {
    context: NonNull<ibv_context>,
}

/// How a context is used, by its address.
static USES: LazyLock<Mutex<HashMap<usize, Uses>>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Uses {
    domains: usize,
    is_gone: bool,
}

fn uses() -> MutexGuard<'static, HashMap<usize, Uses>> {
    // Nothing that may panic runs under the lock.
    USES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Use {
    pub(crate) fn begin(context: NonNull<ibv_context>) -> Self {
        uses().entry(context.addr().get()).or_default().domains += 1;
        Self { context }
    }

    /// Its device is gone.
    pub(crate) fn gone(&self) {
        let mut uses = uses();
        if let Some(uses) = uses.get_mut(&self.context.addr().get()) {
            uses.is_gone = true;
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        let uses = uses();
        let of_this = uses.get(&self.context.addr().get());
        of_this.is_some_and(|uses| uses.is_gone)
    }
}

impl Drop for Use {
    /// The connection manager opens each device once for the process, and never closes the last one that there was. A driver
    /// that waits until nobody has its device open would wait for the process to end.
    fn drop(&mut self) {
        let mut uses = uses();
        let Some(of_this) = uses.get_mut(&self.context.addr().get()) else {
            return;
        };
        of_this.domains -= 1;
        if of_this.domains > 0 {
            return;
        }
        let is_gone = of_this.is_gone;
        uses.remove(&self.context.addr().get());
        if is_gone {
            // Under the lock: nobody begins to use it meanwhile.
            let_go(self.context);
        }
    }
}

/// Closes the kernel's side of a context whose domains are all gone; the caller's list keeps the context itself. Its
/// descriptors keep their numbers, for the library to close: it may do so years later.
fn let_go(context: NonNull<ibv_context>) {
    let Ok(nothing) = File::options().read(true).write(true).open("/dev/null") else {
        // Then the driver waits until the process ends, and no more than that is lost.
        return;
    };
    // SAFETY: a valid context.
    let of_commands = unsafe { (*context.as_ptr()).cmd_fd };
    // SAFETY: the same.
    let of_events = unsafe { (*context.as_ptr()).async_fd };
    for fd in [of_events, of_commands] {
        // SAFETY: descriptors of the context, that nobody else waits on or reads: its domains are gone.
        unsafe { libc::dup3(nothing.as_raw_fd(), fd, libc::O_CLOEXEC) };
    }
}

/// The name of the device behind an opened context.
pub(crate) fn name_of(api: &Api, context: NonNull<ibv_context>) -> String {
    // SAFETY: a context is valid while its list lives, which the caller holds.
    let device = unsafe { (*context.as_ptr()).device };
    // SAFETY: the device of a valid context.
    let name = unsafe { (api.ibv_get_device_name)(device) };
    if name.is_null() {
        return "unknown".into();
    }
    // SAFETY: a C string that lives as long as the device.
    let name = unsafe { CStr::from_ptr(name) };
    name.to_string_lossy().into_owned()
}

/// The devices of this host, with their ports.
///
/// # Errors
/// [`RdmaError::Library`] and [`RdmaError::NoDevice`], or the call that failed.
pub fn devices() -> Result<Vec<DeviceInfo>, RdmaError> {
    let opened = Opened::all()?;
    let contexts = opened.contexts().iter();
    contexts
        .map(|context| info(opened.api(), *context))
        .collect()
}

fn info(api: &Api, context: NonNull<ibv_context>) -> Result<DeviceInfo, RdmaError> {
    let mut attributes = MaybeUninit::<ibv_device_attr>::zeroed();
    // SAFETY: the context is valid, and there is room for what is written.
    let returned = unsafe { (api.ibv_query_device)(context.as_ptr(), attributes.as_mut_ptr()) };
    check("ibv_query_device", returned)?;
    // SAFETY: plain integers, zeroed before.
    let attributes = unsafe { attributes.assume_init() };
    let name = name_of(api, context);
    let limit = |value: i32| u32::try_from(value).unwrap_or(0);
    let ports = 1..=attributes.phys_port_cnt;
    Ok(DeviceInfo {
        ports: ports
            .map(|number| port(api, context, &name, number))
            .collect::<Result<_, _>>()?,
        pairs_max: limit(attributes.max_qp),
        pair_depth_max: limit(attributes.max_qp_wr),
        completions_max: limit(attributes.max_cqe),
        receives_max: limit(attributes.max_srq_wr),
        reads_max: limit(attributes.max_qp_rd_atom),
        windows_max: limit(attributes.max_mw),
        completion_queues_max: limit(attributes.max_cq),
        receive_queues_max: limit(attributes.max_srq),
        regions_max: limit(attributes.max_mr),
        send_parts_max: limit(attributes.max_sge),
        receive_parts_max: limit(attributes.max_srq_sge),
        name,
    })
}

fn port(
    api: &Api,
    context: NonNull<ibv_context>,
    device: &str,
    number: u8,
) -> Result<PortInfo, RdmaError> {
    // The function writes the fields up to `link_layer`; the rest stays zero.
    let mut attributes = MaybeUninit::<ibv_port_attr>::zeroed();
    // SAFETY: the context is valid, and there is room for what is written.
    let returned =
        unsafe { (api.ibv_query_port)(context.as_ptr(), number, attributes.as_mut_ptr()) };
    check("ibv_query_port", returned)?;
    // SAFETY: plain integers, zeroed before.
    let attributes = unsafe { attributes.assume_init() };
    let state = match attributes.state {
        ibv_port_state::IBV_PORT_ACTIVE => PortState::Active,
        ibv_port_state::IBV_PORT_DOWN => PortState::Down,
        other => PortState::Other(other),
    };
    Ok(PortInfo {
        number,
        state,
        is_ethernet: attributes.link_layer == ETHERNET,
        // 1 stands for 256 bytes, 5 for 4096.
        mtu: match attributes.active_mtu {
            code @ 1..=5 => 128 << code,
            _ => 0,
        },
        gids: sysfs::gids(device, number),
    })
}
