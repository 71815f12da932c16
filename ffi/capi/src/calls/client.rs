//! Calls about clients.

use crate::abi::{OgeeClient, OgeeClientOptions, OgeeStatus};
use crate::client::Client;
use crate::entry::{Out, Sized32, entry, read_struct, read_text};
use crate::registry::registry;
use std::sync::Arc;

impl Sized32 for OgeeClientOptions {
    const NAME: &'static str = "ogee_client_options";
}

/// Opens a client: starts its two threads, and does not connect yet. They take no signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_client_open(
    options: *const OgeeClientOptions,
    client: *mut *mut OgeeClient,
) -> OgeeStatus {
    entry(|| {
        let out = Out::new(client, "client")?;
        // SAFETY: the caller's promise.
        let options = unsafe { read_struct(options) }?;
        // SAFETY: the caller's promise.
        let mds = unsafe { read_text(options.mds, "mds") }?;
        // SAFETY: the caller's promise.
        let host = unsafe { read_text(options.host, "host") }?;
        let mds = mds.or_else(|| std::env::var("OGEE_MDS").ok());
        let own_name = || nix::unistd::gethostname().ok()?.into_string().ok();
        let host = host.or_else(own_name).unwrap_or_else(|| "unknown".into());
        let opened = Client::open(&mds.unwrap_or_default(), host)?;
        let handle = registry().clients.add(Arc::new(opened))?;
        // SAFETY: the caller's promise.
        unsafe { out.set(handle) };
        Ok(())
    })
}

/// Closes a client: ends its threads. BUSY while volumes of it are open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_client_close(client: *mut OgeeClient) -> OgeeStatus {
    entry(|| registry().clients.remove(client, Client::retire)?.stop())
}
