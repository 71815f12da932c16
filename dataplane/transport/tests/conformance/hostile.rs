//! Peers that break the rules, as raw bytes over a plain TCP stream.

use crate::support::{MS, brisk, bytes, client, server, with_keepalive, write};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::RequestId;
use ogee_proto::wire::{FrameHeader, FrameKind, WIRE_VERSION, WireError};
use ogee_runtime::executor::block_on;
use ogee_runtime::net::{ReadHalf, TcpListener, TcpStream, WriteHalf};
use ogee_runtime::{now, sleep, spawn};
use ogee_transport::{
    Connection, ConnectionOptions, Endpoint, Frame, Keepalive, Listener, TransportError,
    connect_with, metrics,
};

/// A frame as bytes, encoded apart from the crate under test.
fn wire(frame: &Frame) -> Vec<u8> {
    let body = [&frame.meta[..], &frame.payload[..]].concat();
    let mut header = frame.header;
    header.meta_len = u32::try_from(frame.meta.len()).unwrap();
    header.payload_len = u32::try_from(frame.payload.len()).unwrap();
    header.body_crc = crc32c(&body);
    [&header.encode()[..], &body].concat()
}

/// A Hello as documented: role, node, credits, name.
pub fn hello_frame() -> Frame {
    hello_with_credits(0)
}

/// Of one that takes so many requests.
pub fn hello_with_credits(credits: u32) -> Frame {
    let mut meta = vec![1];
    meta.extend(7_u64.to_le_bytes());
    meta.extend(credits.to_le_bytes());
    meta.extend([3, b'r', b'a', b'w']);
    let mut frame = Frame::new(FrameHeader::new(FrameKind::Hello, RequestId::new(0)));
    frame.meta = meta.into();
    frame
}

fn hello() -> Vec<u8> {
    wire(&hello_frame())
}

/// The same in another version, with a matching checksum.
fn hello_of_version(version: u16) -> Vec<u8> {
    let mut bytes = hello();
    bytes[4..6].copy_from_slice(&version.to_le_bytes());
    let crc = crc32c(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    bytes
}

struct Raw {
    read: ReadHalf,
    write: WriteHalf,
}

impl Raw {
    /// Reads the other side's Hello, as any peer would: closing over unread bytes is a reset.
    async fn read_hello(&mut self) {
        let mut header = [0; 128];
        self.read.read_exact(&mut header).await.unwrap();
        let header = FrameHeader::decode(&header).unwrap();
        assert_eq!(header.kind, FrameKind::Hello);
        let mut meta = vec![0; header.body_len()];
        self.read.read_exact(&mut meta).await.unwrap();
    }

    /// Reads until the other side ends the connection.
    async fn wait_end(&mut self) {
        let mut waste = vec![0; 4096];
        while let Ok(1..) = self.read.read(&mut waste).await {}
    }
}

/// Connects as a raw peer and sends `first`; the other side shakes hands.
async fn accept(
    first: &[u8],
    options: ConnectionOptions,
) -> (Raw, Result<Connection, TransportError>) {
    let mut listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let Endpoint::Tcp(address) = listener.endpoint().clone() else {
        panic!("bound to TCP")
    };
    let accepted = spawn(async move {
        let incoming = listener.accept().await.unwrap();
        incoming.handshake(&server(), options).await
    });
    let (read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    write.write_all(first).await.unwrap();
    (Raw { read, write }, accepted.await.unwrap())
}

/// What a connection dies of when its peer sends `bytes` after the handshake.
async fn after_handshake(bytes: &[u8]) -> TransportError {
    let (mut raw, connection) = accept(&hello(), ConnectionOptions::default()).await;
    let (_, mut receiver) = connection.unwrap().split();
    let bytes = bytes.to_vec();
    let sending = spawn(async move {
        // The other side may hang up in the middle.
        let _ = raw.write.write_all(&bytes).await;
        raw
    });
    let error = receiver.recv().await.unwrap_err();
    drop(receiver);
    sending.await.unwrap().wait_end().await;
    error
}

#[test]
fn another_version_is_refused_by_the_accepting_side() {
    block_on(async {
        let (mut raw, outcome) = accept(&hello_of_version(9), ConnectionOptions::default()).await;
        let Err(error) = outcome else {
            panic!("accepted")
        };
        assert_eq!(
            error,
            WireError::Version {
                peer: 9,
                ours: WIRE_VERSION
            }
            .into()
        );
        let TransportError::Wire(error) = error else {
            panic!("{error}")
        };
        let text = error.to_string();
        assert!(text.contains("version 9") && text.contains(&format!("speaks {WIRE_VERSION}")));
        // It has said its own version, so that the peer can name both too.
        raw.read_hello().await;
        raw.wait_end().await;
    });
}

#[test]
fn another_version_is_refused_by_the_connecting_side() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
        let raw = spawn(async move {
            let (read, mut write) = listener.accept().await.unwrap().0.into_split();
            write
                .write_all(&hello_of_version(WIRE_VERSION - 1))
                .await
                .unwrap();
            Raw { read, write }.wait_end().await;
        });
        let outcome = connect_with(&endpoint, &client(), ConnectionOptions::default()).await;
        let Err(error) = outcome else {
            panic!("connected")
        };
        assert_eq!(
            error,
            WireError::Version {
                peer: WIRE_VERSION - 1,
                ours: WIRE_VERSION
            }
            .into()
        );
        raw.await.unwrap();
    });
}

#[test]
fn nothing_is_parsed_before_the_hello() {
    block_on(async {
        let (_raw, outcome) =
            accept(&wire(&write(1, bytes(9))), ConnectionOptions::default()).await;
        let Err(error) = outcome else {
            panic!("accepted")
        };
        assert_eq!(
            error,
            TransportError::UnexpectedFrame {
                kind: FrameKind::Write
            }
        );

        let mut long = Frame::new(FrameHeader::new(FrameKind::Hello, RequestId::new(0)));
        long.meta = bytes(5000).into();
        let (_raw, outcome) = accept(&wire(&long), ConnectionOptions::default()).await;
        let Err(TransportError::Wire(WireError::Length {
            field: "hello",
            value: 5000,
            ..
        })) = outcome
        else {
            panic!("a long Hello was read");
        };

        let (_raw, outcome) = accept(&[b'G'; 200], ConnectionOptions::default()).await;
        assert!(matches!(
            outcome,
            Err(TransportError::Wire(WireError::Magic(_)))
        ));
    });
}

#[test]
fn a_peer_that_never_says_hello_is_dropped() {
    block_on(async {
        let limit = 50 * MS;
        let options = ConnectionOptions {
            handshake_timeout: limit,
            ..Default::default()
        };
        let (mut raw, outcome) = accept(&hello()[..100], options).await;
        let Err(error) = outcome else {
            panic!("accepted")
        };
        assert_eq!(error, TransportError::HandshakeTimeout { limit });
        raw.wait_end().await;
    });
}

#[test]
fn a_second_hello_ends_the_connection() {
    block_on(async {
        let error = after_handshake(&hello()).await;
        assert_eq!(
            error,
            TransportError::UnexpectedFrame {
                kind: FrameKind::Hello
            }
        );
    });
}

#[test]
fn every_flipped_header_byte_ends_the_connection() {
    block_on(async {
        let before = metrics().crc_errors;
        let good = wire(&write(1, bytes(100)));
        for at in (0..128).step_by(5) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let error = after_handshake(&bad).await;
            assert!(
                matches!(error, TransportError::Wire(_)),
                "byte {at}: {error}"
            );
        }
        assert!(metrics().crc_errors > before);
    });
}

#[test]
fn a_flipped_body_byte_ends_the_connection() {
    block_on(async {
        for len in [1, 5000, 64 << 10, 1 << 20] {
            let before = metrics().crc_errors;
            let mut bad = wire(&write(1, bytes(len)));
            *bad.last_mut().unwrap() ^= 1;
            let error = after_handshake(&bad).await;
            assert!(
                matches!(error, TransportError::Wire(WireError::BodyCrc { .. })),
                "{error}"
            );
            assert_eq!(metrics().crc_errors - before, 1);
        }
    });
}

#[test]
fn a_frame_cut_short_is_told_from_an_orderly_end() {
    block_on(async {
        let good = wire(&write(1, bytes(100 << 10)));
        for len in [1, 127, 128, 200, 90 << 10] {
            let (mut raw, connection) = accept(&hello(), ConnectionOptions::default()).await;
            let (_, mut receiver) = connection.unwrap().split();
            raw.read_hello().await;
            raw.write.write_all(&good[..len]).await.unwrap();
            drop(raw);
            assert_eq!(
                receiver.recv().await.unwrap_err(),
                TransportError::CutShort,
                "at {len}"
            );
        }
    });
}

#[test]
fn a_ping_that_asks_is_answered() {
    block_on(async {
        let (mut raw, connection) = accept(&hello(), ConnectionOptions::default()).await;
        let (_, mut receiver) = connection.unwrap().split();
        raw.read_hello().await;
        let ping = Frame::new(FrameHeader::new(FrameKind::Ping, RequestId::new(77)));
        raw.write.write_all(&wire(&ping)).await.unwrap();
        let receiving = spawn(async move { receiver.recv().await });
        let mut header = [0; 128];
        raw.read.read_exact(&mut header).await.unwrap();
        let pong = FrameHeader::decode(&header).unwrap();
        assert_eq!((pong.kind, pong.request_id.get()), (FrameKind::Pong, 77));
        drop((raw.read, raw.write));
        assert_eq!(
            receiving.await.unwrap().unwrap_err(),
            TransportError::PeerClosed
        );
    });
}

#[test]
fn a_frame_in_progress_counts_as_heard() {
    block_on(async {
        let (mut raw, connection) = accept(&hello(), with_keepalive(brisk())).await;
        let (_, mut receiver) = connection.unwrap().split();
        let slow = wire(&write(5, bytes(20)));
        let start = now();
        let dribble = spawn(async move {
            for piece in slow.chunks(8) {
                raw.write.write_all(piece).await.unwrap();
                sleep(brisk().ping_after() / 2).await;
            }
            raw
        });
        assert_eq!(receiver.recv().await.unwrap().header.sequence.get(), 5);
        assert!(
            now() - start > brisk().silent_after(),
            "it took longer than silence may"
        );
        drop(dribble.await.unwrap());
    });
}

#[test]
fn a_stopped_peer_is_noticed_by_default_after_two_to_four_seconds() {
    block_on(async {
        let (_raw, connection) = accept(&hello(), ConnectionOptions::default()).await;
        let (sender, mut receiver) = connection.unwrap().split();
        // It does not read either: the output is stuck too.
        let stuffing =
            spawn(async move { while sender.send(write(1, bytes(1 << 20))).await.is_ok() {} });
        let start = now();
        let silence = Keepalive::default().silent_after();
        assert_eq!(
            receiver.recv().await.unwrap_err(),
            TransportError::PeerSilent { silence }
        );
        let elapsed = now() - start;
        assert!(
            elapsed >= silence && elapsed < 2 * silence,
            "noticed after {elapsed:?}"
        );
        stuffing.await.unwrap();
    });
}
