//! The functions of rdma-core, looked up when the program runs.
//!
//! *Place*: the only way to C from here. *Owner*: the process; loaded once, never unloaded, since providers
//! keep state of their own. *Invariants*: every signature is the one of rdma-core's headers, version 1.8 of
//! libibverbs and 1.2 of librdmacm or newer; those did not change since. *On failure*: an error that names the
//! library, or the function that it lacks.

use crate::error::RdmaError;
use libc::{c_char, c_int, c_uint, c_void, sockaddr};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use rdma_sys::{
    ibv_comp_channel, ibv_context, ibv_cq, ibv_device, ibv_device_attr, ibv_mr, ibv_pd,
    ibv_port_attr, ibv_qp, ibv_qp_attr, ibv_qp_init_attr, ibv_srq, ibv_srq_init_attr,
    rdma_cm_event, rdma_cm_id, rdma_conn_param, rdma_event_channel,
};
use std::sync::OnceLock;

/// As in `verbs.h`; rdma-sys's has a Rust enum in it, which an unknown event would be outside of.
#[repr(C)]
pub(crate) struct RawAsyncEvent {
    /// A union of pointers and a port's number.
    pub(crate) element: *mut c_void,
    pub(crate) event_type: c_uint,
}

macro_rules! functions {
    ($($library:literal { $(fn $name:ident($($argument:ty),*) $(-> $returned:ty)?;)* })*) => {
        /// All of them.
        pub(crate) struct Api {
            $($(pub(crate) $name: unsafe extern "C" fn($($argument),*) $(-> $returned)?,)*)*
        }

        fn load() -> Result<Api, Missing> {
            $(
                let library = open($library)?;
                $(
                    // SAFETY: the signature is the header's, see the module.
                    let found = unsafe {
                        library.get::<unsafe extern "C" fn($($argument),*) $(-> $returned)?>(
                            concat!(stringify!($name), "\0").as_bytes(),
                        )
                    };
                    let $name = *found.map_err(|error| Missing {
                        library: $library,
                        reason: error.to_string(),
                    })?;
                )*
                // Never unloaded.
                std::mem::forget(library);
            )*
            Ok(Api { $($($name,)*)* })
        }
    };
}

functions! {
    "libibverbs.so.1" {
        fn ibv_get_device_name(*mut ibv_device) -> *const c_char;
        fn ibv_query_device(*mut ibv_context, *mut ibv_device_attr) -> c_int;
        fn ibv_query_port(*mut ibv_context, u8, *mut ibv_port_attr) -> c_int;
        fn ibv_alloc_pd(*mut ibv_context) -> *mut ibv_pd;
        fn ibv_dealloc_pd(*mut ibv_pd) -> c_int;
        fn ibv_reg_mr(*mut ibv_pd, *mut c_void, usize, c_int) -> *mut ibv_mr;
        fn ibv_dereg_mr(*mut ibv_mr) -> c_int;
        fn ibv_create_comp_channel(*mut ibv_context) -> *mut ibv_comp_channel;
        fn ibv_destroy_comp_channel(*mut ibv_comp_channel) -> c_int;
        fn ibv_create_cq(*mut ibv_context, c_int, *mut c_void, *mut ibv_comp_channel, c_int) -> *mut ibv_cq;
        fn ibv_destroy_cq(*mut ibv_cq) -> c_int;
        fn ibv_get_cq_event(*mut ibv_comp_channel, *mut *mut ibv_cq, *mut *mut c_void) -> c_int;
        fn ibv_ack_cq_events(*mut ibv_cq, c_uint);
        fn ibv_create_srq(*mut ibv_pd, *mut ibv_srq_init_attr) -> *mut ibv_srq;
        fn ibv_destroy_srq(*mut ibv_srq) -> c_int;
        fn ibv_destroy_qp(*mut ibv_qp) -> c_int;
        fn ibv_modify_qp(*mut ibv_qp, *mut ibv_qp_attr, c_int) -> c_int;
        fn ibv_get_async_event(*mut ibv_context, *mut RawAsyncEvent) -> c_int;
        fn ibv_ack_async_event(*mut RawAsyncEvent);
    }
    "librdmacm.so.1" {
        fn rdma_get_devices(*mut c_int) -> *mut *mut ibv_context;
        fn rdma_free_devices(*mut *mut ibv_context);
        fn rdma_create_event_channel() -> *mut rdma_event_channel;
        fn rdma_destroy_event_channel(*mut rdma_event_channel);
        fn rdma_create_id(*mut rdma_event_channel, *mut *mut rdma_cm_id, *mut c_void, c_uint) -> c_int;
        fn rdma_destroy_id(*mut rdma_cm_id) -> c_int;
        fn rdma_bind_addr(*mut rdma_cm_id, *mut sockaddr) -> c_int;
        fn rdma_listen(*mut rdma_cm_id, c_int) -> c_int;
        fn rdma_get_src_port(*mut rdma_cm_id) -> u16;
        fn rdma_resolve_addr(*mut rdma_cm_id, *mut sockaddr, *mut sockaddr, c_int) -> c_int;
        fn rdma_resolve_route(*mut rdma_cm_id, c_int) -> c_int;
        fn rdma_create_qp(*mut rdma_cm_id, *mut ibv_pd, *mut ibv_qp_init_attr) -> c_int;
        fn rdma_connect(*mut rdma_cm_id, *mut rdma_conn_param) -> c_int;
        fn rdma_accept(*mut rdma_cm_id, *mut rdma_conn_param) -> c_int;
        fn rdma_reject(*mut rdma_cm_id, *const c_void, u8) -> c_int;
        fn rdma_disconnect(*mut rdma_cm_id) -> c_int;
        fn rdma_get_cm_event(*mut rdma_event_channel, *mut *mut rdma_cm_event) -> c_int;
        fn rdma_ack_cm_event(*mut rdma_cm_event) -> c_int;
        fn rdma_set_option(*mut rdma_cm_id, c_int, c_int, *mut c_void, usize) -> c_int;
    }
}

#[derive(Clone)]
struct Missing {
    library: &'static str,
    reason: String,
}

fn open(name: &'static str) -> Result<Library, Missing> {
    // SAFETY: rdma-core's initialisers start nothing that outlives the call; it is never unloaded.
    let opened = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) };
    opened.map_err(|error| Missing {
        library: name,
        reason: error.to_string(),
    })
}

/// rdma-core, once it was found.
pub(crate) fn api() -> Result<&'static Api, RdmaError> {
    static API: OnceLock<Result<Api, Missing>> = OnceLock::new();
    API.get_or_init(load)
        .as_ref()
        .map_err(|missing| RdmaError::Library {
            library: missing.library,
            reason: missing.reason.clone(),
        })
}
