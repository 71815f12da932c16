//! The safe API over emulated drives: ownership, order, limits and each way to fail.
#![cfg(feature = "emulated")]

use ogee_spdk::{
    Admin, Command, Completion, Controller, DriveOptions, DriveVitals, EmulatedDrive, Env, Health,
    Kind, Notice, PciAddress, QueuePair, Slab, SpdkError, Status, Transfer,
};
use std::sync::atomic::{AtomicU32, Ordering};

const PIECE: usize = 16 << 10;
const SECTOR: usize = 512;

/// A drive, and one who uses it.
struct Rig {
    queue: QueuePair,
    slab: Slab,
    controller: Controller,
    drive: EmulatedDrive,
}

fn address() -> PciAddress {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("e000:{number:02x}:00.0")
        .parse()
        .expect("an address")
}

fn rig(options: DriveOptions) -> Rig {
    rig_with(options, Notice::Polling)
}

fn rig_with(options: DriveOptions, notice: Notice) -> Rig {
    let at = address();
    let drive = EmulatedDrive::plug(at, options);
    let controller = Controller::open(Env::emulated(), at, notice).expect("a controller");
    let namespace = controller
        .namespace(controller.first_namespace())
        .expect("a namespace");
    Rig {
        queue: QueuePair::open(&controller, namespace, 4).expect("a queue"),
        slab: Slab::take(Env::emulated(), PIECE, 16).expect("memory"),
        controller,
        drive,
    }
}

fn command(kind: Kind, first_sector: u64, sectors: u32) -> Command {
    Command {
        kind,
        first_sector,
        sectors,
    }
}

impl Rig {
    fn transfer(&self, len: usize, byte: u8) -> Transfer {
        let mut transfer = Transfer::default();
        assert!(transfer.fill(&self.slab, len), "pieces");
        transfer.write(&vec![byte; len]);
        transfer
    }

    fn submit(&self, asked: Command, transfer: Option<Transfer>, token: u64) {
        if let Err(refused) = self.queue.submit(asked, transfer, token) {
            panic!("{}", refused.error);
        }
    }

    /// Polls until nothing is in flight.
    fn finish(&self) -> Vec<Completion> {
        let mut found = Vec::new();
        for _ in 0..1000 {
            self.queue.poll(0, &mut found).expect("a queue that works");
            if self.queue.in_flight() == 0 {
                return found;
            }
        }
        panic!("nothing completes");
    }

    fn one(&self, asked: Command, transfer: Option<Transfer>) -> Completion {
        self.submit(asked, transfer, 7);
        let mut found = self.finish();
        assert_eq!((found.len(), found[0].token), (1, 7));
        found.remove(0)
    }

    fn read(&self, first: u64, sectors: u32) -> Vec<u8> {
        let transfer = self.transfer(sectors as usize * SECTOR, 0xee);
        let done = self.one(command(Kind::Read, first, sectors), Some(transfer));
        assert_eq!(done.result, Ok(()));
        let back = done.transfer.expect("its memory");
        back.parts().flatten().copied().collect()
    }

    fn write(&self, kind: Kind, first: u64, len: usize, byte: u8) -> Result<(), Status> {
        let sectors = u32::try_from(len / SECTOR).expect("few");
        let transfer = self.transfer(len, byte);
        self.one(command(kind, first, sectors), Some(transfer))
            .result
    }
}

#[test]
fn what_is_written_over_several_pieces_is_read() {
    let rig = rig(DriveOptions::default());
    let len = 2 * PIECE + 3 * SECTOR;
    rig.write(Kind::Write, 5, len, 3).expect("written");
    let sectors = u32::try_from(len / SECTOR).expect("few");
    assert!(rig.read(5, sectors).iter().all(|byte| *byte == 3));
    assert!(rig.read(4, 1).iter().all(|byte| *byte == 0));
    assert_eq!(rig.drive.counts().segments_max, 3);
    assert_eq!(rig.slab.free(), 16, "all pieces came back");
}

#[test]
fn a_drive_is_told_of() {
    let rig = rig(DriveOptions {
        serial: "S5XYNG0N".into(),
        ..DriveOptions::default()
    });
    let controller = &rig.controller;
    assert_eq!(controller.serial(), "S5XYNG0N");
    assert!(controller.has_volatile_cache());
    assert_eq!(controller.health(), Health::Ready);
    let missing = controller.namespace(2).expect_err("no such namespace");
    assert!(missing.to_string().contains("namespace 2"), "{missing}");
}

#[test]
fn commands_are_with_the_drive_until_they_complete() {
    let rig = rig(DriveOptions::default());
    rig.drive.delay(5);
    for token in 0..4 {
        let transfer = rig.transfer(SECTOR, 1);
        rig.submit(command(Kind::Write, token, 1), Some(transfer), token);
    }
    assert_eq!((rig.queue.in_flight(), rig.slab.free()), (4, 12));
    let transfer = rig.transfer(SECTOR, 1);
    let refused = rig
        .queue
        .submit(command(Kind::Write, 9, 1), Some(transfer), 9);
    let refused = refused.expect_err("the queue is full");
    assert!(refused.transfer.is_some(), "the memory comes back");
    let mut found = Vec::new();
    for _ in 0..4 {
        rig.queue.poll(0, &mut found).expect("polled");
        assert!(found.is_empty(), "too early");
    }
    rig.queue.poll(3, &mut found).expect("polled");
    assert_eq!(found.len(), 3, "no more than were asked for");
    rig.queue.poll(3, &mut found).expect("polled");
    let mut tokens: Vec<_> = found.iter().map(|done| done.token).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [0, 1, 2, 3]);
}

#[test]
fn the_cache_forgets_what_was_neither_flushed_nor_written_through() {
    let rig = rig(DriveOptions::default());
    rig.write(Kind::Write, 0, SECTOR, 1).expect("written");
    rig.one(command(Kind::Flush, 0, 0), None)
        .result
        .expect("flushed");
    rig.write(Kind::Write, 1, SECTOR, 2).expect("written");
    rig.write(Kind::WriteThrough, 2, SECTOR, 3)
        .expect("written");
    rig.drive.cut_power();
    let found: Vec<u8> = (0..3).map(|at| rig.read(at, 1)[0]).collect();
    assert_eq!(found, [1, 0, 3]);
}

#[test]
fn a_command_that_fails_tells_the_drives_words() {
    let rig = rig(DriveOptions::default());
    let fault = Status {
        kind: 2,
        code: 0x80,
    };
    rig.drive.fail(Kind::Write, 1, fault);
    assert_eq!(rig.write(Kind::Write, 0, SECTOR, 1), Err(fault));
    assert_eq!(rig.read(0, 1)[0], 0, "it did nothing");
    rig.write(Kind::Write, 0, SECTOR, 1)
        .expect("only the first one");
}

#[test]
fn what_a_drive_does_not_take_is_not_submitted() {
    let rig = rig(DriveOptions {
        transfer_max: 4096,
        segments_max: 1,
        ..DriveOptions::default()
    });
    for len in [4096 + SECTOR, PIECE + SECTOR] {
        let sectors = u32::try_from(len / SECTOR).expect("few");
        let transfer = rig.transfer(len, 1);
        let refused = rig
            .queue
            .submit(command(Kind::Write, 0, sectors), Some(transfer), 0);
        assert!(refused.is_err(), "{len} bytes");
    }
    assert_eq!((rig.queue.in_flight(), rig.slab.free()), (0, 16));
}

#[test]
fn a_reset_gives_up_what_is_in_flight_and_the_memory_comes_back() {
    let rig = rig(DriveOptions::default());
    rig.drive.stall();
    let transfer = rig.transfer(SECTOR, 1);
    rig.submit(command(Kind::Write, 0, 1), Some(transfer), 1);
    let mut found = Vec::new();
    rig.queue
        .poll(0, &mut found)
        .expect("a drive that hangs looks fine");
    let admin = rig.controller.admin().expect("nobody has it");
    assert!(rig.controller.admin().is_none(), "one owner");
    admin.start_reset().expect("begun");
    assert!(admin.poll_reset().expect("it comes up"));
    assert!(
        rig.queue.poll(0, &mut found).is_err(),
        "the queue is of no more use"
    );
    assert_eq!(rig.slab.free(), 15, "still with the drive");
    let Rig {
        queue,
        slab,
        controller,
        ..
    } = rig;
    drop(queue);
    assert_eq!(slab.free(), 16);
    let namespace = controller.namespace(1).expect("it is there");
    QueuePair::open(&controller, namespace, 4).expect("a new queue works");
}

#[test]
fn a_drive_that_resets_itself_or_is_pulled_is_noticed() {
    let rig1 = rig(DriveOptions::default());
    rig1.drive.reset();
    assert_eq!(rig1.controller.health(), Health::Failed);
    assert!(rig1.queue.poll(0, &mut Vec::new()).is_err());
    let rig2 = rig(DriveOptions::default());
    rig2.drive.remove();
    assert_eq!(rig2.controller.health(), Health::Gone);
    assert!(rig2.queue.poll(0, &mut Vec::new()).is_err());
    let admin = rig2.controller.admin().expect("nobody has it");
    assert!(admin.poll().is_err() && admin.start_reset().is_err());
}

/// Polls until a page is there.
fn page(admin: &Admin) -> Result<ogee_spdk::HealthPage, Status> {
    admin.start_health().expect("asked");
    for _ in 0..10 {
        assert!(
            admin.take_health().is_none(),
            "not before somebody has looked"
        );
        admin.poll().expect("polled");
        if let Some(page) = admin.take_health() {
            return page;
        }
    }
    panic!("no page comes");
}

#[test]
fn a_drive_tells_how_it_fares_while_it_works() {
    let rig = rig(DriveOptions::default());
    let admin = rig.controller.admin().expect("nobody has it");
    assert_eq!(page(&admin).expect("told")[0], 0);
    rig.drive.fare(DriveVitals {
        critical_warning: 4,
        celsius: 77,
        media_errors: 5,
        ..DriveVitals::default()
    });
    let told = page(&admin).expect("told");
    assert_eq!(
        (told[0], u16::from_le_bytes([told[1], told[2]]), told[160]),
        (4, 77 + 273, 5)
    );
    assert!(admin.take_health().is_none(), "told once");
    rig.write(Kind::Write, 0, SECTOR, 1).expect("written");
    assert_eq!(rig.drive.counts().health, 2);
}

#[test]
fn a_page_that_does_not_come_tells_why() {
    let rig1 = rig(DriveOptions::default());
    let admin = rig1.controller.admin().expect("nobody has it");
    let fault = Status { kind: 0, code: 6 };
    rig1.drive.hide_health(1, fault);
    assert_eq!(page(&admin), Err(fault));
    page(&admin).expect("only the first");
    // One at a time; a reset gives it up, and the next one is asked for again.
    rig1.drive.stall();
    admin.start_health().expect("asked");
    let second = admin.start_health().expect_err("one is on its way");
    assert!(second.to_string().contains("health page"), "{second}");
    admin.poll().expect("a drive that hangs looks fine");
    assert!(admin.take_health().is_none());
    admin.start_reset().expect("begun");
    assert!(admin.poll_reset().expect("it comes up"));
    assert_eq!(admin.take_health(), Some(Err(Status::ABORTED)));
    page(&admin).expect("the drive works again");
    rig1.drive.remove();
    assert!(admin.start_health().is_err(), "nobody is there");
}

/// Neither who asked nor the controller may be gone from under a page.
#[test]
fn a_page_on_its_way_outlives_who_asked() {
    let rig = rig(DriveOptions::default());
    rig.drive.stall();
    let admin = rig.controller.admin().expect("nobody has it");
    admin.start_health().expect("asked");
    drop(admin);
    let Rig {
        queue, controller, ..
    } = rig;
    let at = controller.address();
    drop((queue, controller));
    Controller::open(Env::emulated(), at, Notice::Polling).expect("it was given up");
}

/// Whether a descriptor can be read, now.
fn is_readable(queue: &QueuePair) -> bool {
    let descriptor = queue.descriptor().expect("it interrupts");
    let mut polled = libc::pollfd {
        fd: std::os::fd::AsRawFd::as_raw_fd(&descriptor),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry, which outlives the call; it does not wait.
    let count = unsafe { libc::poll(&raw mut polled, 1, 0) };
    count == 1
}

#[test]
fn a_controller_that_interrupts_makes_a_descriptor_readable() {
    let rig = rig_with(DriveOptions::default(), Notice::Interrupts);
    assert!(!is_readable(&rig.queue), "nothing was asked for");
    let transfer = rig.transfer(SECTOR, 3);
    rig.submit(command(Kind::Write, 0, 1), Some(transfer), 1);
    let mut found = Vec::new();
    for _ in 0..10 {
        assert!(is_readable(&rig.queue));
        rig.queue.clear().expect("cleared");
        assert!(!is_readable(&rig.queue), "until something happens");
        rig.queue.poll(0, &mut found).expect("polled");
        if !found.is_empty() {
            break;
        }
    }
    assert_eq!(found.len(), 1);
    assert!(!is_readable(&rig.queue), "nothing is left");
    rig.queue.clear().expect("nothing to take is no failure");
    assert!(
        self::rig(DriveOptions::default())
            .queue
            .descriptor()
            .is_none()
    );
}

#[test]
fn a_controller_that_cannot_interrupt_says_what_to_do() {
    let at = address();
    let _drive = EmulatedDrive::plug(
        at,
        DriveOptions {
            has_interrupts: false,
            ..DriveOptions::default()
        },
    );
    let error = Controller::open(Env::emulated(), at, Notice::Interrupts).err();
    let said = error.expect("it cannot").to_string();
    for words in [&at.to_string(), "vfio-pci", "nvme.wait = \"poll\""] {
        assert!(said.contains(words), "{said}");
    }
    Controller::open(Env::emulated(), at, Notice::Polling).expect("it can be polled");
}

#[test]
fn a_queue_ends_behind_what_is_in_flight() {
    let rig = rig(DriveOptions::default());
    rig.drive.delay(50);
    let transfer = rig.transfer(SECTOR, 9);
    rig.submit(command(Kind::WriteThrough, 0, 1), Some(transfer), 1);
    let Rig {
        queue,
        slab,
        drive,
        controller,
    } = rig;
    let at = controller.address();
    drop((queue, controller));
    assert_eq!(slab.free(), 16);
    let controller =
        Controller::open(Env::emulated(), at, Notice::Polling).expect("it was given up");
    let queue = QueuePair::open(&controller, controller.namespace(1).expect("one"), 4);
    let rig = Rig {
        queue: queue.expect("a queue"),
        slab,
        controller,
        drive,
    };
    assert_eq!(rig.read(0, 1)[0], 9, "it was waited for");
}

/// A driver says that a queue was closed whether or not the drive has heard of it.
#[test]
fn memory_of_a_drive_that_nothing_stops_is_never_used_again() {
    let rig = rig(DriveOptions::default());
    rig.drive.stall();
    let transfer = rig.transfer(SECTOR, 9);
    rig.submit(command(Kind::Write, 0, 1), Some(transfer), 1);
    let Rig {
        queue,
        slab,
        controller,
        ..
    } = rig;
    queue.lose();
    let at = controller.address();
    drop((queue, controller));
    assert_eq!(slab.free(), 15);
    let again = Controller::open(Env::emulated(), at, Notice::Polling).err();
    assert!(matches!(again, Some(SpdkError::InUse { .. })));
}

#[test]
fn a_controller_has_one_user() {
    let rig = rig(DriveOptions::default());
    let at = rig.controller.address();
    let second = Controller::open(Env::emulated(), at, Notice::Polling)
        .err()
        .expect("in use");
    assert!(matches!(second, SpdkError::InUse { .. }), "{second}");
    let nowhere = address();
    let error = Controller::open(Env::emulated(), nowhere, Notice::Polling).err();
    let said = error.expect("nothing there").to_string();
    assert!(
        said.contains(&nowhere.to_string()) && said.contains("vfio-pci"),
        "{said}"
    );
}

#[test]
#[should_panic(expected = "not within the namespace")]
fn a_range_past_the_end_is_a_bug_of_the_caller() {
    let rig = rig(DriveOptions::default());
    let end = (8 << 20) / SECTOR as u64;
    let _ = rig.queue.submit(command(Kind::Deallocate, end, 1), None, 0);
}

#[cfg(not(feature = "spdk"))]
#[test]
fn without_the_feature_the_error_says_what_to_build() {
    let error = Env::start(&[address()], 64).err().expect("no SPDK");
    let said = error.to_string();
    assert!(
        said.contains("feature `spdk`") && said.contains("docs/spdk.md"),
        "{said}"
    );
}
