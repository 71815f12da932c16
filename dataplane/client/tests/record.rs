//! A frontend that comes back while no metadata server answers: it goes on with what it has kept, shuts out what is left
//! of the one before, and is shut out by a newer attachment.

#![allow(clippy::unwrap_used, reason = "all of this file is test code")]

#[expect(dead_code, reason = "volume.rs uses the rest")]
mod support;

use ogee_client::{
    ClientError, Control, ControlError, KeptControl, MdsConfig, MdsHandle, OpenOptions,
    RecordError, RecordFile, Volume,
};
use ogee_proto::layout::StripeLayout;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_proto::wire::FrameKind;
use ogee_runtime::executor::block_on;
use ogee_runtime::{Payload, sleep, spawn};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use support::{Cluster, Fault, TestControl};
use tempfile::TempDir;

const SIZE: u64 = 128 << 20;
const HOST: &str = "this-host";

struct Bench {
    cluster: Cluster,
    control: Rc<TestControl>,
    worker: MdsHandle,
    directory: TempDir,
}

impl Bench {
    fn new(copysets: u32) -> Self {
        let cluster = Cluster::new(copysets);
        let control = TestControl::new(&cluster, SIZE, StripeLayout::default());
        // Never asked: it lends its thread.
        let worker = MdsHandle::start(MdsConfig::new(vec!["127.0.0.1:1".into()])).unwrap();
        let directory = tempfile::tempdir().unwrap();
        Self {
            cluster,
            control,
            worker,
            directory,
        }
    }

    fn file_in(directory: &Path) -> RecordFile {
        RecordFile::lock(directory, "v", HOST).unwrap()
    }

    async fn open_with(
        &self,
        file: RecordFile,
        options: OpenOptions,
    ) -> Result<Volume, ClientError> {
        let inner: Rc<dyn Control> = self.control.clone();
        let kept = KeptControl::new(inner, self.worker.clone(), file);
        Volume::open_with(Rc::new(kept), "v", options).await
    }

    async fn open_from(&self, directory: &Path) -> Result<Volume, ClientError> {
        self.open_with(Self::file_in(directory), OpenOptions::default())
            .await
    }

    async fn open(&self) -> Volume {
        self.open_from(self.directory.path()).await.unwrap()
    }

    /// Why a frontend cannot go on with what lies in `directory`.
    async fn refusal(&self, directory: &Path) -> RecordError {
        let file = Self::file_in(directory);
        self.refusal_of(file, OpenOptions::default()).await
    }

    async fn refusal_of(&self, file: RecordFile, options: OpenOptions) -> RecordError {
        match self.open_with(file, options).await {
            Err(ClientError::Control(ControlError::Record(error))) => error,
            Err(other) => panic!("another refusal: {other}"),
            Ok(_) => panic!("not refused"),
        }
    }

    fn record(&self) -> std::path::PathBuf {
        self.directory.path().join("v.attachment")
    }

    /// What a kill leaves: the tasks end, nothing is said to anybody.
    async fn kill(&self, volume: Volume) {
        drop(volume);
        sleep(Duration::from_millis(5)).await;
    }
}

async fn write(volume: &Volume, block: u64, value: u8) -> Result<(), ClientError> {
    let data = Payload::from(vec![value; 4096]);
    volume.write(ByteOffset::new(block * 4096), data).await
}

async fn read(volume: &Volume, block: u64) -> u8 {
    let mut data = vec![0; 4096];
    let at = ByteOffset::new(block * 4096);
    volume.read_into(at, &mut data).await.unwrap();
    assert!(data.iter().all(|byte| *byte == data[0]), "a torn block");
    data[0]
}

#[test]
fn it_goes_on_without_the_control_plane_and_shuts_out_what_is_left_of_itself() {
    block_on(async {
        let bench = Bench::new(2);
        let first = bench.open().await;
        write(&first, 0, 1).await.unwrap();
        // One is under way when the process dies: the copyset has it, and has not looked at it yet.
        bench.cluster.plan(|header| match header.kind {
            FrameKind::Write => Fault::Hold,
            _ => Fault::None,
        });
        let under_way = spawn({
            let first = first.clone();
            async move { write(&first, 0, 2).await }
        });
        while bench.cluster.held() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        bench.control.silent.set(true);
        under_way.abort();
        bench.kill(first).await;

        // Killed and started again, twice.
        for value in [3, 4] {
            let next = bench.open().await;
            assert!(next.unsealed().is_empty());
            if value == 3 {
                // Carried out now, and too late: it would undo what comes next.
                bench.cluster.release();
                assert_eq!(read(&next, 0).await, 1, "the old one is shut out");
            }
            write(&next, 0, value).await.unwrap();
            assert_eq!(read(&next, 0).await, value);
            bench.kill(next).await;
        }
        assert_eq!(bench.cluster.frames(FrameKind::Seal), 3 * 2);
        bench.cluster.assert_rules();
        let effects = bench.cluster.effects();
        assert_eq!(
            effects.len(),
            3,
            "the one under way has no effect: {effects:?}"
        );
        assert!(effects.values().all(|count| *count == 1));
    });
}

#[test]
fn an_attachment_by_the_control_plane_ends_one_that_went_on() {
    block_on(async {
        let bench = Bench::new(2);
        bench.kill(bench.open().await).await;
        bench.control.silent.set(true);
        let resumed = bench.open().await;
        write(&resumed, 5, 1).await.unwrap();
        bench.control.silent.set(false);
        let newer = bench.control.open().await;
        write(&newer, 5, 2).await.unwrap();
        let error = write(&resumed, 5, 3).await.unwrap_err();
        assert!(matches!(error, ClientError::Fenced { .. }), "{error}");
        assert_eq!(read(&newer, 5).await, 2);
        bench.kill(resumed).await;
        // What it has kept is of no use any more, and says so.
        bench.control.silent.set(true);
        let error = bench.open_from(bench.directory.path()).await.err().unwrap();
        assert!(matches!(error, ClientError::Fenced { .. }), "{error}");
        write(&newer, 5, 4).await.unwrap();
        assert_eq!(read(&newer, 5).await, 4);
    });
}

#[test]
fn of_two_that_go_on_with_copies_of_a_record_one_writes() {
    block_on(async {
        let bench = Bench::new(1);
        bench.kill(bench.open().await).await;
        let copies = tempfile::tempdir().unwrap();
        let copy = copies.path().join("v.attachment");
        fs::copy(bench.record(), &copy).unwrap();
        bench.control.silent.set(true);
        let one = bench.open().await;
        write(&one, 7, 1).await.unwrap();
        let error = bench.open_from(copies.path()).await.err().unwrap();
        assert!(matches!(error, ClientError::Fenced { .. }), "{error}");
        write(&one, 7, 2).await.unwrap();
        assert_eq!(read(&one, 7).await, 2);
    });
}

/// Killed after its volume has grown, and is called so, and opened again while nobody answers: with the newest map.
async fn resized_and_resumed(bench: &Bench, called: &str) -> Volume {
    let volume = bench.open().await;
    let mut resized = volume.resized();
    *bench.control.called.borrow_mut() = called.into();
    bench.control.size.set(2 * SIZE);
    resized.changed().await.unwrap();
    bench.kill(volume).await;
    bench.control.silent.set(true);
    let resumed = bench.open().await;
    assert_eq!(resumed.size(), ByteLen::new(2 * SIZE));
    resumed
}

#[test]
fn what_is_kept_follows_the_map_and_ends_with_the_attachment() {
    block_on(async {
        let bench = Bench::new(1);
        let resumed = resized_and_resumed(&bench, "v").await;
        // Given up under the name that the control plane knows.
        bench.control.silent.set(false);
        resumed.close().await.unwrap();
        assert_eq!(bench.control.detached.get(), 1);
        assert!(!bench.record().exists());
        bench.control.silent.set(true);
        let error = bench.open_from(bench.directory.path()).await.err().unwrap();
        let is_silence = matches!(
            error,
            ClientError::Control(ControlError::Unreachable { .. })
        );
        assert!(is_silence, "{error}");
    });
}

/// Who starts a server again does not know that the volume was renamed, and nobody is there to say it.
#[test]
fn what_is_kept_of_a_renamed_volume_goes_by_the_name_that_it_was_attached_by() {
    block_on(async {
        let bench = Bench::new(1);
        let resumed = resized_and_resumed(&bench, "team/w").await;
        write(&resumed, 0, 3).await.unwrap();
        bench.kill(resumed).await;
        // Another volume's files, of a name in a directory.
        let file = RecordFile::lock(bench.directory.path(), "team/w", HOST).unwrap();
        assert!(file.path().ends_with("team@w.attachment") && !file.exists());
    });
}

#[test]
fn readers_go_on_beside_each_other() {
    block_on(async {
        let bench = Bench::new(1);
        let read_only = || OpenOptions {
            read_only: true,
            ..OpenOptions::default()
        };
        let file = || Bench::file_in(bench.directory.path());
        let volume = bench.open_with(file(), read_only()).await.unwrap();
        bench.kill(volume).await;
        let other = bench.control.open_with(read_only()).await;
        bench.control.silent.set(true);
        let resumed = bench.open_with(file(), read_only()).await.unwrap();
        assert_eq!((read(&resumed, 0).await, read(&other, 0).await), (0, 0));
        bench.kill(resumed).await;
        let error = bench.refusal_of(file(), OpenOptions::default()).await;
        assert!(
            matches!(error, RecordError::OtherUse { is_read_only: true }),
            "{error}"
        );
    });
}

#[test]
fn what_is_of_no_use_is_refused_with_its_reason() {
    block_on(async {
        let bench = Bench::new(1);
        bench.kill(bench.open().await).await;
        bench.control.silent.set(true);
        let place = bench.directory.path();

        let elsewhere = RecordFile::lock(place, "v", "another-host").unwrap();
        let error = bench.refusal_of(elsewhere, OpenOptions::default()).await;
        assert!(matches!(error, RecordError::OtherHost { .. }), "{error}");

        let as_other = place.join("w.attachment");
        fs::copy(bench.record(), &as_other).unwrap();
        let file = RecordFile::lock(place, "w", HOST).unwrap();
        let inner: Rc<dyn Control> = bench.control.clone();
        let kept = KeptControl::new(inner, bench.worker.clone(), file);
        let opened = Volume::open_with(Rc::new(kept), "w", OpenOptions::default()).await;
        let error = opened.err().unwrap().to_string();
        assert!(error.contains("volume v, not of w"), "{error}");

        fs::set_permissions(bench.record(), fs::Permissions::from_mode(0o620)).unwrap();
        let error = bench.refusal(place).await;
        assert!(
            matches!(error, RecordError::Exposed { mode: 0o620, .. }),
            "{error}"
        );
        fs::set_permissions(bench.record(), fs::Permissions::from_mode(0o600)).unwrap();

        let mut bytes = fs::read(bench.record()).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(bench.record(), bytes).unwrap();
        let error = bench.refusal(place).await;
        assert!(matches!(error, RecordError::Checksum { .. }), "{error}");
        // A control plane that answers needs none of it.
        bench.control.silent.set(false);
        bench.open().await;
    });
}

#[test]
fn a_record_is_used_by_one_at_a_time_and_kept_where_nobody_else_writes() {
    let directory = tempfile::tempdir().unwrap();
    let held = Bench::file_in(directory.path());
    let error = RecordFile::lock(directory.path(), "v", HOST).unwrap_err();
    assert!(matches!(error, RecordError::Busy { .. }), "{error}");
    drop(held);
    drop(Bench::file_in(directory.path()));
    let error = RecordFile::lock(directory.path(), "../v", HOST).unwrap_err();
    assert!(matches!(error, RecordError::Name(_)), "{error}");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = RecordFile::lock(directory.path(), "v", HOST).unwrap_err();
    assert!(matches!(error, RecordError::Exposed { .. }), "{error}");
}
