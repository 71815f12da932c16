//! The same log on a real file, through the real device.

use crate::support::{ALL, SEGMENT, append, assert_entries, entries, group, open, options, region};
use ogee_device::{Device, OpenOptions};
use ogee_log::Log;
use ogee_proto::id::LogId;
use ogee_proto::unit::ByteLen;
use ogee_runtime::executor::block_on;

const SEGMENTS: usize = 16;

#[test]
fn a_log_on_a_file_survives_reopening() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("folder");
    let path = folder.path().join("device");
    block_on(async {
        let create = Some(ByteLen::from_usize((SEGMENTS + 1) * SEGMENT));
        let device = Device::open(&path, OpenOptions { create })
            .await
            .expect("create");
        Log::format(&device, region(SEGMENTS), options())
            .await
            .expect("format");
        let log = open(&device, SEGMENTS).await;
        for index in 0..60 {
            append(&group(&log, 1), entries(1, index..index + 1, 3))
                .await
                .expect("append");
            append(&group(&log, 2), entries(1, index..index + 1, 0))
                .await
                .expect("append");
            if index > 4 {
                group(&log, 1)
                    .purge(LogId::new(1, index - 4))
                    .await
                    .expect("purge");
            }
        }
        assert!(
            log.counters().segments_begun > SEGMENTS as u64,
            "it wrapped"
        );
        log.close().await.expect("close");
    });
    block_on(async {
        let device = Device::open(&path, OpenOptions::default())
            .await
            .expect("open");
        let log = open(&device, SEGMENTS).await;
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &entries(1, 56..60, 3));
        let found = group(&log, 2).entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &entries(1, 0..60, 0));
        assert_eq!(log.counters().cache_misses, 4);
    });
}
