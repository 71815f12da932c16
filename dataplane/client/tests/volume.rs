//! The client against real services over loopback: exactly-once effects, leaders that move,
//! fences, seals, bounds.

#![allow(clippy::unwrap_used, reason = "all of this file is test code")]

mod support;

use ogee_client::{ClientError, OpenOptions, Volume};
use ogee_proto::id::CopysetId;
use ogee_proto::layout::StripeLayout;
use ogee_proto::limit::SESSION_WINDOW_MAX;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_proto::wire::{FrameKind, Status};
use ogee_runtime::executor::block_on;
use ogee_runtime::{Payload, Target, now, sleep, spawn, spawn_scoped, timeout};
use std::cell::Cell;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;
use support::{Cluster, Fault, TestControl};

const MIB: u64 = 1 << 20;
const CHUNK: u64 = 16 * MIB;
const SIZE: u64 = 128 * MIB;

fn at(offset: u64) -> ByteOffset {
    ByteOffset::new(offset)
}

fn len(len: u64) -> ByteLen {
    ByteLen::new(len)
}

/// Bytes that differ from block to block.
fn pattern(seed: u64, size: u64) -> Vec<u8> {
    let block = |n: u64| (seed.wrapping_mul(1_000_003) + n).to_le_bytes().repeat(512);
    (0..size / 4096).flat_map(block).collect()
}

fn payload(seed: u64) -> Payload {
    Payload::from(pattern(seed, 4096))
}

async fn read(volume: &Volume, offset: u64, size: u64) -> Vec<u8> {
    volume
        .read(at(offset), len(size))
        .await
        .unwrap()
        .concat_bytes()
}

trait Concat {
    fn concat_bytes(&self) -> Vec<u8>;
}

impl Concat for Vec<Payload> {
    fn concat_bytes(&self) -> Vec<u8> {
        self.iter().flat_map(|piece| piece.to_vec()).collect()
    }
}

/// Waits until `condition` holds; the bound is only there to end a broken test.
async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..20_000 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
    panic!("never happened: {what}");
}

fn plain(copysets: u32) -> (Cluster, Rc<TestControl>) {
    let cluster = Cluster::new(copysets);
    let control = TestControl::new(&cluster, SIZE, StripeLayout::default());
    (cluster, control)
}

#[test]
fn what_was_written_is_read_across_chunks_and_stripes() {
    block_on(async {
        for layout in [
            StripeLayout::default(),
            StripeLayout::new(65_536, 4).unwrap(),
        ] {
            let cluster = Cluster::new(3);
            let volume = TestControl::new(&cluster, SIZE, layout).open().await;
            let (offset, size) = (CHUNK - 3 * MIB - 4096, 6 * MIB + 8192);
            let data = pattern(1, size);
            volume
                .write(at(offset), Payload::from(data.clone()))
                .await
                .unwrap();
            assert_eq!(read(&volume, offset, size).await, data);
            // One block, and all but one: many parts, each to its place.
            for read in [1, data.len() / 4096 - 1] {
                let mut whole = vec![9; read * 4096];
                volume
                    .read_into(at(offset + 4096), &mut whole)
                    .await
                    .unwrap();
                assert_eq!(whole, data[4096..][..read * 4096]);
                whole.fill(9);
                let start = NonNull::from_mut(whole.as_mut_slice()).cast();
                // SAFETY: the vector is not touched before the read has ended.
                let target = unsafe { Target::new(start, whole.len(), Rc::new(())) };
                volume.read_to(at(offset + 4096), &target).await.unwrap();
                drop(target);
                assert_eq!(whole, data[4096..][..read * 4096]);
            }
            assert_eq!(read(&volume, 0, 4096).await, [0; 4096], "never written");
            let metrics = volume.metrics().snapshot();
            assert_eq!((metrics.write.requests, metrics.write.bytes), (1, size));
            assert_eq!((metrics.read.requests, metrics.bytes_copied), (6, 2 * size));
            assert!(metrics.write.latency_ns_sum > 0 && metrics.write.latency_ns_max > 0);
            cluster.assert_rules();
            for node in 0..3 {
                cluster.stop(node).await;
            }
        }
    });
}

#[test]
fn discard_and_zeroes_and_allocation() {
    block_on(async {
        let (cluster, control) = plain(2);
        let volume = control.open().await;
        let data = pattern(1, 64 * 4096);
        volume
            .write(at(CHUNK - 32 * 4096), Payload::from(data))
            .await
            .unwrap();
        volume
            .discard(at(CHUNK - 8 * 4096), len(16 * 4096))
            .await
            .unwrap();
        volume
            .write_zeroes(at(CHUNK + 31 * 4096), len(4096))
            .await
            .unwrap();
        assert_eq!(read(&volume, CHUNK - 4096, 8192).await, [0; 8192]);
        assert_eq!(read(&volume, CHUNK + 31 * 4096, 4096).await, [0; 4096]);
        let runs = volume
            .block_status(at(CHUNK - 40 * 4096), len(80 * 4096))
            .await
            .unwrap();
        let runs: Vec<_> = runs
            .iter()
            .map(|(len, set)| (len.get() / 4096, *set))
            .collect();
        assert_eq!(
            runs,
            [(8, false), (24, true), (16, false), (24, true), (8, false)]
        );
        let metrics = volume.metrics().snapshot();
        let counts = [metrics.discard, metrics.write_zeroes, metrics.block_status];
        assert_eq!(counts.map(|kind| kind.requests), [1, 1, 1]);
        cluster.assert_exactly_once(2 + 2 + 1);
    });
}

#[test]
fn each_copyset_is_sealed_once_when_the_volume_is_opened() {
    block_on(async {
        let (cluster, control) = plain(4);
        let volume = control.open().await;
        assert_eq!(cluster.frames(FrameKind::Seal), 4);
        assert_eq!(volume.unsealed(), []);
        let writes = (0..32).map(|n| {
            let volume = volume.clone();
            spawn(async move { volume.write(at(n % 4 * CHUNK + n * 4096), payload(n)).await })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.unwrap().unwrap();
        }
        assert_eq!(cluster.frames(FrameKind::Seal), 4);
        assert_eq!(volume.metrics().snapshot().seals, 4);
    });
}

#[test]
fn a_copyset_that_cannot_be_sealed_is_named_and_sealed_later() {
    block_on(async {
        let (cluster, control) = plain(3);
        cluster.group(2, |group| group.leader = None);
        let volume = control.open_limited(Duration::from_millis(300)).await;
        assert_eq!(volume.unsealed(), [CopysetId::new(2)]);
        // The others serve.
        volume.write(at(0), payload(1)).await.unwrap();
        let waited = volume.write(at(CHUNK), payload(2)).await;
        assert!(
            matches!(waited, Err(ClientError::TimedOut(_))),
            "{waited:?}"
        );
        cluster.lead(Some(0));
        until("the last seal", || volume.unsealed().is_empty()).await;
        assert_eq!(cluster.group(2, |group| group.seals), 1);
    });
}

#[test]
fn a_lost_seal_is_renewed() {
    block_on(async {
        let (cluster, control) = plain(1);
        let volume = control.open().await;
        volume.write(at(0), payload(1)).await.unwrap();
        cluster.group(1, |group| group.unseal());
        volume.write(at(0), payload(2)).await.unwrap();
        assert_eq!(read(&volume, 0, 4096).await, pattern(2, 4096));
        assert_eq!(cluster.group(1, |group| group.seals), 2);
    });
}

macro_rules! lossy {
    ($($name:ident: $fault:expr;)*) => {
        $(
            #[test]
            fn $name() {
                block_on(async {
                    let (cluster, control) = plain(2);
                    let volume = control.open().await;
                    let turn = Cell::new(0u32);
                    cluster.plan(move |_| {
                        turn.set(turn.get() + 1);
                        if turn.get() % 3 == 0 { $fault } else { Fault::None }
                    });
                    for n in 0..30 {
                        volume.write(at(n % 5 * CHUNK / 2), payload(n)).await.unwrap();
                        let found = read(&volume, n % 5 * CHUNK / 2, 4096).await;
                        assert_eq!(found, pattern(n, 4096), "write {n}");
                    }
                    cluster.assert_exactly_once(30);
                    let metrics = volume.metrics().snapshot();
                    assert!(metrics.retries > 0 && metrics.pauses > 0);
                });
            }
        )*
    };
}

lossy! {
    a_lost_reply_does_not_repeat_the_effect: Fault::LoseReply;
    a_lost_request_is_sent_again: Fault::LoseRequest;
    an_unknown_outcome_is_asked_for_again: Fault::Unknown;
    a_busy_replica_is_asked_again: Fault::Answer(Status::Retry);
    a_full_device_is_waited_for: Fault::Answer(Status::NoSpace);
    a_failing_device_is_waited_for: Fault::Answer(Status::Io);
}

#[test]
fn a_leader_that_moved_is_followed() {
    block_on(async {
        for hints in [true, false] {
            let (cluster, control) = plain(1);
            cluster.set_hints(hints);
            let volume = control.open().await;
            for n in 0..12 {
                cluster.lead(Some(usize::try_from(n % 3).unwrap()));
                volume.write(at(0), payload(n)).await.unwrap();
                assert_eq!(read(&volume, 0, 4096).await, pattern(n, 4096));
            }
            cluster.assert_exactly_once(12);
            assert!(volume.metrics().snapshot().redirects >= 11);
            for node in 0..3 {
                cluster.stop(node).await;
            }
        }
    });
}

#[test]
fn a_dead_leader_is_left_for_its_successor() {
    block_on(async {
        let (cluster, control) = plain(2);
        let volume = control.open().await;
        volume.write(at(0), payload(1)).await.unwrap();
        cluster.stop(0).await;
        cluster.lead(Some(2));
        volume.write(at(0), payload(2)).await.unwrap();
        assert_eq!(read(&volume, 0, 4096).await, pattern(2, 4096));
        cluster.start(0);
        cluster.lead(Some(0));
        volume.write(at(CHUNK), payload(3)).await.unwrap();
        cluster.assert_exactly_once(3);
    });
}

/// A stopped leader's kernel still accepts connections, so its silence must not lead back to it.
#[test]
fn a_silent_leader_is_left_for_its_successor_at_once() {
    block_on(async {
        let (cluster, control) = plain(1);
        cluster.stop(0).await;
        cluster.start_taciturn(0);
        let volume = control.open().await;
        volume.write(at(0), payload(1)).await.unwrap();
        cluster.mute(0);
        let start = now();
        let write = spawn({
            let volume = volume.clone();
            async move { volume.write(at(0), payload(2)).await }
        });
        until("the write to be held", || cluster.held() == 1).await;
        cluster.lead(Some(2));
        write.await.unwrap().unwrap();
        let waited = now() - start;
        assert!(waited < Duration::from_secs(3), "{waited:?}");
        assert_eq!(read(&volume, 0, 4096).await, pattern(2, 4096));
        cluster.assert_exactly_once(2);
    });
}

#[test]
fn an_election_is_waited_for_by_a_few_probes() {
    block_on(async {
        let (cluster, control) = plain(1);
        let volume = control.open().await;
        volume.write(at(0), payload(0)).await.unwrap();
        cluster.lead(None);
        let before = cluster.frames(FrameKind::Write);
        let writes: Vec<_> = (1..=200)
            .map(|n| {
                let volume = volume.clone();
                spawn(async move { volume.write(at(n * 4096), payload(n)).await })
            })
            .collect();
        until("probes", || {
            cluster.frames(FrameKind::Write) >= before + 200 + 3 * 4
        })
        .await;
        cluster.lead(Some(1));
        for write in writes {
            write.await.unwrap().unwrap();
        }
        cluster.assert_exactly_once(201);
        // 200 of the first burst, then only probes; without the bound each of the 200 would have
        // asked every replica once per pause.
        let sent = cluster.frames(FrameKind::Write) - before;
        assert!(sent < 200 * 4, "{sent} frames for 200 writes");
    });
}

#[test]
fn a_superseded_attachment_is_dead() {
    block_on(async {
        let (cluster, control) = plain(2);
        let old = control.open().await;
        old.write(at(0), payload(1)).await.unwrap();
        let new = control.open().await;
        new.write(at(0), payload(2)).await.unwrap();
        let fenced = |outcome: Result<(), ClientError>| {
            assert!(
                matches!(outcome, Err(ClientError::Fenced { .. })),
                "{outcome:?}"
            );
        };
        fenced(old.write(at(0), payload(3)).await);
        fenced(old.write(at(CHUNK), payload(3)).await);
        fenced(old.read(at(CHUNK), len(4096)).await.map(drop));
        fenced(old.flush().await);
        fenced(old.close().await);
        assert_eq!(read(&new, 0, 4096).await, pattern(2, 4096));
        assert_eq!(read(&new, CHUNK, 4096).await, [0; 4096]);
        cluster.assert_rules();
    });
}

#[test]
fn readers_share_a_volume_and_shut_an_earlier_writer_out() {
    block_on(async {
        let (cluster, control) = plain(1);
        let writer = control.open().await;
        writer.write(at(0), payload(1)).await.unwrap();
        let options = OpenOptions {
            read_only: true,
            ..OpenOptions::default()
        };
        let readers = [
            control.open_with(options.clone()).await,
            control.open_with(options).await,
        ];
        // Theirs is one seal.
        assert_eq!(cluster.group(1, |group| group.seals), 2);
        let late = writer.write(at(0), payload(3)).await;
        assert!(matches!(late, Err(ClientError::Fenced { .. })), "{late:?}");
        for reader in &readers {
            assert_eq!(read(reader, 0, 4096).await, pattern(1, 4096));
            let refused = reader.write(at(0), payload(2)).await;
            assert!(matches!(refused, Err(ClientError::ReadOnly)));
            let refused = reader.discard(at(0), len(4096)).await;
            assert!(matches!(refused, Err(ClientError::ReadOnly)));
        }
    });
}

#[test]
fn final_refusals_reach_the_user() {
    block_on(async {
        let (cluster, control) = plain(1);
        let volume = control.open().await;
        volume.write(at(0), payload(1)).await.unwrap();
        cluster.plan(|_| Fault::Answer(Status::Corrupt));
        let corrupt = volume.read(at(8192), len(4096)).await;
        assert!(
            matches!(corrupt, Err(ClientError::Corrupt { offset, .. }) if offset.get() == 8192)
        );
        cluster.plan(|_| Fault::Answer(Status::BadRequest));
        let refused = volume.write(at(0), payload(2)).await.unwrap_err();
        assert!(refused.to_string().contains("as planned"), "{refused}");
        cluster.plan(|_| Fault::Answer(Status::Stale));
        let stale = volume.write(at(0), payload(2)).await;
        assert!(matches!(stale, Err(ClientError::Stale { .. })));
        let metrics = volume.metrics().snapshot();
        assert_eq!((metrics.read.errors, metrics.write.errors), (1, 2));
    });
}

#[test]
fn the_first_error_ends_a_read_whatever_its_other_parts_wait_for() {
    block_on(async {
        let (cluster, control) = plain(2);
        let volume = control.open().await;
        cluster.plan(|header| match header.key.chunk.get() {
            0 => Fault::Answer(Status::Corrupt),
            _ => Fault::Hold,
        });
        let mut room = vec![9; 8192];
        let start = NonNull::from_mut(room.as_mut_slice()).cast();
        // SAFETY: the vector is not touched before the read has ended.
        let target = unsafe { Target::new(start, room.len(), Rc::new(())) };
        let read = volume.read_to(at(CHUNK - 4096), &target);
        let outcome = timeout(Duration::from_secs(3), read).await.expect("ends");
        assert!(matches!(outcome, Err(ClientError::Corrupt { .. })));
        let into = volume.read_into(at(CHUNK - 4096), &mut room).await;
        assert!(matches!(into, Err(ClientError::Corrupt { .. })));
    });
}

#[test]
fn bad_requests_are_refused_here() {
    block_on(async {
        let (_cluster, control) = plain(1);
        let volume = control.open().await;
        let refused = volume.read(at(512), len(4096)).await;
        assert!(matches!(refused, Err(ClientError::Unaligned { .. })));
        let refused = volume.write(at(SIZE), payload(1)).await;
        assert!(matches!(refused, Err(ClientError::OutOfRange { .. })));
        let refused = volume.discard(at(u64::MAX - 4095), len(4096)).await;
        assert!(matches!(refused, Err(ClientError::OutOfRange { .. })));
        assert!(volume.read(at(SIZE), len(0)).await.unwrap().is_empty());
        volume.write(at(0), Payload::empty()).await.unwrap();
    });
}

#[test]
fn a_flush_waits_for_what_was_issued_before_it_and_no_more() {
    block_on(async {
        let (cluster, control) = plain(2);
        let volume = control.open().await;
        volume.write(at(0), payload(0)).await.unwrap();
        volume.write(at(CHUNK), payload(0)).await.unwrap();
        cluster.plan(|header| match header.key.chunk.get() {
            0 => Fault::Hold,
            _ => Fault::None,
        });
        let start = |offset| {
            let volume = volume.clone();
            spawn(async move { volume.write(at(offset), payload(1)).await })
        };
        let before = start(0);
        until("held", || cluster.held() == 1).await;
        let flushing = volume.clone();
        let flush = spawn(async move { flushing.flush().await });
        sleep(Duration::from_millis(5)).await;
        assert!(!flush.is_finished());
        cluster.plan(|header| match header.key.chunk.get() {
            1 => Fault::Hold,
            _ => Fault::None,
        });
        let after = start(CHUNK);
        until("held", || cluster.held() == 2).await;
        assert!(!flush.is_finished());
        // Only the older one.
        cluster.release_chunk(0);
        flush.await.unwrap().unwrap();
        assert!(!after.is_finished());
        cluster.release();
        before.await.unwrap().unwrap();
        after.await.unwrap().unwrap();
        assert_eq!(volume.metrics().snapshot().flushes, 1);
    });
}

#[test]
fn an_abandoned_write_never_lands_after_a_newer_one() {
    block_on(async {
        let (cluster, control) = plain(1);
        let volume = control.open_limited(Duration::from_millis(50)).await;
        read(&volume, 0, 4096).await;
        cluster.plan(|_| Fault::Hold);
        let outcome = volume.write(at(0), payload(1)).await;
        assert!(matches!(outcome, Err(ClientError::TimedOut(_))));
        cluster.plan(|_| Fault::None);
        volume.write(at(0), payload(2)).await.unwrap();
        assert_eq!(cluster.held(), 1);
        cluster.release();
        assert_eq!(read(&volume, 0, 4096).await, pattern(2, 4096));
        assert!(cluster.effects().values().all(|count| *count == 1));
        assert_eq!(cluster.effects().len(), 1, "the abandoned one was refused");
    });
}

#[test]
fn a_newer_write_waits_until_the_watermark_covers_an_abandoned_one() {
    block_on(async {
        let (cluster, control) = plain(1);
        let volume = control.open().await;
        read(&volume, 0, 4096).await;
        cluster.plan(|_| Fault::Hold);
        let start = |offset, seed| {
            let volume = volume.clone();
            spawn_scoped(async move { volume.write(at(offset), payload(seed)).await })
        };
        let oldest = start(8192, 1);
        until("held", || cluster.held() == 1).await;
        let abandoned = start(0, 2);
        until("held", || cluster.held() == 2).await;
        drop(abandoned);
        cluster.plan(|_| Fault::None);
        let newer = start(0, 3);
        sleep(Duration::from_millis(20)).await;
        assert!(
            !newer.is_finished(),
            "a copy of the abandoned write could still overwrite it"
        );
        cluster.release_oldest();
        oldest.await.unwrap().unwrap();
        newer.await.unwrap().unwrap();
        cluster.release();
        assert_eq!(read(&volume, 0, 4096).await, pattern(3, 4096));
    });
}

#[test]
fn the_window_between_watermark_and_newest_is_bounded() {
    block_on(async {
        let (cluster, control) = plain(2);
        let volume = control.open().await;
        read(&volume, 0, 4096).await;
        read(&volume, CHUNK, 4096).await;
        cluster.plan(|header| match header.key.chunk.get() {
            0 => Fault::Hold,
            _ => Fault::None,
        });
        let stuck = volume.clone();
        let stuck = spawn(async move { stuck.write(at(0), payload(1)).await });
        until("held", || cluster.held() == 1).await;
        let done = Rc::new(Cell::new(0));
        let lanes: Vec<_> = (0..16)
            .map(|lane| {
                let (volume, done) = (volume.clone(), Rc::clone(&done));
                spawn(async move {
                    for _ in 0..SESSION_WINDOW_MAX / 16 + 1 {
                        volume
                            .write(at(CHUNK + lane * 4096), payload(lane))
                            .await
                            .unwrap();
                        done.set(done.get() + 1);
                    }
                })
            })
            .collect();
        // Retries of the stuck one are held as well: the lanes stop for the window alone.
        until("full window", || done.get() == SESSION_WINDOW_MAX - 1).await;
        sleep(Duration::from_millis(20)).await;
        assert_eq!(done.get(), SESSION_WINDOW_MAX - 1);
        cluster.release();
        stuck.await.unwrap().unwrap();
        for lane in lanes {
            lane.await.unwrap();
        }
        cluster.assert_exactly_once(usize::try_from(SESSION_WINDOW_MAX).unwrap() + 17);
    });
}

#[test]
fn slots_and_bytes_are_bounded() {
    block_on(async {
        for (size, limit) in [(4096, 1024), (MIB, 64)] {
            let (cluster, control) = plain(2);
            let volume = control.open().await;
            read(&volume, 0, 4096).await;
            read(&volume, CHUNK, 4096).await;
            cluster.plan(|_| Fault::Hold);
            let data = Payload::from(pattern(1, size));
            let writes: Vec<_> = (0..limit as u64 + 40)
                .map(|n| {
                    let (volume, data) = (volume.clone(), data.clone());
                    spawn(async move { volume.write(at(n * size % SIZE), data).await })
                })
                .collect();
            until("limit", || cluster.held() >= limit).await;
            sleep(Duration::from_millis(30)).await;
            assert_eq!(cluster.held(), limit);
            cluster.release();
            for write in writes {
                write.await.unwrap().unwrap();
            }
            cluster.assert_exactly_once(limit + 40);
            for node in 0..3 {
                cluster.stop(node).await;
            }
        }
    });
}

#[test]
fn a_moved_copyset_is_found_through_a_newer_map() {
    block_on(async {
        let (cluster, control) = plain(1);
        *control.told.borrow_mut() = Some(vec![0]);
        cluster.group(1, |group| {
            group.hosts = vec![1, 2];
            group.leader = Some(2);
        });
        let volume = control.open().await;
        volume.write(at(0), payload(1)).await.unwrap();
        assert_eq!(read(&volume, 0, 4096).await, pattern(1, 4096));
        assert!(volume.metrics().snapshot().refreshes >= 1);
    });
}

#[test]
fn a_control_plane_that_is_down_does_not_disturb() {
    block_on(async {
        let (cluster, control) = plain(1);
        let volume = control.open().await;
        control.down.set(true);
        cluster.plan(|header| match header.sequence.get() {
            3 => Fault::Answer(Status::NoCopyset),
            _ => Fault::None,
        });
        let waiting = volume.clone();
        let moved = spawn(async move {
            for n in 0..2 {
                waiting.write(at(n * 4096), payload(n)).await.unwrap();
            }
            waiting.write(at(0), payload(9)).await
        });
        until("failed refresh", || {
            volume.metrics().snapshot().refresh_failures > 0
        })
        .await;
        for n in 0..20 {
            cluster.lead(Some(usize::try_from(n % 3).unwrap()));
            volume.write(at(MIB + n * 4096), payload(n)).await.unwrap();
        }
        cluster.plan(|_| Fault::None);
        moved.await.unwrap().unwrap();
        cluster.assert_exactly_once(23);
    });
}

#[test]
fn growth_is_told() {
    block_on(async {
        let (_cluster, control) = plain(1);
        let volume = control.open().await;
        let mut resized = volume.resized();
        control.size.set(2 * SIZE);
        timeout(Duration::from_secs(60), resized.changed())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(volume.size(), len(2 * SIZE));
        volume.write(at(2 * SIZE - 4096), payload(1)).await.unwrap();
    });
}

#[test]
fn closing_waits_and_detaches() {
    block_on(async {
        let (cluster, control) = plain(1);
        let volume = control.open().await;
        read(&volume, 0, 4096).await;
        cluster.plan(|_| Fault::Hold);
        let writing = volume.clone();
        let write = spawn(async move { writing.write(at(0), payload(1)).await });
        until("held", || cluster.held() == 1).await;
        let closing = volume.clone();
        let close = spawn(async move { closing.close().await });
        sleep(Duration::from_millis(5)).await;
        assert!(!close.is_finished());
        let late = volume.write(at(0), payload(2)).await;
        assert!(matches!(late, Err(ClientError::Closed)));
        cluster.release();
        write.await.unwrap().unwrap();
        close.await.unwrap().unwrap();
        assert_eq!(control.detached.get(), 1);
        assert!(matches!(volume.close().await, Err(ClientError::Closed)));
    });
}

#[test]
fn a_stuck_request_is_reported_and_sent_again_with_its_number() {
    block_on(async {
        let (cluster, control) = plain(1);
        let volume = control.open().await;
        read(&volume, 0, 4096).await;
        cluster.plan(|_| Fault::Hold);
        let writing = volume.clone();
        let write = spawn(async move { writing.write(at(0), payload(1)).await });
        until("report", || volume.metrics().snapshot().slow_reports > 0).await;
        until("second try", || cluster.held() > 1).await;
        cluster.release();
        write.await.unwrap().unwrap();
        cluster.assert_exactly_once(1);
        let metrics = volume.metrics().snapshot();
        assert_eq!(metrics.slow_reports, 1);
        assert!(metrics.retries >= 1 && metrics.parts >= 2);
    });
}

#[test]
fn chaos_leaves_every_block_as_last_acknowledged() {
    block_on(async {
        for seed in 1..=3 {
            chaos(seed).await;
        }
    });
}

/// Eight writers on blocks of their own, every fault at once, leaders that wander.
async fn chaos(seed: u64) {
    const LANES: u64 = 8;
    const WRITES: u64 = 25;
    let (cluster, control) = plain(3);
    let volume = control.open().await;
    cluster.set_hints(seed.is_multiple_of(2));
    let mut state = seed;
    cluster.plan(move |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        match state >> 33 & 63 {
            0 => Fault::LoseReply,
            1 => Fault::LoseRequest,
            2 => Fault::Unknown,
            3 => Fault::Answer(Status::Retry),
            4 => Fault::Answer(Status::NotLeader),
            5..8 => Fault::Delay(Duration::from_millis(2)),
            _ => Fault::None,
        }
    });
    let wandering = cluster.clone();
    let wander = spawn_scoped(async move {
        for turn in 0.. {
            wandering.lead((turn % 4 != 3).then_some(turn % 4));
            sleep(Duration::from_millis(15)).await;
        }
    });
    let lanes: Vec<_> = (0..LANES)
        .map(|lane| {
            let volume = volume.clone();
            spawn(async move {
                for n in 0..WRITES {
                    let (offset, mark) = ((lane * 5 + n % 3) * 300 * 4096, lane * 1000 + n);
                    volume.write(at(offset), payload(mark)).await.unwrap();
                    assert_eq!(read(&volume, offset, 4096).await, pattern(mark, 4096));
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await.unwrap();
    }
    drop(wander);
    cluster.assert_exactly_once(usize::try_from(LANES * WRITES).unwrap());
    for node in 0..3 {
        cluster.stop(node).await;
    }
}
