//! NVMe drives in memory that fail: what a user of the device sees of it.

use ogee_device::{Device, DeviceError, Notice, NvmeFault, NvmeName, NvmeOptions, NvmeVitals};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Buffer, executor, sleep, spawn, timeout};
use ogee_spdk::{DriveOptions, DriveVitals, EmulatedDrive, Env, Kind, Status};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const BLOCK: usize = 4096;

fn name() -> NvmeName {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let address = format!("7000:{number:02x}:00.0").parse();
    NvmeName {
        address: address.expect("an address"),
        serial: None,
        namespace: None,
    }
}

fn try_open(name: &NvmeName, timeout: Duration) -> Result<Device, DeviceError> {
    let options = NvmeOptions {
        timeout,
        ..NvmeOptions::default()
    };
    Device::open_nvme_on(Env::emulated(), name, options)
}

/// A drive, and it opened.
fn pair(options: DriveOptions) -> (EmulatedDrive, Device, NvmeName) {
    let name = name();
    let drive = EmulatedDrive::plug(name.address, options);
    let device = try_open(&name, Duration::from_secs(30)).expect("opens");
    (drive, device, name)
}

fn at(block: usize) -> ByteOffset {
    ByteOffset::new((block * BLOCK) as u64)
}

fn blocks(count: usize) -> ByteLen {
    ByteLen::from_usize(count * BLOCK)
}

fn filled(byte: u8, count: usize) -> Buffer {
    Buffer::copy_from(&vec![byte; count * BLOCK])
}

fn fault(result: Result<(), DeviceError>) -> NvmeFault {
    match result.expect_err("it failed") {
        DeviceError::Nvme { source, .. } => source,
        other => panic!("{other}"),
    }
}

async fn read(device: &Device, block: usize) -> Result<(), DeviceError> {
    device.read(at(block), blocks(1)).await.map(|_| ())
}

#[test]
fn a_command_that_fails_fails_its_request_only() {
    executor::block_on(async {
        let (drive, device, _) = pair(DriveOptions::default());
        let status = Status {
            kind: 2,
            code: 0x81,
        };
        drive.fail(Kind::Read, 1, status);
        let error = read(&device, 3).await.expect_err("the first");
        let said = error.to_string();
        assert!(
            said.contains("unrecovered read") && said.contains("nvme:7000"),
            "{said}"
        );
        assert_eq!(fault(Err(error)), NvmeFault::Command(status));
        read(&device, 3).await.expect("the second");
        assert_eq!(device.counters().failures, 1);
    });
}

/// Of a long request one part fails; the others end, and the memory is there again.
#[test]
fn a_part_that_fails_fails_the_whole() {
    executor::block_on(async {
        let (drive, device, _) = pair(DriveOptions::default());
        for _ in 0..40 {
            let status = Status {
                kind: 2,
                code: 0x80,
            };
            drive.fail(Kind::Write, 1, status);
            let written = device.write(at(0), filled(1, 512)).await;
            assert_eq!(fault(written), NvmeFault::Command(status));
        }
        device.write(at(0), filled(2, 512)).await.expect("written");
        let found = device.read(at(0), blocks(512)).await.expect("read");
        assert!(found.iter().all(|byte| *byte == 2));
    });
}

#[test]
fn a_drive_that_hangs_ends_after_the_time() {
    executor::block_on(async {
        let name = name();
        let drive = EmulatedDrive::plug(name.address, DriveOptions::default());
        let device = try_open(&name, Duration::from_secs(1)).expect("opens");
        drive.stall();
        // More than the queue takes: those that wait for room are told, too.
        let tasks: Vec<_> = (0..200)
            .map(|block| {
                let device = device.clone();
                spawn(async move { device.write(at(block), filled(1, 1)).await })
            })
            .collect();
        for task in tasks {
            let written = timeout(Duration::from_secs(10), task).await.expect("ends");
            let found = fault(written.expect("not cancelled"));
            assert_eq!(found, NvmeFault::TimedOut { seconds: 1 });
        }
        assert!(
            fault(device.flush().await).is_end(),
            "and all that comes later"
        );
        sleep(Duration::from_millis(100)).await;
        assert_eq!(
            drive.counts().resets,
            2,
            "when it was opened, and when it hung"
        );
        drop(device);
        let device = try_open(&name, Duration::from_secs(1)).expect("opens again");
        read(&device, 0).await.expect("it works again");
    });
}

/// Its memory is lost, and nothing else.
#[test]
fn a_drive_that_hangs_and_does_not_reset_ends_all_the_same() {
    executor::block_on(async {
        let name = name();
        let drive = EmulatedDrive::plug(name.address, DriveOptions::default());
        let device = try_open(&name, Duration::from_secs(1)).expect("opens");
        drive.stall();
        drive.refuse_resets();
        let written = timeout(Duration::from_secs(10), device.write(at(0), filled(1, 300)));
        let written = written.await.expect("ends");
        assert_eq!(fault(written), NvmeFault::TimedOut { seconds: 1 });
        sleep(Duration::from_millis(500)).await;
        drop(device);
        let again = try_open(&name, Duration::from_secs(1)).expect_err("it still has our memory");
        assert!(again.to_string().contains("in use"), "{again}");
    });
}

#[test]
fn a_reset_and_a_removal_end_the_device_with_their_names() {
    executor::block_on(async {
        for (wanted, act) in [
            (NvmeFault::Reset, EmulatedDrive::reset as fn(&EmulatedDrive)),
            (NvmeFault::Gone, EmulatedDrive::remove),
        ] {
            let (drive, device, name) = pair(DriveOptions::default());
            drive.delay(1000);
            let under_way = spawn({
                let device = device.clone();
                async move { device.write_durable(at(0), filled(1, 64)).await }
            });
            sleep(Duration::from_millis(1)).await;
            act(&drive);
            let ended = timeout(Duration::from_secs(5), under_way).await;
            assert_eq!(fault(ended.expect("ends").expect("not cancelled")), wanted);
            assert_eq!(fault(read(&device, 0).await), wanted);
            drop(device);
            assert_eq!(
                try_open(&name, Duration::from_secs(1)).is_ok(),
                wanted == NvmeFault::Reset
            );
        }
    });
}

/// Without anything in flight too, and without being asked.
#[test]
fn an_idle_drive_that_is_pulled_is_noticed() {
    executor::block_on(async {
        let (drive, device, _) = pair(DriveOptions {
            has_volatile_cache: false,
            ..DriveOptions::default()
        });
        device.flush().await.expect("nothing to do");
        drive.remove();
        sleep(Duration::from_millis(1200)).await;
        assert_eq!(fault(device.flush().await), NvmeFault::Gone);
    });
}

#[test]
fn an_idle_drive_is_not_polled() {
    executor::block_on(async {
        let (drive, device, _) = pair(DriveOptions::default());
        read(&device, 0).await.expect("read");
        sleep(Duration::from_millis(20)).await;
        let before = drive.counts().polls;
        sleep(Duration::from_millis(200)).await;
        let polls = drive.counts().polls - before;
        assert!(polls <= 2, "{polls} polls for nothing");
    });
}

/// So often a drive is looked at in that time that owes somebody an answer.
async fn polls_while_stalled(drive: &EmulatedDrive, device: &Device, time: Duration) -> u64 {
    drive.stall();
    let waiting = spawn({
        let device = device.clone();
        async move { read(&device, 0).await }
    });
    sleep(Duration::from_millis(50)).await;
    let before = drive.counts().polls;
    sleep(time).await;
    let polls = drive.counts().polls - before;
    waiting.abort();
    polls
}

/// A drive that takes long is looked at less and less often.
#[test]
fn a_slow_drive_is_polled_with_pauses() {
    executor::block_on(async {
        let (drive, device, _) = pair(DriveOptions::default());
        let polls = polls_while_stalled(&drive, &device, Duration::from_millis(200)).await;
        assert!((2..=250).contains(&polls), "{polls} polls in 200 ms");
    });
}

/// A future that is dropped leaves its command to the drive, and its memory comes back.
#[test]
fn requests_that_nobody_waits_for_take_nothing_with_them() {
    executor::block_on(async {
        let (drive, device, _) = pair(DriveOptions::default());
        drive.delay(20);
        for round in 0..20 {
            let tasks: Vec<_> = (0..32)
                .map(|block| {
                    let device = device.clone();
                    spawn(async move { device.write(at(block), filled(round, 1)).await })
                })
                .collect();
            sleep(Duration::from_micros(200)).await;
            for task in &tasks {
                task.abort();
            }
        }
        drive.delay(2);
        // Beside those: they may land at any time.
        let long = device.write(at(32), filled(9, 2000));
        let long = timeout(Duration::from_secs(10), long).await;
        long.expect("memory and places are there").expect("written");
        let found = device.read(at(32), blocks(2000)).await.expect("read");
        assert!(found.iter().all(|byte| *byte == 9));
    });
}

#[test]
fn commands_are_no_longer_than_the_drive_takes() {
    executor::block_on(async {
        let (drive, device, _) = pair(DriveOptions {
            transfer_max: 1 << 20,
            segments_max: 2,
            ..DriveOptions::default()
        });
        device.write(at(1), filled(1, 1000)).await.expect("written");
        let counts = drive.counts();
        // 2 pieces of 64 KiB each.
        assert_eq!(
            (counts.segments_max, counts.writes),
            (2, 1000_u64.div_ceil(32))
        );
    });
}

#[test]
fn durability_is_by_what_the_drive_has() {
    executor::block_on(async {
        for (has_volatile_cache, has_force_unit_access, through, flushes) in
            [(true, true, 2, 0), (true, false, 1, 2), (false, true, 0, 0)]
        {
            let (drive, device, _) = pair(DriveOptions {
                has_volatile_cache,
                has_force_unit_access,
                ..DriveOptions::default()
            });
            for block in 0..2 {
                let written = device.write_durable(at(block), filled(1, 1)).await;
                written.expect("written");
            }
            let counts = drive.counts();
            assert_eq!((counts.writes_through, counts.flushes), (through, flushes));
        }
    });
}

#[test]
fn formats_that_are_not_used_are_refused_with_what_to_do() {
    executor::block_on(async {
        for (sector_size, metadata_size, protection_type) in
            [(4096, 8, 1), (512, 8, 0), (1024, 0, 0)]
        {
            let name = name();
            let _drive = EmulatedDrive::plug(
                name.address,
                DriveOptions {
                    sector_size,
                    metadata_size,
                    protection_type,
                    ..DriveOptions::default()
                },
            );
            let said = try_open(&name, Duration::from_secs(1));
            let said = said.expect_err("refused").to_string();
            assert!(said.contains("nvme format"), "{said}");
            assert!(
                said.contains(&format!("{metadata_size} bytes of metadata")),
                "{said}"
            );
        }
    });
}

#[test]
fn a_drive_is_the_one_that_was_named_and_has_one_user() {
    executor::block_on(async {
        let (_drive, _device, mut name) = pair(DriveOptions::default());
        let said = try_open(&name, Duration::from_secs(1));
        assert!(said.expect_err("in use").to_string().contains("in use"));
        drop(_device);
        name.serial = Some("OTHER".into());
        let said = try_open(&name, Duration::from_secs(1)).expect_err("another");
        let said = said.to_string();
        assert!(said.contains("EMU0001, not OTHER"), "{said}");
        name.serial = Some("EMU0001".into());
        name.namespace = Some(2);
        let said = try_open(&name, Duration::from_secs(1)).expect_err("no such");
        assert!(said.to_string().contains("namespace 2"), "{said}");
        name.namespace = Some(1);
        let device = try_open(&name, Duration::from_secs(1)).expect("the one");
        assert_eq!(device.name(), name.to_string());
    });
}

/// Looks until it is so.
async fn vitals(device: &Device, is_so: impl Fn(&NvmeVitals) -> bool) -> NvmeVitals {
    let wait = async {
        loop {
            let vitals = device.vitals().expect("a drive of this kind");
            if is_so(&vitals) {
                return vitals;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = timeout(Duration::from_secs(60), wait).await;
    waited.unwrap_or_else(|_| panic!("never: {:?}", device.vitals()))
}

fn often(name: &NvmeName, timeout: Duration) -> Device {
    let options = NvmeOptions {
        timeout,
        health: Duration::from_millis(1),
        ..NvmeOptions::default()
    };
    Device::open_nvme_on(Env::emulated(), name, options).expect("opens")
}

#[test]
fn a_drive_is_asked_how_it_fares_when_it_is_opened_and_every_so_often() {
    executor::block_on(async {
        let name = name();
        let drive = EmulatedDrive::plug(name.address, DriveOptions::default());
        let device = try_open(&name, Duration::from_secs(30)).expect("opens");
        let told = vitals(&device, |it| it.health.is_some()).await;
        let health = told.health.expect("told");
        assert_eq!((health.celsius, health.spare_percent), (40, 100));
        assert!(health.warnings.is_empty() && !told.is_old && told.refusals == 0);
        drop(device);
        let device = often(&name, Duration::from_secs(30));
        let asked = drive.counts().health;
        drive.fare(DriveVitals {
            critical_warning: 2,
            celsius: 91,
            media_errors: 3,
            ..DriveVitals::default()
        });
        let told = vitals(&device, |it| it.health.is_some_and(|it| it.celsius == 91)).await;
        let health = told.health.expect("told");
        assert_eq!((health.warnings.bits(), health.media_errors), (2, 3));
        assert!(drive.counts().health > asked);
        assert_eq!(Device::memory(blocks(1)).vitals(), None);
    });
}

/// It stores data all the same.
#[test]
fn a_drive_that_does_not_tell_is_used_on() {
    executor::block_on(async {
        let name = name();
        let drive = EmulatedDrive::plug(name.address, DriveOptions::default());
        let device = often(&name, Duration::from_secs(30));
        vitals(&device, |it| it.health.is_some()).await;
        drive.hide_health(2, Status { kind: 0, code: 6 });
        let told = vitals(&device, |it| it.is_old).await;
        assert!(
            told.health.is_some(),
            "what it told before is known: {told:?}"
        );
        device.write(at(0), filled(1, 1)).await.expect("written");
        read(&device, 0).await.expect("read");
        let told = vitals(&device, |it| !it.is_old).await;
        assert_eq!(told.refusals, 2);
    });
}

/// The question is given up with the device, whoever has it then.
#[test]
fn a_drive_that_answers_nothing_is_not_asked_again() {
    executor::block_on(async {
        let name = name();
        let drive = EmulatedDrive::plug(name.address, DriveOptions::default());
        drive.stall();
        let device = often(&name, Duration::from_millis(100));
        let before = drive.counts().health;
        // Opening resets it.
        drive.stall();
        let told = vitals(&device, |it| it.refusals > 0).await;
        assert!(told.is_old && told.health.is_none());
        let asked = drive.counts().health;
        assert!(asked <= before + 1, "one question at a time");
        sleep(Duration::from_millis(1200)).await;
        assert_eq!(drive.counts().health, asked);
        assert_eq!(device.vitals().expect("a drive").refusals, 1);
        drop(device);
        try_open(&name, Duration::from_secs(1)).expect("it was given up");
    });
}

fn open_waited_for(name: &NvmeName) -> Result<Device, DeviceError> {
    let options = NvmeOptions {
        notice: Notice::Interrupts,
        ..NvmeOptions::default()
    };
    Device::open_nvme_on(Env::emulated(), name, options)
}

fn waited_for(options: DriveOptions) -> (EmulatedDrive, Device) {
    let name = name();
    let drive = EmulatedDrive::plug(name.address, options);
    let device = open_waited_for(&name).expect("opens");
    (drive, device)
}

/// More than one turn takes, and none of them is left behind when the drive rings no more.
#[test]
fn a_drive_that_interrupts_is_waited_for_and_not_polled() {
    executor::block_on(async {
        let (drive, device) = waited_for(DriveOptions {
            len: 32 << 20,
            ..DriveOptions::default()
        });
        let writes: Vec<_> = (0..500)
            .map(|block| {
                let device = device.clone();
                spawn(async move { device.write(at(block), filled(5, 1)).await })
            })
            .collect();
        for write in writes {
            let written = timeout(Duration::from_secs(60), write).await;
            let written = written.expect("it ends").expect("not cancelled");
            written.expect("written");
        }
        let found = device.read(at(0), blocks(500)).await.expect("read");
        assert!(found.iter().all(|byte| *byte == 5));
        // What takes long costs nothing meanwhile: only the looks.
        let polls = polls_while_stalled(&drive, &device, Duration::from_secs(1)).await;
        assert!(polls <= 6, "{polls} polls in a second");
    });
}

#[test]
fn interrupts_that_get_lost_delay_and_do_not_stop() {
    executor::block_on(async {
        let (drive, device) = waited_for(DriveOptions::default());
        drive.mute();
        let written = device.write_durable(at(3), filled(7, 1));
        let written = timeout(Duration::from_secs(60), written).await;
        written.expect("the looks find it").expect("written");
        let found = timeout(Duration::from_secs(60), device.read(at(3), blocks(1))).await;
        let found = found.expect("as above").expect("read");
        assert!(found.iter().all(|byte| *byte == 7));
    });
}

#[test]
fn a_drive_that_is_waited_for_ends_like_any_other() {
    executor::block_on(async {
        for (wanted, act) in [
            (NvmeFault::Reset, EmulatedDrive::reset as fn(&EmulatedDrive)),
            (NvmeFault::Gone, EmulatedDrive::remove),
        ] {
            let (drive, device) = waited_for(DriveOptions::default());
            drive.stall();
            let under_way = spawn({
                let device = device.clone();
                async move { device.write_durable(at(0), filled(1, 64)).await }
            });
            sleep(Duration::from_millis(1)).await;
            act(&drive);
            let ended = timeout(Duration::from_secs(60), under_way).await;
            assert_eq!(fault(ended.expect("ends").expect("not cancelled")), wanted);
        }
    });
}

#[test]
fn a_drive_without_interrupts_is_refused_where_they_are_wanted() {
    executor::block_on(async {
        let name = name();
        let _drive = EmulatedDrive::plug(
            name.address,
            DriveOptions {
                has_interrupts: false,
                ..DriveOptions::default()
            },
        );
        let refused = open_waited_for(&name);
        let said = refused.expect_err("it cannot").to_string();
        assert!(said.contains("nvme.wait"), "{said}");
        try_open(&name, Duration::from_secs(30)).expect("it can be polled");
    });
}
