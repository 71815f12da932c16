//! Sub-block writes from several connections at once against a model.
//!
//! Every byte belongs to one writer, in stripes much smaller than a block, so almost every block
//! is modified by all of them at the same time. A lost update shows as an old byte.

use crate::client::{Client, WRITE};
use crate::served::Local;
use futures_util::future::join_all;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::executor::block_on;
use ogee_runtime::random_u64;
use std::path::Path;
use std::time::Duration;

const SIZE: u64 = 96 << 10;
const WRITERS: u64 = 5;
/// No divisor of a block.
const STRIPE: u64 = 173;
const WRITES: usize = 400;
const WINDOW: usize = 24;

/// Writes random parts of the stripes of `writer` and returns what it left there.
async fn write_stripes(path: &Path, writer: u64) -> Vec<(usize, Vec<u8>)> {
    let mut client = Client::structured(path).await;
    let stripes: Vec<u64> = (0..SIZE / STRIPE)
        .filter(|s| s % WRITERS == writer)
        .collect();
    let mut left: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut busy: Vec<(u64, u64)> = Vec::new();
    for _ in 0..WRITES {
        if busy.len() == WINDOW {
            let answer = client.answer().await;
            assert_eq!(answer.errno, 0);
            busy.retain(|(cookie, _)| *cookie != answer.cookie);
        }
        // Two writes of one stripe at once would be the client's own race.
        let stripe = loop {
            let stripe = stripes[pick(stripes.len() as u64)];
            if busy.iter().all(|(_, other)| *other != stripe) {
                break stripe;
            }
        };
        let start = random_u64() % STRIPE;
        let len = 1 + random_u64() % (STRIPE - start);
        let at = stripe * STRIPE + start;
        let data: Vec<u8> = (0..len).map(|_| random_u64().to_le_bytes()[0]).collect();
        let count = u32::try_from(len).expect("short");
        let cookie = client.send(WRITE, 0, at, count, &data).await;
        busy.push((cookie, stripe));
        left.push((usize::try_from(at).expect("small"), data));
    }
    for _ in 0..busy.len() {
        assert_eq!(client.answer().await.errno, 0);
    }
    left
}

fn pick(count: u64) -> usize {
    usize::try_from(random_u64() % count).expect("small")
}

#[test]
fn no_update_of_a_shared_block_is_lost() {
    block_on(async {
        let local = Local::new(SIZE).await;
        local.disk.set_delay(Duration::from_micros(400));
        let writers = (0..WRITERS).map(|writer| write_stripes(&local.path, writer));
        let mut model = vec![0; ByteLen::new(SIZE).as_usize()];
        for (at, data) in join_all(writers).await.into_iter().flatten() {
            model[at..at + data.len()].copy_from_slice(&data);
        }
        let image = local.disk.image(ByteOffset::ZERO, ByteLen::new(SIZE));
        let wrong = image
            .iter()
            .zip(&model)
            .position(|(found, due)| found != due);
        assert_eq!(wrong, None, "first wrong byte");
        assert!(
            local.disk.stats().inflight_max > WRITERS,
            "they did run at once"
        );
    });
}

/// A whole-block write and a write of a part of it at once leave one of two states, never one in
/// which the whole block is lost outside of the part.
#[test]
fn a_whole_block_beside_a_part_of_it_is_not_lost() {
    block_on(async {
        let local = Local::new(SIZE).await;
        local.disk.set_delay(Duration::from_micros(300));
        let mut whole = Client::simple(&local.path).await;
        let mut part = Client::simple(&local.path).await;
        for round in 0..150_u8 {
            let (old, new) = (round.wrapping_mul(2), round.wrapping_mul(2) + 1);
            futures_util::future::join(
                whole.write(4096, &[old; 8192]),
                part.write(4096 + 100, &[new; 5000]),
            )
            .await;
            let image = local.disk.image(ByteOffset::new(4096), ByteLen::new(8192));
            assert_eq!(image[..100], [old; 100], "round {round}");
            assert_eq!(image[5100..], [old; 8192 - 5100], "round {round}");
            let inside = &image[100..5100];
            let is_one = |value: u8, block: &[u8]| block.iter().all(|byte| *byte == value);
            for block in [&inside[..3996], &inside[3996..]] {
                assert!(is_one(old, block) || is_one(new, block), "round {round}");
            }
        }
    });
}
