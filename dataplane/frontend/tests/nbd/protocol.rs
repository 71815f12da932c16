//! What the specification asks, request by request.

use crate::client::{
    BLOCK_STATUS, CACHE, CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS, Client, DF, DISC, FLUSH, FUA,
    NO_HOLE, OPT_LIST, READ, REP_ACK, REP_ERR_TOO_BIG, REQ_ONE, TRIM, WRITE, WRITE_ZEROES, be32,
    be64, request,
};
use crate::served::Local;
use ogee_frontend::nbd::{Address, Server};
use ogee_frontend::{CONNECTIONS_MAX, MemoryDisk, MemoryFault, REQUEST_BYTES_MAX, REQUESTS_MAX};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::executor::block_on;
use ogee_runtime::net::TcpStream;
use ogee_runtime::{sleep, spawn_scoped, timeout};
use std::time::Duration;

const MIB: u64 = 1 << 20;

#[test]
fn data_come_back_simple_and_structured() {
    block_on(async {
        let local = Local::new(64 * MIB).await;
        let mut simple = Client::simple(&local.path).await;
        let mut structured = Client::structured(&local.path).await;
        for (at, len) in [
            (0, 4096),
            (5, 1),
            (4095, 2),
            (100_000, 300_001),
            (MIB, 2 << 20),
        ] {
            let data: Vec<u8> = (0..=250).cycle().take(len).collect();
            assert_eq!(simple.write(at, &data).await, 0);
            assert_eq!(structured.read(at, len).await, data, "{len} at {at}");
            assert_eq!(simple.read(at, len).await, data, "{len} at {at}");
        }
        assert!(simple.read(7, 0).await.is_empty());
        assert!(structured.read(7, 0).await.is_empty());
        assert_eq!(simple.write(7, &[]).await, 0);
    });
}

#[test]
fn a_write_acknowledged_on_one_connection_is_seen_on_all() {
    block_on(async {
        let local = Local::new(MIB).await;
        local.disk.set_delay(Duration::from_micros(500));
        let mut one = Client::simple(&local.path).await;
        let mut other = Client::structured(&local.path).await;
        for round in 1..50_u8 {
            assert_eq!(one.write(1000, &[round; 5000]).await, 0);
            assert_eq!(other.read(1000, 5000).await, [round; 5000]);
            std::mem::swap(&mut one, &mut other);
        }
    });
}

#[test]
fn fua_is_answered_after_a_flush() {
    block_on(async {
        let local = Local::new(MIB).await;
        let mut client = Client::simple(&local.path).await;
        client.write(0, &[1; 4096]).await;
        assert_eq!(local.disk.stats().flushes, 0);
        for (kind, data) in [(WRITE, &[2; 4096][..]), (WRITE_ZEROES, &[]), (TRIM, &[])] {
            let before = local.disk.stats().flushes;
            assert_eq!(client.call(kind, FUA, 0, 4096, data).await.errno, 0);
            assert_eq!(local.disk.stats().flushes, before + 1);
        }
        assert_eq!(client.call(FLUSH, 0, 0, 0, &[]).await.errno, 0);
        assert_eq!(local.disk.stats().flushes, 4);
        assert_eq!(client.call(CACHE, 0, 0, 4096, &[]).await.errno, 0);
    });
}

#[test]
fn zeros_are_sent_as_holes_unless_fragments_are_refused() {
    block_on(async {
        let local = Local::new(MIB).await;
        let mut client = Client::structured(&local.path).await;
        client.write(256 << 10, &[7; 64 << 10]).await;
        let len = 1 << 20;
        let answer = client.call(READ, 0, 0, len, &[]).await;
        let kinds: Vec<_> = answer.chunks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [CHUNK_HOLE, CHUNK_DATA, CHUNK_HOLE]);
        let mut expected = vec![0; 1 << 20];
        expected[256 << 10..320 << 10].fill(7);
        assert_eq!(answer.assembled(0, 1 << 20), expected);
        let answer = client.call(READ, DF, 0, len, &[]).await;
        assert_eq!(answer.chunks.len(), 1);
        assert_eq!(answer.chunks[0].0, CHUNK_DATA);
        assert_eq!(answer.assembled(0, 1 << 20), expected);
    });
}

#[test]
fn trim_and_zeroes_and_what_block_status_makes_of_them() {
    block_on(async {
        let local = Local::new(MIB).await;
        let mut client = Client::structured(&local.path).await;
        client.write(0, &[1; 64 << 10]).await;
        assert_eq!(client.call(TRIM, 0, 4000, 8400, &[]).await.errno, 0);
        assert_eq!(
            client
                .call(WRITE_ZEROES, NO_HOLE, 16 << 10, 4096, &[])
                .await
                .errno,
            0
        );
        assert_eq!(
            client
                .call(WRITE_ZEROES, 0, (32 << 10) - 1, 4098, &[])
                .await
                .errno,
            0
        );
        let mut expected = vec![1; 64 << 10];
        expected[4096..12288].fill(0);
        expected[16 << 10..20 << 10].fill(0);
        expected[(32 << 10) - 1..(36 << 10) + 1].fill(0);
        assert_eq!(client.read(0, 64 << 10).await, expected);

        let runs = |payload: &[u8]| -> Vec<(u32, u32)> {
            assert_eq!(be32(payload), 1, "the context's id");
            let runs = payload[4..].chunks_exact(8);
            runs.map(|run| (be32(run), be32(&run[4..]))).collect()
        };
        let answer = client.call(BLOCK_STATUS, 0, 0, 1 << 20, &[]).await;
        assert_eq!(answer.chunks.len(), 1);
        assert_eq!(answer.chunks[0].0, CHUNK_STATUS);
        let k = 1 << 10;
        let found = runs(&answer.chunks[0].1);
        assert_eq!(
            found,
            [
                (4 * k, 0),
                (8 * k, 3),
                (20 * k, 0),
                (4 * k, 3),
                (28 * k, 0),
                (960 * k, 3)
            ]
        );
        let answer = client.call(BLOCK_STATUS, REQ_ONE, 5000, 100_000, &[]).await;
        assert_eq!(runs(&answer.chunks[0].1), [(12288 - 5000, 3)]);
    });
}

#[test]
fn bad_requests_are_answered_and_the_connection_lives() {
    block_on(async {
        let local = Local::new(MIB).await;
        for is_structured in [false, true] {
            let mut client = match is_structured {
                true => Client::structured(&local.path).await,
                false => Client::simple(&local.path).await,
            };
            let long = vec![1; (32 << 20) + 1];
            let len = u32::try_from(long.len()).expect("below 4 GiB");
            let none: &[u8] = &[];
            for (kind, flags, at, len, data, errno) in [
                (99, 0, 0, 0, none, 22),
                (READ, 1 << 9, 0, 512, none, 22),
                (READ, 0, MIB - 1, 2, none, 22),
                (READ, 0, u64::MAX, u32::MAX, none, 22),
                (WRITE, 0, MIB - 1, 2, &[1, 2], 28),
                (WRITE, DF, 0, 3, &[1, 2, 3], 22),
                (WRITE, 0, 0, len, &long, 28),
                (WRITE_ZEROES, 0, MIB, 1, none, 28),
                (BLOCK_STATUS, 0, 0, 0, none, 22),
            ] {
                let answer = client.call(kind, flags, at, len, data).await;
                assert_eq!(answer.errno, errno, "command {kind} of {len} at {at}");
            }
            assert_eq!(client.write(MIB - 1, &[5]).await, 0);
            assert_eq!(client.read(MIB - 1, 1).await, [5]);
        }
    });
}

#[test]
fn a_failing_disk_has_its_errno_and_recovers() {
    block_on(async {
        let local = Local::new(MIB).await;
        let mut client = Client::structured(&local.path).await;
        local.disk.fail_writes(Some(MemoryFault::NoSpace));
        assert_eq!(client.write(0, &[1; 4096]).await, 28);
        local.disk.fail_writes(Some(MemoryFault::Medium));
        assert_eq!(client.call(FLUSH, 0, 0, 0, &[]).await.errno, 5);
        local.disk.fail_writes(None);
        local.disk.fail_reads(Some(MemoryFault::Medium));
        assert_eq!(client.call(READ, 0, 0, 4096, &[]).await.errno, 5);
        assert_eq!(client.write(1, &[1]).await, 5, "its block cannot be read");
        local.disk.fail_reads(None);
        assert_eq!(client.write(1, &[1]).await, 0);
        let seen = local.exports.metrics("disk").expect("the export is there");
        assert_eq!((seen.failures, seen.writes, seen.written_bytes), (4, 1, 1));
        assert_eq!((seen.connections, seen.merged_blocks), (1, 1));
        assert_eq!(client.read(0, 2).await, [0, 1]);
        let seen = local.exports.metrics("disk").expect("the export is there");
        assert_eq!((seen.reads, seen.read_bytes, seen.copied_bytes), (1, 2, 2));
        client.call(CACHE, 0, 0, 1, &[]).await;
        assert_eq!(
            local.exports.metrics("disk").map(|seen| seen.others),
            Some(1)
        );
    });
}

#[test]
fn a_read_only_export_refuses_writes() {
    block_on(async {
        let local = Local::of(MemoryDisk::read_only(ByteLen::new(MIB))).await;
        let mut client = Client::simple(&local.path).await;
        assert_eq!(client.write(0, &[1; 4096]).await, 1);
        assert_eq!(client.read(0, 4096).await, [0; 4096]);
    });
}

#[test]
fn a_disconnect_answers_what_is_under_way_first() {
    block_on(async {
        let local = Local::new(MIB).await;
        local.disk.set_delay(Duration::from_millis(20));
        let mut client = Client::simple(&local.path).await;
        for index in 0..40 {
            client
                .send(WRITE, 0, index * 4096 + 1, 4096, &[1; 4096])
                .await;
        }
        client.send(DISC, 0, 0, 0, &[]).await;
        for _ in 0..40 {
            assert_eq!(client.answer().await.errno, 0);
        }
        assert!(client.rest().await.is_empty());
        assert_eq!(local.disk.stats().inflight, 0);
    });
}

#[test]
fn requests_under_way_are_bounded_by_count() {
    block_on(async {
        let local = Local::new(4 * MIB).await;
        local.disk.set_delay(Duration::from_millis(1));
        let mut client = Client::simple(&local.path).await;
        let count = 5 * REQUESTS_MAX;
        for index in 0..count as u64 {
            client.send(WRITE, 0, index * 4096, 4096, &[1; 4096]).await;
        }
        for _ in 0..count {
            assert_eq!(client.answer().await.errno, 0);
        }
        let most = usize::try_from(local.disk.stats().inflight_max).expect("few");
        assert!(most <= REQUESTS_MAX && most > 1, "{most}");
    });
}

#[test]
fn requests_under_way_are_bounded_by_bytes() {
    block_on(async {
        let local = Local::new(64 * MIB).await;
        local.disk.set_delay(Duration::from_millis(5));
        let mut client = Client::simple(&local.path).await;
        let len = REQUEST_BYTES_MAX / 4;
        let count = u32::try_from(len).expect("below 4 GiB");
        for index in 0..12 {
            client
                .send(READ, 0, index % 8 * len as u64, count, &[])
                .await;
        }
        for _ in 0..12 {
            assert_eq!(client.answer().await.data.len(), len);
        }
        let most = local.disk.stats().inflight_max;
        assert!((2..=4).contains(&most), "{most}");
    });
}

#[test]
fn large_reads_are_not_copied() {
    block_on(async {
        let local = Local::new(MIB).await;
        for mut client in [
            Client::simple(&local.path).await,
            Client::structured(&local.path).await,
        ] {
            client.write(0, &vec![1; 1 << 20]).await;
            client.read(0, 1 << 20).await;
        }
        let seen = local.exports.metrics("disk").expect("the export is there");
        assert_eq!((seen.read_bytes, seen.copied_bytes), (2 * MIB, 0));
    });
}

/// Its requests are carried out, and the server is rid of it though it keeps its end open.
#[test]
fn a_client_that_reads_no_more_is_let_go() {
    block_on(async {
        let local = Local::new(MIB).await;
        let mut client = Client::simple(&local.path).await;
        client.send(WRITE, 0, 0, 4096, &[1; 4096]).await;
        let (read, mut write) = (client.read, client.write);
        drop(read);
        // The socket as a whole closes only with both halves, so this is a half-closed client.
        write.shutdown().await.expect("a connection");
        let gone = async {
            while local.server.connections() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(60), gone)
            .await
            .expect("it is gone");
        let image = local.disk.image(ByteOffset::ZERO, ByteLen::new(4096));
        assert_eq!(image, [1; 4096]);
    });
}

/// Reads that the disk has seen once there are no new ones for half a second.
async fn settled(disk: &MemoryDisk) -> u64 {
    loop {
        let before = disk.stats().reads;
        sleep(Duration::from_millis(500)).await;
        if before > 0 && disk.stats().reads == before {
            return before;
        }
    }
}

/// Requests pile up with a client that sends and does not read: the server stops reading from it,
/// others go on, and it can catch up later.
#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    block_on(async {
        let local = Local::new(64 * MIB).await;
        let mut deaf = Client::simple(&local.path).await;
        for index in 0..200 {
            deaf.send(READ, 0, index % 32 * MIB, 1 << 20, &[]).await;
        }
        let held = settled(&local.disk).await;
        // The first MiB does not fit into the socket, so not one of them is off our hands.
        assert!(
            held * MIB <= REQUEST_BYTES_MAX as u64,
            "{held} reads of 1 MiB are held for it"
        );
        let mut other = Client::simple(&local.path).await;
        assert_eq!(other.read(0, 4096).await, [0; 4096]);
        for _ in 0..200 {
            assert_eq!(deaf.answer().await.data.len(), 1 << 20);
        }
    });
}

#[test]
fn stopping_answers_what_is_under_way() {
    block_on(async {
        let local = Local::new(MIB).await;
        let mut client = Client::simple(&local.path).await;
        let mut silent = Client::connect(&local.path).await.expect("a server");
        local.disk.set_delay(Duration::from_millis(50));
        for index in 0..20 {
            client.send(WRITE, 0, index * 4096, 4096, &[3; 4096]).await;
        }
        while local.disk.stats().writes < 20 {
            sleep(Duration::from_millis(1)).await;
        }
        let Local {
            server, path, disk, ..
        } = local;
        assert_eq!(server.connections(), 2);
        server.stop().await;
        assert!(!path.exists());
        for _ in 0..20 {
            assert_eq!(client.answer().await.errno, 0);
        }
        assert!(client.rest().await.is_empty());
        assert!(silent.rest().await.is_empty());
        let image = disk.image(ByteOffset::ZERO, ByteLen::new(20 * 4096));
        assert_eq!(image, vec![3; 20 * 4096]);
    });
}

#[test]
fn a_client_that_vanishes_leaves_its_writes_done() {
    block_on(async {
        let local = Local::new(MIB).await;
        local.disk.set_delay(Duration::from_millis(20));
        let mut client = Client::simple(&local.path).await;
        client.send(WRITE, 0, 0, 4096, &[9; 4096]).await;
        // The header of another one, and half of its data.
        let half = [request(WRITE, 0, 7, 8192, 4096), vec![9; 2048]].concat();
        client.write.write_all(&half).await.expect("a server");
        drop(client);
        while local.server.connections() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        let image = local.disk.image(ByteOffset::ZERO, ByteLen::new(12288));
        assert_eq!(image[..4096], [9; 4096]);
        assert_eq!(image[8192..], [0; 4096]);
    });
}

/// Its first replies find the socket closed while most of its requests are still under way.
#[test]
fn a_connection_ends_after_all_its_requests_have() {
    block_on(async {
        let local = Local::new(MIB).await;
        local.disk.set_delay(Duration::from_millis(100));
        let mut client = Client::simple(&local.path).await;
        for index in 0..100 {
            client.send(WRITE, 0, index * 4096, 4096, &[4; 4096]).await;
        }
        drop(client);
        while local.disk.stats().writes < 100 {
            sleep(Duration::from_millis(1)).await;
        }
        local.server.stop().await;
        assert_eq!(local.disk.stats().inflight, 0);
        let image = local.disk.image(ByteOffset::ZERO, ByteLen::new(100 * 4096));
        assert_eq!(image, vec![4; 100 * 4096]);
    });
}

#[test]
fn one_client_more_waits_until_another_leaves() {
    block_on(async {
        let local = Local::new(MIB).await;
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            clients.push(Client::simple(&local.path).await);
        }
        let path = local.path.clone();
        let mut late = spawn_scoped(async move { Client::simple(&path).await.read(0, 1).await });
        let early = timeout(Duration::from_millis(100), &mut late).await;
        assert!(early.is_err(), "served beyond the limit");
        clients.pop();
        assert_eq!(late.await, Ok(vec![0]));
    });
}

#[test]
fn an_option_that_is_too_long_is_skipped() {
    block_on(async {
        let local = Local::new(MIB).await;
        let mut client = Client::connect(&local.path).await.expect("a server");
        let replies = client.option(OPT_LIST, &vec![0; 1 << 20]).await;
        assert_eq!(replies[0].0, REP_ERR_TOO_BIG);
        let replies = client.option(OPT_LIST, &[]).await;
        assert_eq!(replies.last(), Some(&(REP_ACK, vec![])));
    });
}

#[test]
fn a_wrong_magic_ends_the_connection_only() {
    block_on(async {
        let local = Local::new(MIB).await;
        let mut other = Client::simple(&local.path).await;
        let mut client = Client::simple(&local.path).await;
        client.write.write_all(&[0; 28]).await.expect("a server");
        assert!(client.rest().await.is_empty());
        assert_eq!(other.read(0, 1).await, [0]);
    });
}

#[test]
fn tcp_serves_too() {
    block_on(async {
        let local = Local::new(MIB).await;
        let any = Address::Tcp("127.0.0.1:0".parse().expect("an address"));
        let server = Server::bind(any, local.exports.clone())
            .await
            .expect("a port");
        let Address::Tcp(address) = *server.address() else {
            panic!("not TCP");
        };
        assert_ne!(address.port(), 0);
        let (mut read, _write) = TcpStream::connect(address)
            .await
            .expect("a server")
            .into_split();
        let mut greeting = [0; 18];
        read.read_exact(&mut greeting).await.expect("a greeting");
        assert_eq!(be64(&greeting), 0x4e42_444d_4147_4943);
        server.stop().await;
    });
}
