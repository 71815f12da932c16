//! Calls about volumes.

use crate::abi::{
    OGEE_BLOCK_SIZE, OGEE_FOREVER, OGEE_READ_ONLY, OGEE_TRANSPORT_AUTO, OGEE_TRANSPORT_RDMA,
    OGEE_TRANSPORT_TCP, OgeeClient, OgeeStatus, OgeeVolume, OgeeVolumeInfo, OgeeVolumeOptions,
    OgeeVolumeStats,
};
use crate::entry::{Out, Sized32, entry, read_struct, read_text, write_struct};
use crate::failure::Failure;
use crate::limit::{DEPTH_DEFAULT, DEPTH_MAX};
use crate::registry::registry;
use ogee_client::OpenOptions;
use ogee_transport::Transport;
use std::ffi::c_char;
use std::sync::Arc;
use std::time::Duration;

impl Sized32 for OgeeVolumeOptions {
    const NAME: &'static str = "ogee_volume_options";
}

impl Sized32 for OgeeVolumeInfo {
    const NAME: &'static str = "ogee_volume_info";
}

impl Sized32 for OgeeVolumeStats {
    const NAME: &'static str = "ogee_volume_stats";
}

/// Attaches a volume. To write, it takes the place of another one that writes, which is FENCED from then on; to
/// read only, it is REFUSED beside one that writes. Waits for the metadata servers
/// (15 s at most) and for the copysets of the volume (6 s at most). Options may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_volume_open(
    client: *mut OgeeClient,
    name: *const c_char,
    options: *const OgeeVolumeOptions,
    volume: *mut *mut OgeeVolume,
) -> OgeeStatus {
    entry(|| {
        let out = Out::new(volume, "volume")?;
        let client = registry().clients.get(client)?;
        // SAFETY: the caller's promise.
        let name = unsafe { read_text(name, "name") }?;
        let name = name.ok_or_else(|| Failure::null("name"))?;
        // SAFETY: the caller's promise.
        let options = unsafe { read_struct(options) }?;
        let (options, depth) = checked(options)?;
        let opened = Arc::new(client.open_volume(name, options, depth)?);
        let handle = registry()
            .volumes
            .add(Arc::clone(&opened))
            .inspect_err(|_| {
                // Nobody else will.
                let _ = opened.close(None);
            })?;
        // SAFETY: the caller's promise.
        unsafe { out.set(handle) };
        Ok(())
    })
}

fn checked(options: OgeeVolumeOptions) -> Result<(OpenOptions, usize), Failure> {
    let OgeeVolumeOptions {
        flags,
        depth,
        transport,
        io_timeout_ms,
        ..
    } = options;
    if flags & !OGEE_READ_ONLY != 0 {
        let what = format!("flags {flags:#x} are unknown to this library");
        let remedy = "pass OGEE_READ_ONLY or 0; or install a newer libogee";
        return Err(Failure::new(OgeeStatus::Unsupported, &what, remedy));
    }
    if depth > DEPTH_MAX {
        let what = format!("depth is {depth}");
        return Err(Failure::invalid(&what, &format!("at most {DEPTH_MAX}")));
    }
    let depth = if depth == 0 { DEPTH_DEFAULT } else { depth };
    let options = OpenOptions {
        read_only: flags & OGEE_READ_ONLY != 0,
        host: String::new(),
        io_timeout: (io_timeout_ms > 0).then(|| Duration::from_millis(io_timeout_ms)),
        transport: carrier(transport)?,
    };
    Ok((options, depth as usize))
}

fn carrier(transport: u32) -> Result<Transport, Failure> {
    let unsupported = |what: &str, remedy: &str| {
        let failure = Failure::new(OgeeStatus::Unsupported, what, remedy);
        Err(failure)
    };
    match transport {
        OGEE_TRANSPORT_AUTO => Ok(Transport::Auto),
        OGEE_TRANSPORT_TCP => Ok(Transport::Tcp),
        OGEE_TRANSPORT_RDMA if cfg!(feature = "rdma") => Ok(Transport::Rdma),
        OGEE_TRANSPORT_RDMA => unsupported(
            "this library was built without RDMA",
            "build it with --features rdma, or pass OGEE_TRANSPORT_AUTO",
        ),
        other => unsupported(
            &format!("transport {other} is unknown to this library"),
            "pass OGEE_TRANSPORT_AUTO, _RDMA or _TCP; or install a newer libogee",
        ),
    }
}

/// Closes a volume: waits for the requests under way, then gives the attachment up. After timeout_ms (never, if
/// OGEE_FOREVER) those that have not ended end with CANCELLED, and it returns TIMED_OUT. Telling the metadata
/// servers takes as long again at most, or 2 s. Notices of a new size end with CANCELLED. Whatever it returns but
/// BAD_HANDLE and FORKED, the volume is closed and all its requests have ended, or will within seconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_volume_close(volume: *mut OgeeVolume, timeout_ms: u64) -> OgeeStatus {
    entry(|| {
        let closing = registry().volumes.remove(volume, |_| Ok(()))?;
        let patience = (timeout_ms != OGEE_FOREVER).then(|| Duration::from_millis(timeout_ms));
        closing.close(patience)
    })
}

/// What a volume is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_volume_get_info(
    volume: *mut OgeeVolume,
    info: *mut OgeeVolumeInfo,
) -> OgeeStatus {
    entry(|| {
        let volume = registry().volumes.get(volume)?;
        let facts = &volume.facts;
        let value = OgeeVolumeInfo {
            size: 0,
            flags: if facts.read_only { OGEE_READ_ONLY } else { 0 },
            size_bytes: facts.size(),
            id: facts.id,
            epoch: facts.epoch,
            block_size: OGEE_BLOCK_SIZE,
            reserved: 0,
        };
        // SAFETY: the caller's promise.
        unsafe { write_struct(info, &value) }
    })
}

/// The size of a volume now, in bytes. It grows when an operator resizes it: see ogee_submit_resize_notice.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_volume_size(volume: *mut OgeeVolume, size: *mut u64) -> OgeeStatus {
    entry(|| {
        let out = Out::new(size, "size")?;
        let volume = registry().volumes.get(volume)?;
        // SAFETY: the caller's promise.
        unsafe { out.set(volume.facts.size()) };
        Ok(())
    })
}

/// Counters of a volume.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_volume_get_stats(
    volume: *mut OgeeVolume,
    stats: *mut OgeeVolumeStats,
) -> OgeeStatus {
    entry(|| {
        let (counters, frame_bytes_copied) = registry().volumes.get(volume)?.stats()?;
        let value = OgeeVolumeStats {
            size: 0,
            reserved: 0,
            reads: counters.read.requests,
            writes: counters.write.requests,
            read_bytes: counters.read.bytes,
            written_bytes: counters.write.bytes,
            retries: counters.retries,
            bytes_copied: counters.bytes_copied,
            frame_bytes_copied,
        };
        // SAFETY: the caller's promise.
        unsafe { write_struct(stats, &value) }
    })
}
