//! From a name to a drive that may be used.

use super::name::NvmeName;
use super::port::{Port, Shape};
use crate::error::DeviceError;
use crate::limit::{
    IO_ALIGNMENT, NVME_COMMAND_MAX, NVME_DEPTH, NVME_ENV_MIB, NVME_HEALTH, NVME_PIECE_LEN,
    NVME_PIECES, NVME_TIMEOUT,
};
use ogee_proto::unit::ByteLen;
use ogee_spdk::{Controller, Env, Namespace, Notice, QueuePair, Slab, SpdkError};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Sector sizes that blocks are a multiple of, and that are in use.
const SECTOR_SIZES: [u32; 2] = [512, 4096];

/// How a drive is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NvmeOptions {
    /// A request that takes longer ends the device.
    pub timeout: Duration,
    /// How often it is asked how it fares.
    pub health: Duration,
    /// How it is learnt that it has done something.
    pub notice: Notice,
}

impl Default for NvmeOptions {
    fn default() -> Self {
        Self {
            timeout: NVME_TIMEOUT,
            health: NVME_HEALTH,
            notice: Notice::Polling,
        }
    }
}

/// Starts what all drives of a process need, once, with all that it may touch. Devices that are opened without that start it
/// for themselves alone.
///
/// # Errors
/// When the program was built without SPDK, hugepages are missing, or SPDK does not start.
pub fn start(names: &[NvmeName]) -> Result<(), DeviceError> {
    let Some(first) = names.first() else {
        return Ok(());
    };
    environment(names).map_err(|source| failed(first, source))?;
    Ok(())
}

pub(crate) fn environment(names: &[NvmeName]) -> Result<Env, SpdkError> {
    let addresses: Vec<_> = names.iter().map(|name| name.address).collect();
    Env::start(&addresses, memory_mib(addresses.len()))
}

/// Hugepages that so many drives of one process want, in MiB.
#[must_use]
pub fn memory_mib(drives: usize) -> u32 {
    let slabs = drives.saturating_mul(NVME_PIECE_LEN * NVME_PIECES as usize);
    let mib = u32::try_from(slabs >> 20).unwrap_or(u32::MAX);
    NVME_ENV_MIB.saturating_add(mib)
}

/// Takes a drive, and looks whether it can be used.
pub(super) fn open(
    env: Env,
    name: &NvmeName,
    options: NvmeOptions,
) -> Result<(Rc<Port>, ByteLen), DeviceError> {
    let spdk = |source| failed(name, source);
    let controller = Controller::open(env, name.address, options.notice).map_err(spdk)?;
    check_serial(name, &controller)?;
    let id = name.namespace.unwrap_or(controller.first_namespace());
    let namespace = controller.namespace(id).map_err(spdk)?;
    let len = check_format(name, &namespace)?;
    let shape = shape(&controller, namespace);
    let queue = QueuePair::open(&controller, namespace, NVME_DEPTH).map_err(spdk)?;
    let slab = Slab::take(env, NVME_PIECE_LEN, NVME_PIECES).map_err(spdk)?;
    tracing::info!(
        device = %name, %len, model = controller.model(), serial = controller.serial(),
        firmware = controller.firmware(), sector_size = namespace.sector_size,
        volatile_cache = shape.has_volatile_cache, command_max = shape.command_max, notice = ?options.notice,
        "device opened"
    );
    let port = Port::new(controller, queue, slab, shape, options);
    Ok((Rc::new(port), len))
}

fn failed(name: &NvmeName, source: SpdkError) -> DeviceError {
    DeviceError::NvmeOpen {
        device: name.to_string().into(),
        source: Arc::new(source),
    }
}

fn check_serial(name: &NvmeName, controller: &Controller) -> Result<(), DeviceError> {
    let found = controller.serial();
    match &name.serial {
        Some(wanted) if *wanted != found => Err(DeviceError::NvmeSerial {
            device: name.to_string().into(),
            found: found.into(),
            wanted: wanted.as_str().into(),
        }),
        _ => Ok(()),
    }
}

/// Its length, in whole blocks.
fn check_format(name: &NvmeName, namespace: &Namespace) -> Result<ByteLen, DeviceError> {
    let &Namespace {
        sector_size,
        metadata_size,
        protection_type,
        ..
    } = namespace;
    let is_plain = metadata_size == 0 && protection_type == 0;
    if !SECTOR_SIZES.contains(&sector_size) || !is_plain {
        return Err(DeviceError::NvmeFormat {
            device: name.to_string().into(),
            sector_size,
            metadata_size,
            protection_type,
        });
    }
    let bytes = namespace.sectors.saturating_mul(u64::from(sector_size));
    let len = ByteLen::new(bytes - bytes % IO_ALIGNMENT as u64);
    match len {
        ByteLen::ZERO => Err(DeviceError::Size {
            path: name.to_string().into(),
            len: ByteLen::new(bytes),
        }),
        len => Ok(len),
    }
}

fn shape(controller: &Controller, namespace: Namespace) -> Shape {
    let by_segments = controller.segments_max().saturating_mul(NVME_PIECE_LEN);
    let longest = controller
        .transfer_max()
        .min(by_segments)
        .min(NVME_COMMAND_MAX);
    Shape {
        sector_size: namespace.sector_size,
        namespace,
        // A page is the least that a controller may say.
        command_max: (longest - longest % IO_ALIGNMENT).max(IO_ALIGNMENT),
        has_volatile_cache: controller.has_volatile_cache(),
    }
}
