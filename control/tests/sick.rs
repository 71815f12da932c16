//! Devices that limp, and devices that are replaced, with chunkservers that only talk.

mod common;

use common::{Chunkserver, config, fault, ready, register_soon, registration, start, status, stop};
use common::{store, topology};
use ogee_control::{Mds, MdsConfig, MdsError, MdsHandle};
use ogee_proto::service::{
    DeviceInfo, DevicesName, DriveReport, Empty, JobInfo, LightReport, LostBlocks,
    ReplaceDeviceRequest,
};
use std::path::Path;
use std::time::{Duration, Instant};

/// The second device of cs1.
const SICK: (usize, usize) = (0, 1);

fn hasty(dir: &Path) -> MdsConfig {
    let mut config = common::hasty(dir, 0);
    config.balance_after_ms = 1000;
    config.sick.limping_after_ms = 400;
    config.sick.well_after_ms = 1000;
    config.sick.eject_after_ms = 0;
    config
}

async fn jobs(mds: &MdsHandle) -> Vec<JobInfo> {
    let jobs = topology(mds).await.list_jobs(Empty {}).await;
    jobs.expect("listed").into_inner().jobs
}

async fn device(mds: &MdsHandle, id: &str) -> DeviceInfo {
    let devices = topology(mds).await.list_devices(Empty {}).await;
    let devices = devices.expect("listed").into_inner().devices;
    devices.into_iter().find(|d| d.store == id).expect("known")
}

async fn has_code(mds: &MdsHandle, code: &str) -> bool {
    status(mds).await.codes.iter().any(|c| c.code == code)
}

/// Replicas of copysets that a device leads.
async fn led(mds: &MdsHandle, id: &str) -> usize {
    let copysets = topology(mds).await.list_copysets(Empty {}).await;
    let copysets = copysets.expect("listed").into_inner().copysets;
    let leads = copysets.iter().filter(|c| {
        let mut replicas = c.replicas.iter();
        replicas.any(|r| r.id == c.leader_replica && r.store == id)
    });
    leads.count()
}

/// Lets all beat until it is so; the sick device's writes take `ms`, those of all others 1.
async fn beat_until<F: Future<Output = bool>>(
    what: &str,
    servers: &mut [Chunkserver],
    ms: u64,
    mut is_so: impl FnMut() -> F,
) {
    let deadline = Instant::now() + common::PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "never: {what}");
        for at in 0..servers.len() {
            for shard in 0..2 {
                servers[at].wrote(shard, 10, if (at, shard) == SICK { ms } else { 1 });
            }
            servers[at].beat().await;
            common::hear(servers);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn beat_for(servers: &mut [Chunkserver], ms: u64, time: Duration) {
    let until = Instant::now() + time;
    beat_until("time", servers, ms, || async { Instant::now() >= until }).await;
}

#[tokio::test]
async fn a_limping_device_leads_nothing_until_it_is_well_for_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&hasty(dir.path()));
    let mut servers = ready(&mds).await;
    let sick = store(1, 2);
    beat_until("it leads", &mut servers, 1, || async {
        led(&mds, &sick).await > 0
    })
    .await;
    beat_for(&mut servers, 1, Duration::from_secs(2)).await;
    assert_eq!(device(&mds, &sick).await.sick, "", "all are alike");
    beat_until("it limps", &mut servers, 80, || async {
        device(&mds, &sick).await.sick == "limping"
    })
    .await;
    beat_until("it leads nothing", &mut servers, 80, || async {
        led(&mds, &sick).await == 0 && has_code(&mds, "OGEE-1025").await
    })
    .await;
    let told = device(&mds, &sick).await;
    assert!(told.write_latency_us > 20_000, "{told:?}");
    let off = jobs(&mds).await;
    assert!(
        off.iter().all(|job| job.kind == "transfer_leader"),
        "{off:?}"
    );
    assert!(
        off.iter().any(|job| job.reason.contains("limps")),
        "{off:?}"
    );
    // Uneven for longer than balancing waits.
    beat_for(&mut servers, 80, Duration::from_secs(3)).await;
    assert_eq!(led(&mds, &sick).await, 0, "nobody moves them back");
    assert_eq!(servers[0].beat().await.probe, std::slice::from_ref(&sick));
    beat_until("it is well", &mut servers, 1, || async {
        device(&mds, &sick).await.sick.is_empty()
    })
    .await;
    assert!(!has_code(&mds, "OGEE-1025").await);
    assert!(servers[0].beat().await.probe.is_empty());
    stop(mds).await;
}

#[tokio::test]
async fn one_that_limps_for_long_is_emptied_and_taken_back_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = hasty(dir.path());
    config.sick.eject_after_ms = 1500;
    config.sick.reinstate_after_ms = 0;
    let mds = start(&config);
    let mut servers = ready(&mds).await;
    let sick = store(1, 2);
    let carried = device(&mds, &sick).await.replicas;
    assert!(carried > 0);
    beat_until("nowhere to go", &mut servers, 80, || async {
        has_code(&mds, "OGEE-1029").await
    })
    .await;
    assert_eq!(device(&mds, &sick).await.replicas, carried);
    let stores = [store(9, 1), store(9, 2)];
    let stores: Vec<&str> = stores.iter().map(String::as_str).collect();
    let spare = registration("spare", "a", &stores);
    servers.push(register_soon(&mds.addr().to_string(), spare).await);
    beat_until("empty", &mut servers, 80, || async {
        let told = device(&mds, &sick).await;
        (told.sick.as_str(), told.replicas) == ("ejected", 0)
    })
    .await;
    assert!(has_code(&mds, "OGEE-1026").await);
    let drains = jobs(&mds).await;
    let mut drains = drains.iter().filter(|job| job.kind == "drain");
    assert!(drains.all(|job| job.reason.contains("limps")));
    beat_for(&mut servers, 1, Duration::from_secs(2)).await;
    assert_eq!(device(&mds, &sick).await.sick, "ejected", "only by hand");
    let mut operator = topology(&mds).await;
    let nobody = DevicesName {
        name: "nobody".into(),
    };
    assert_eq!(
        fault(operator.reinstate_devices(nobody).await).code(),
        "OGEE-2046"
    );
    let name = DevicesName { name: sick.clone() };
    let made = operator.reinstate_devices(name).await.expect("known");
    assert_eq!(made.into_inner().devices, 1);
    assert_eq!(device(&mds, &sick).await.sick, "");
    stop(mds).await;
}

#[tokio::test]
async fn a_device_is_replaced_by_one_command_that_may_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&hasty(dir.path()));
    let mut servers = ready(&mds).await;
    let (old, beside, new) = (store(1, 1), store(1, 2), store(9, 1));
    let stores = [store(9, 1), store(9, 2)];
    let stores: Vec<&str> = stores.iter().map(String::as_str).collect();
    let spare = registration("spare", "a", &stores);
    servers.push(register_soon(&mds.addr().to_string(), spare).await);
    beat_for(&mut servers, 1, Duration::from_millis(300)).await;
    let mut operator = topology(&mds).await;
    let wish = |old: &str, new: &str| ReplaceDeviceRequest {
        old: old.into(),
        new: new.into(),
        cancel: false,
    };
    let mut refuse = async |old: &str, new: &str, words: &str| {
        let fault = fault(operator.replace_device(wish(old, new)).await);
        assert_eq!(fault.code(), "OGEE-2027", "{fault}");
        assert!(fault.to_string().contains(words), "{fault}");
    };
    refuse(&old, &store(2, 1), "zone, b").await;
    refuse(&old, &old, "same device").await;
    let carried = device(&mds, &old).await.replicas;
    assert!(carried > 0);
    for _ in 0..2 {
        let made = operator
            .replace_device(wish(&old, &new))
            .await
            .expect("fits");
        assert_eq!(made.into_inner().replicas, carried);
    }
    let back = fault(operator.replace_device(wish(&beside, &old)).await);
    assert_eq!(
        back.code(),
        "OGEE-2027",
        "one that leaves takes nobody's place"
    );
    beat_until("moved", &mut servers, 1, || async {
        let told = device(&mds, &old).await;
        (told.mark.as_str(), told.replaced_by == new) == ("empty", true)
    })
    .await;
    assert_eq!(
        device(&mds, &new).await.replicas,
        carried,
        "all to the same place"
    );
    let drains = jobs(&mds).await;
    let mut drains = drains.iter().filter(|job| job.kind == "drain");
    assert!(drains.all(|job| job.store == new && job.reason.contains("replaced")));
    let done = operator
        .replace_device(wish(&old, &new))
        .await
        .expect("done");
    assert_eq!(done.into_inner().replicas, 0);
    let keep = ReplaceDeviceRequest {
        cancel: true,
        ..wish(&old, "")
    };
    operator.replace_device(keep).await.expect("known");
    assert_eq!(device(&mds, &old).await.mark, "");
    stop(mds).await;
}

/// What the metadata servers say of a code.
async fn told(mds: &MdsHandle, code: &str) -> Option<(String, String)> {
    let found = status(mds).await.codes.into_iter().find(|c| c.code == code);
    found.map(|c| (c.severity, c.detail))
}

#[tokio::test]
async fn blocks_that_nobody_has_are_an_error_that_names_volume_and_range() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&hasty(dir.path()));
    let mut servers = ready(&mds).await;
    let mut volumes = common::volumes(&mds).await;
    let made = volumes.create(common::new_volume("disk", 64 << 20)).await;
    let volume = made.expect("made").into_inner().id;
    let lost = LostBlocks {
        copyset: 1,
        volume,
        chunk: 1,
        first_block: 2,
        blocks: 3,
    };
    for server in &mut servers[..2] {
        server.lost = vec![
            lost,
            LostBlocks {
                volume: 999,
                ..lost
            },
        ];
    }
    common::beat_all(&mut servers).await;
    let (severity, detail) = told(&mds, "OGEE-1027").await.expect("told");
    let from = (16 << 20) + 2 * 4096;
    assert_eq!(severity, "ERR");
    assert!(
        detail.contains(&format!("volume disk, bytes {from} to {}", from + 3 * 4096)),
        "{detail}"
    );
    assert!(!detail.contains("999"), "{detail}");
    servers.iter_mut().for_each(|server| server.lost.clear());
    common::beat_all(&mut servers).await;
    assert_eq!(told(&mds, "OGEE-1027").await, None);

    // The same of what replicas differ in.
    servers[1].disputed = vec![lost];
    common::beat_all(&mut servers).await;
    let (severity, detail) = told(&mds, "OGEE-1030").await.expect("told");
    assert_eq!(severity, "ERR");
    assert!(detail.contains("volume disk, bytes"), "{detail}");
    servers[1].disputed.clear();
    common::beat_all(&mut servers).await;
    assert_eq!(told(&mds, "OGEE-1030").await, None);
    stop(mds).await;
}

#[tokio::test]
async fn a_worn_device_is_emptied_where_that_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&hasty(dir.path()));
    let mut servers = ready(&mds).await;
    servers[0].store_state = "worn";
    beat_until("worn, and nowhere to go", &mut servers, 1, || async {
        has_code(&mds, "OGEE-1028").await && has_code(&mds, "OGEE-1029").await
    })
    .await;
    let stores = [store(9, 1), store(9, 2)];
    let stores: Vec<&str> = stores.iter().map(String::as_str).collect();
    let spare = registration("spare", "a", &stores);
    servers.push(register_soon(&mds.addr().to_string(), spare).await);
    beat_until("both are empty", &mut servers, 1, || async {
        device(&mds, &store(1, 1)).await.replicas + device(&mds, &store(1, 2)).await.replicas == 0
    })
    .await;
    stop(mds).await;
}

#[tokio::test]
async fn a_drive_that_warns_is_named_until_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&hasty(dir.path()));
    let mut servers = ready(&mds).await;
    let drive = DriveReport {
        warnings: 0b101,
        celsius: 81,
        spare_percent: 3,
        media_errors: 7,
        ..DriveReport::default()
    };
    // Changes go by what was told before, whole reports do not: both carry it.
    for tells_changes in [true, false] {
        servers[0].tells_changes = tells_changes;
        servers[0].registration.stores[1].drive = Some(drive);
        beat_until("it is told of", &mut servers, 1, || async {
            has_code(&mds, "OGEE-1054").await
        })
        .await;
        let codes = status(&mds).await.codes;
        let code = codes.iter().find(|c| c.code == "OGEE-1054");
        let code = code.expect("given");
        assert_eq!((code.count, code.severity.as_str()), (1, "WARN"));
        for words in [
            "cs1:/dev/disk1 (few spare blocks are left, it is not reliable any more; 81 °C",
            "7 media errors",
        ] {
            assert!(code.detail.contains(words), "{}", code.detail);
        }
        assert!(
            code.remedy.contains("ogee device health"),
            "{}",
            code.remedy
        );
        assert_eq!(device(&mds, &store(1, 2)).await.drive, Some(drive));
        assert_eq!(device(&mds, &store(1, 1)).await.drive, None);
        servers[0].registration.stores[1].drive = Some(DriveReport {
            warnings: 0,
            ..drive
        });
        beat_until("it does not warn any more", &mut servers, 1, || async {
            !has_code(&mds, "OGEE-1054").await
        })
        .await;
    }
    stop(mds).await;
}

/// A copy that stays bad is one thing, a device that fails the reads of both another.
#[tokio::test]
async fn metadata_that_stays_bad_and_metadata_that_cannot_be_read_are_named_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&hasty(dir.path()));
    let mut servers = ready(&mds).await;
    let verified = |bad: u64, unread: u64| LightReport {
        passes: 1,
        copies: 812,
        bad,
        unread,
    };
    for (light, code, other, words) in [
        (
            verified(3, 0),
            "OGEE-1065",
            "OGEE-1066",
            "cs1:/dev/disk1 (3 pages)",
        ),
        (
            verified(0, 2),
            "OGEE-1066",
            "OGEE-1065",
            "cs1:/dev/disk1 (2 pages)",
        ),
    ] {
        servers[0].registration.stores[1].light = Some(light);
        beat_until("it is told of", &mut servers, 1, || async {
            has_code(&mds, code).await && !has_code(&mds, other).await
        })
        .await;
        let codes = status(&mds).await.codes;
        let told = codes.iter().find(|it| it.code == code).expect("given");
        assert_eq!((told.count, told.severity.as_str()), (1, "WARN"));
        assert!(told.detail.contains(words), "{}", told.detail);
        assert!(
            told.remedy.contains("ogee device replace"),
            "{}",
            told.remedy
        );
        assert_eq!(device(&mds, &store(1, 2)).await.light, Some(light));
    }
    servers[0].registration.stores[1].light = Some(verified(0, 0));
    beat_until("all can be read again", &mut servers, 1, || async {
        !has_code(&mds, "OGEE-1066").await
    })
    .await;
    stop(mds).await;
}

#[tokio::test]
async fn settings_out_of_their_range_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let changes: [fn(&mut MdsConfig); 4] = [
        |c| c.sick.factor = 1,
        |c| c.sick.floor_ms = 0,
        |c| c.sick.well_after_ms = 1,
        |c| c.sick.eject_after_ms = 1,
    ];
    for change in changes {
        let mut config = config(dir.path());
        change(&mut config);
        let error = Mds::start(&config).err().expect("out of range");
        assert!(matches!(error, MdsError::Setting { .. }), "{error}");
    }
}
