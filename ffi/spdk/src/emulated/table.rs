//! The shim's functions over emulated drives. Handles are boxes given out as raw pointers, as C would.

use super::drive::{Bell, Drive, Pending, Phase, Queue, State};
use super::memory;
use crate::abi::{self, Command, ControllerInfo, EnvOptions, NamespaceInfo, Page, Segment, Table};
use crate::error::Status;
use crate::queue::Kind;
use libc::{c_char, c_int, c_void, size_t};
use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::CStr;
use std::sync::Arc;

/// The only namespace.
const NAMESPACE: u32 = 1;

const DATA_TRANSFER_ERROR: Status = Status::generic(0x04);
const PAST_THE_END: Status = Status::generic(0x80);

pub(crate) fn table() -> &'static Table {
    static TABLE: Table = Table {
        abi: abi::ABI,
        version: 0,
        abilities: abi::CAN_INTERRUPT,
        reserved: 0,
        env_start,
        memory_take,
        memory_give,
        memory_reach,
        controller_open,
        controller_close,
        controller_info,
        controller_state,
        controller_poll,
        health_start,
        reset_start,
        reset_poll,
        namespace_info,
        queue_open,
        queue_close,
        queue_submit,
        queue_poll,
        queue_descriptor,
    };
    &TABLE
}

unsafe extern "C" fn env_start(_: *const EnvOptions) -> c_int {
    0
}

unsafe extern "C" fn memory_take(length: size_t, alignment: size_t) -> *mut c_void {
    memory::take(length, alignment).cast()
}

unsafe extern "C" fn memory_give(taken: *mut c_void) {
    // SAFETY: the caller gives back what it took, and uses it no more.
    unsafe { memory::give(taken.cast()) };
}

unsafe extern "C" fn memory_reach(address: *const c_void, length: size_t) -> size_t {
    memory::reach(address.addr(), length)
}

unsafe extern "C" fn controller_open(
    pci: *const c_char,
    flags: u32,
    controller: *mut *mut c_void,
) -> c_int {
    // SAFETY: an ended string, as the caller says.
    let name = unsafe { CStr::from_ptr(pci) };
    let Some(drive) = name.to_str().ok().and_then(Drive::find) else {
        return -libc::ENODEV;
    };
    let interrupts = flags & abi::WITH_INTERRUPTS != 0;
    if interrupts && !drive.options.has_interrupts {
        return -libc::EIO;
    }
    let mut state = drive.lock();
    match (state.phase, state.is_open) {
        (Phase::Gone, _) => return -libc::ENODEV,
        (_, true) => return -libc::EBUSY,
        _ => {}
    }
    // Whoever opens a controller begins with a reset.
    state.start_reset();
    if state.poll_reset().is_none() {
        return -libc::EIO;
    }
    state.is_open = true;
    drop(state);
    // SAFETY: room for a pointer, as the caller says.
    unsafe { controller.write(Box::into_raw(Box::new(Opened::new(drive, interrupts))).cast()) };
    0
}

unsafe extern "C" fn controller_close(controller: *mut c_void) -> c_int {
    // SAFETY: made by `controller_open`, and closed once.
    let opened = unsafe { Box::from_raw(controller.cast::<Opened>()) };
    opened.give_up_page();
    opened.drive.lock().is_open = false;
    0
}

/// A drive that somebody has taken.
struct Opened {
    drive: Arc<Drive>,
    interrupts: bool,
    /// A page that was asked for, and after how many polls it is there.
    page: Cell<Option<(*mut Page, u32)>>,
}

impl Opened {
    fn new(drive: Arc<Drive>, interrupts: bool) -> Self {
        Self {
            drive,
            interrupts,
            page: Cell::new(None),
        }
    }

    /// One poll later, whether the page is there.
    fn turn_page(&self) {
        let Some((page, polls_left)) = self.page.take() else {
            return;
        };
        if polls_left > 1 {
            self.page.set(Some((page, polls_left - 1)));
            return;
        }
        let health = self.drive.lock().health();
        let status = match health {
            Ok(bytes) => {
                // SAFETY: it was asked for and is not there yet: its owner leaves it where it is.
                unsafe { (*page).bytes = bytes };
                None
            }
            Err(status) => Some(status),
        };
        // SAFETY: as above, and this is its end.
        unsafe { end_page(page, status) };
    }

    fn give_up_page(&self) {
        if let Some((page, _)) = self.page.take() {
            // SAFETY: it was asked for and is not there yet: its owner leaves it where it is, and this is its end.
            unsafe { end_page(page, Some(Status::ABORTED)) };
        }
    }
}

/// # Safety
/// The page was asked for and is not there; what it points to is kept by its owner until this has returned.
unsafe fn end_page(page: *mut Page, status: Option<Status>) {
    // SAFETY: as the caller says.
    let done = unsafe { (*page).done };
    // SAFETY: as the caller says.
    let context = unsafe { (*page).context };
    let done = done.expect("invariant: a page says whom to tell");
    // SAFETY: what its owner asked to be called, with what it asked for.
    unsafe { done(context, status.map_or(0, Status::raw)) };
}

/// # Safety
/// An open controller.
unsafe fn opened<'a>(controller: *mut c_void) -> &'a Opened {
    // SAFETY: as the caller says; it is a box of `controller_open`.
    unsafe { &*controller.cast::<Opened>() }
}

/// # Safety
/// An open controller.
unsafe fn drive<'a>(controller: *mut c_void) -> &'a Arc<Drive> {
    // SAFETY: as the caller says.
    &unsafe { opened(controller) }.drive
}

fn put_text<const N: usize>(to: &mut [u8; N], text: &str) {
    let length = text.len().min(N - 1);
    to[..length].copy_from_slice(&text.as_bytes()[..length]);
}

unsafe extern "C" fn controller_info(controller: *mut c_void, info: *mut ControllerInfo) -> c_int {
    // SAFETY: an open controller, as the caller says.
    let options = unsafe { &drive(controller).options };
    let mut told = ControllerInfo {
        serial: [0; 24],
        model: [0; 48],
        firmware: [0; 16],
        transfer_max: options.transfer_max,
        segments_max: options.segments_max,
        first_namespace: NAMESPACE,
        features: u32::from(options.has_volatile_cache) * abi::HAS_VOLATILE_CACHE,
    };
    put_text(&mut told.serial, &options.serial);
    put_text(&mut told.model, "emulated");
    put_text(&mut told.firmware, "1");
    // SAFETY: room for it, as the caller says.
    unsafe { info.write(told) };
    0
}

unsafe extern "C" fn controller_state(controller: *mut c_void) -> c_int {
    // SAFETY: an open controller, as the caller says.
    let state = unsafe { drive(controller) }.lock();
    match state.phase {
        Phase::Ready => abi::READY,
        Phase::Failed | Phase::Resetting => 1,
        Phase::Gone => abi::GONE,
    }
}

unsafe extern "C" fn controller_poll(controller: *mut c_void) -> c_int {
    // SAFETY: an open controller, as the caller says.
    let opened = unsafe { opened(controller) };
    let (phase, is_stalled) = {
        let state = opened.drive.lock();
        (state.phase, state.is_stalled)
    };
    match phase {
        Phase::Ready | Phase::Resetting => {
            if !is_stalled {
                opened.turn_page();
            }
            0
        }
        Phase::Failed | Phase::Gone => -libc::ENXIO,
    }
}

/// There no sooner than at the second poll.
unsafe extern "C" fn health_start(controller: *mut c_void, page: *mut Page) -> c_int {
    // SAFETY: an open controller, as the caller says.
    let opened = unsafe { opened(controller) };
    let mut state = opened.drive.lock();
    if state.phase != Phase::Ready {
        return -libc::ENXIO;
    }
    if opened.page.get().is_some() {
        return -libc::ENOMEM;
    }
    state.counts.health += 1;
    opened.page.set(Some((page, 2)));
    0
}

unsafe extern "C" fn reset_start(controller: *mut c_void) -> c_int {
    // SAFETY: an open controller, as the caller says.
    let opened = unsafe { opened(controller) };
    let mut state = opened.drive.lock();
    if state.phase == Phase::Gone {
        return -libc::ENXIO;
    }
    state.start_reset();
    drop(state);
    opened.give_up_page();
    0
}

unsafe extern "C" fn reset_poll(controller: *mut c_void) -> c_int {
    // SAFETY: an open controller, as the caller says.
    let mut state = unsafe { drive(controller) }.lock();
    state.poll_reset().map_or(-libc::EIO, |()| 0)
}

unsafe extern "C" fn namespace_info(
    controller: *mut c_void,
    id: u32,
    info: *mut NamespaceInfo,
) -> c_int {
    // SAFETY: an open controller, as the caller says.
    let options = unsafe { &drive(controller).options };
    if id != NAMESPACE {
        return -libc::ENOENT;
    }
    let features = [
        (options.has_write_zeroes, abi::HAS_WRITE_ZEROES),
        (options.has_deallocate, abi::HAS_DEALLOCATE),
        (options.deallocated_reads_zero, abi::DEALLOCATED_READS_ZERO),
        (
            options.write_zeroes_may_deallocate,
            abi::WRITE_ZEROES_MAY_DEALLOCATE,
        ),
    ];
    let told = NamespaceInfo {
        sectors: options.len as u64 / u64::from(options.sector_size),
        sector_size: options.sector_size,
        metadata_size: options.metadata_size,
        protection_type: options.protection_type,
        features: features
            .iter()
            .map(|(has, bit)| u32::from(*has) * bit)
            .sum(),
    };
    // SAFETY: room for it, as the caller says.
    unsafe { info.write(told) };
    0
}

unsafe extern "C" fn queue_open(
    controller: *mut c_void,
    depth: u32,
    queue: *mut *mut c_void,
) -> c_int {
    // SAFETY: an open controller, as the caller says.
    let Opened {
        drive, interrupts, ..
    } = unsafe { opened(controller) };
    let generation = drive.lock().generation;
    let Ok(bell) = interrupts.then(Bell::new).transpose() else {
        return -libc::EMFILE;
    };
    let made = Box::new(Queue {
        drive: Arc::clone(drive),
        depth: depth as usize,
        thread: std::thread::current().id(),
        pending: VecDeque::new(),
        generation,
        bell,
    });
    // SAFETY: room for a pointer, as the caller says.
    unsafe { queue.write(Box::into_raw(made).cast()) };
    0
}

unsafe extern "C" fn queue_descriptor(queue: *mut c_void) -> c_int {
    // SAFETY: an open queue, as the caller says.
    let queue = unsafe { &*queue.cast::<Queue>() };
    queue.bell.as_ref().map_or(-libc::ENOTSUP, Bell::raw)
}

/// Ends what is left, as a drive does whose queue is deleted.
unsafe extern "C" fn queue_close(queue: *mut c_void) -> c_int {
    // SAFETY: made by `queue_open`, and closed once.
    let queue = unsafe { Box::from_raw(queue.cast::<Queue>()) };
    for pending in queue.pending {
        // SAFETY: not yet ended, so its owner keeps it.
        unsafe { end(pending.command, Some(Status::ABORTED)) };
    }
    0
}

/// # Safety
/// The command was submitted and has not ended; what it points to is kept by its owner until this has returned.
unsafe fn end(command: *mut Command, status: Option<Status>) {
    // SAFETY: as the caller says.
    let done = unsafe { (*command).done };
    // SAFETY: as the caller says.
    let context = unsafe { (*command).context };
    let done = done.expect("invariant: a command says whom to tell");
    // SAFETY: what its owner asked to be called, with what it asked for.
    unsafe { done(context, status.map_or(0, Status::raw)) };
}

fn kind_of(command: &Command) -> Option<Kind> {
    match (command.kind, command.flags) {
        (abi::READ, 0) => Some(Kind::Read),
        (abi::WRITE, 0) => Some(Kind::Write),
        (abi::WRITE, abi::FORCE_UNIT_ACCESS) => Some(Kind::WriteThrough),
        (abi::FLUSH, 0) => Some(Kind::Flush),
        (abi::WRITE_ZEROES, 0) => Some(Kind::WriteZeroes),
        (abi::WRITE_ZEROES, abi::MAY_DEALLOCATE) => Some(Kind::WriteZeroesDeallocate),
        (abi::DEALLOCATE, 0) => Some(Kind::Deallocate),
        _ => None,
    }
}

/// # Safety
/// Of a command that has not ended.
unsafe fn segments<'a>(command: &Command) -> &'a [Segment] {
    match command.segment_count {
        0 => &[],
        // SAFETY: as many segments, kept by the command's owner until it has ended.
        count => unsafe { std::slice::from_raw_parts(command.segments, count as usize) },
    }
}

unsafe extern "C" fn queue_submit(
    queue: *mut c_void,
    _: *mut c_void,
    command: *mut Command,
) -> c_int {
    // SAFETY: an open queue, and its thread has nothing else of it.
    let queue = unsafe { &mut *queue.cast::<Queue>() };
    assert_eq!(
        queue.thread,
        std::thread::current().id(),
        "another thread's queue"
    );
    // SAFETY: the command's owner leaves it as it is.
    let asked = unsafe { &*command };
    // SAFETY: it has just been submitted.
    let segments = unsafe { segments(asked) };
    let options = &queue.drive.options;
    let bytes: u64 = segments.iter().map(|segment| segment.length).sum();
    let is_too_large =
        bytes > u64::from(options.transfer_max) || segments.len() > options.segments_max as usize;
    let is_reached = segments.iter().all(|segment| {
        let length = usize::try_from(segment.length).unwrap_or(usize::MAX);
        memory::reach(segment.address.addr(), length) == length
    });
    let Some(kind) = kind_of(asked).filter(|_| !is_too_large && is_reached) else {
        return -libc::EINVAL;
    };
    let mut state = queue.drive.lock();
    if state.phase != Phase::Ready || state.generation != queue.generation {
        return -libc::ENXIO;
    }
    if queue.pending.len() + 1 >= queue.depth {
        return -libc::ENOMEM;
    }
    queue.pending.push_back(Pending {
        command,
        polls_left: state.polls_wanted,
    });
    state.count(kind);
    let counts = &mut state.counts;
    counts.segments_max = counts.segments_max.max(segments.len() as u64);
    counts.in_flight_max = counts.in_flight_max.max(queue.pending.len() as u64);
    queue.interrupt(&state);
    0
}

unsafe extern "C" fn queue_poll(queue: *mut c_void, completions_max: u32) -> c_int {
    // SAFETY: an open queue, and its thread has nothing else of it: `done` does not come back here.
    let queue = unsafe { &mut *queue.cast::<Queue>() };
    assert_eq!(
        queue.thread,
        std::thread::current().id(),
        "another thread's queue"
    );
    let mut state = queue.drive.lock();
    state.counts.polls += 1;
    if state.phase != Phase::Ready || state.generation != queue.generation {
        return -libc::ENXIO;
    }
    if state.is_stalled {
        return 0;
    }
    for pending in &mut queue.pending {
        pending.polls_left = pending.polls_left.saturating_sub(1);
    }
    let limit = if completions_max == 0 {
        u32::MAX
    } else {
        completions_max
    };
    let mut ended = 0;
    // The newest first: the order of completions is nobody's promise.
    while let Some(at) = queue
        .pending
        .iter()
        .rposition(|pending| pending.polls_left == 0)
    {
        if ended == limit {
            break;
        }
        let command = queue.pending.remove(at).expect("invariant: found").command;
        // SAFETY: not ended, so its owner keeps it and its memory.
        let status = unsafe { carry_out(command, &queue.drive, &mut state) };
        drop(state);
        // SAFETY: as above, and this is its end.
        unsafe { end(command, status) };
        state = queue.drive.lock();
        ended += 1;
    }
    queue.interrupt(&state);
    c_int::try_from(ended).unwrap_or(c_int::MAX)
}

/// # Safety
/// The command has not ended: its owner keeps it and its memory, which is touched by nobody else.
unsafe fn carry_out(command: *mut Command, drive: &Drive, state: &mut State) -> Option<Status> {
    // SAFETY: as the caller says.
    let asked = unsafe { &*command };
    let options = &drive.options;
    let kind = kind_of(asked)?;
    if let Some(status) = state.failure(kind) {
        return Some(status);
    }
    let size = options.sector_size as usize;
    let start = usize::try_from(asked.first_sector).unwrap_or(usize::MAX);
    let (start, len) = (start.saturating_mul(size), asked.sectors as usize * size);
    if start.saturating_add(len) > state.data.len() {
        return Some(PAST_THE_END);
    }
    let is_durable = !options.has_volatile_cache;
    match kind {
        // SAFETY: as the caller says.
        Kind::Read => return unsafe { copy(asked, &mut state.data[start..start + len], true) },
        Kind::WriteThrough if !options.has_force_unit_access => {
            return Some(Status::INVALID_FIELD);
        }
        Kind::Write | Kind::WriteThrough => {
            // SAFETY: as the caller says.
            let failed = unsafe { copy(asked, &mut state.data[start..start + len], false) };
            if failed.is_some() {
                return failed;
            }
            state.written(start, len, is_durable || kind == Kind::WriteThrough);
        }
        Kind::Flush => state.flush(),
        Kind::WriteZeroes | Kind::WriteZeroesDeallocate => {
            let has_it = options.has_write_zeroes
                && (kind == Kind::WriteZeroes || options.write_zeroes_may_deallocate);
            if !has_it {
                return Some(Status::INVALID_FIELD);
            }
            state.data[start..start + len].fill(0);
            state.written(start, len, is_durable);
        }
        Kind::Deallocate => {
            state.deallocate(start, len, options);
            state.written(start, len, is_durable);
        }
    }
    None
}

/// To or from the memory of a command.
///
/// # Safety
/// As of [`carry_out`].
unsafe fn copy(command: &Command, data: &mut [u8], is_read: bool) -> Option<Status> {
    let mut at = 0;
    // SAFETY: the command has not ended.
    for segment in unsafe { segments(command) } {
        let length = usize::try_from(segment.length).ok()?;
        if memory::reach(segment.address.addr(), length) < length {
            return Some(DATA_TRANSFER_ERROR);
        }
        let part = &mut data[at..at + length];
        // SAFETY: memory that was taken for drives, of that length; nobody else touches it until the command has ended.
        let memory =
            unsafe { std::slice::from_raw_parts_mut(segment.address.cast::<u8>(), length) };
        match is_read {
            true => memory.copy_from_slice(part),
            false => part.copy_from_slice(memory),
        }
        at += length;
    }
    None
}
