//! TCP and Unix streams: real sockets, or the simulator's.

use std::io::{ErrorKind, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};

use bytes::BytesMut;
use ogee_runtime::executor::block_on;
use ogee_runtime::net::{ReadHalf, TcpListener, TcpStream, UnixListener, UnixStream, WriteHalf};
use ogee_runtime::{JoinHandle, spawn};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// More than socket buffers hold, so that both directions must wait for each other.
const LOAD: usize = 8 << 20;

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|index| u8::try_from(index % 253).expect("below 253"))
        .collect()
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch directory")
}

/// Sends back what comes, to the end.
fn echo((mut reader, mut writer): (ReadHalf, WriteHalf)) -> JoinHandle<usize> {
    spawn(async move {
        let mut total = 0;
        let mut buffer = BytesMut::with_capacity(1 << 16);
        loop {
            buffer.clear();
            match reader.read_into(&mut buffer).await.expect("a read") {
                0 => return total,
                count => total += count,
            }
            writer.write_all(&buffer).await.expect("a write");
        }
    })
}

/// Sends `LOAD` bytes while reading them back.
async fn exercise((mut reader, mut writer): (ReadHalf, WriteHalf)) {
    let sender = spawn(async move {
        writer.write_all(&pattern(LOAD)).await.expect("a write");
        writer.shutdown().await.expect("a shutdown");
        writer
    });
    let mut received = BytesMut::new();
    while reader.read_into(&mut received).await.expect("a read") > 0 {}
    assert_eq!(received.len(), LOAD);
    assert!(received == pattern(LOAD), "bytes were changed or reordered");
    drop(sender.await);
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(ANY_PORT).expect("a port");
    let address = listener.local_addr().expect("an address");
    let ours = TcpStream::connect(address).await.expect("a connection");
    let (theirs, peer) = listener.accept().await.expect("a connection");
    assert_eq!(peer, ours.local_addr().expect("an address"));
    assert_eq!(ours.peer_addr().expect("an address"), address);
    (ours, theirs)
}

#[test]
fn tcp_echoes_more_than_the_buffers_hold() {
    block_on(async {
        let (ours, theirs) = tcp_pair().await;
        let echo = echo(theirs.into_split());
        exercise(ours.into_split()).await;
        assert_eq!(echo.await, Ok(LOAD));
    });
}

#[test]
fn unix_echoes_more_than_the_buffers_hold() {
    let directory = scratch();
    block_on(async {
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let ours = UnixStream::connect(&path).await.unwrap();
        let theirs = listener.accept().await.unwrap();
        #[cfg(not(ogee_sim))]
        assert_eq!(
            theirs.peer_cred().unwrap().pid.cast_unsigned(),
            std::process::id()
        );
        let echo = echo(theirs.into_split());
        exercise(ours.into_split()).await;
        assert_eq!(echo.await, Ok(LOAD));
    });
}

#[test]
fn an_accept_waits_for_a_connection() {
    block_on(async {
        let listener = TcpListener::bind(ANY_PORT).unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = spawn(async move { listener.accept().await.map(|(stream, _)| stream) });
        ogee_runtime::yield_now().await;
        let (_reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
        writer.write_all(b"hello").await.unwrap();
        let (mut reader, _writer) = accepted.await.unwrap().unwrap().into_split();
        let mut text = [0; 5];
        reader.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello");
    });
}

#[test]
fn vectored_writes_keep_order_and_skip_empty_slices() {
    block_on(async {
        let (ours, theirs) = tcp_pair().await;
        let (mut reader, _writer) = theirs.into_split();
        let (_reader, mut writer) = ours.into_split();
        let bytes = pattern(8000);
        let parts: Vec<Vec<u8>> = (0..3000_usize)
            .map(|part| bytes[part..part + part % 7 * 500].into())
            .collect();
        let expected = parts.concat();
        let sender = spawn(async move {
            let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            writer.write_vectored(&mut slices).await.unwrap();
        });
        let mut received = vec![0; expected.len()];
        reader.read_exact(&mut received).await.unwrap();
        assert!(received == expected);
        sender.await.unwrap();
    });
}

#[test]
fn dropping_the_writer_ends_the_stream_but_not_the_other_direction() {
    block_on(async {
        let (ours, theirs) = tcp_pair().await;
        let (mut our_reader, our_writer) = ours.into_split();
        let (mut their_reader, mut their_writer) = theirs.into_split();
        drop(our_writer);
        assert_eq!(their_reader.read(&mut [0; 8]).await.unwrap(), 0);
        their_writer.write_all(b"still").await.unwrap();
        drop((their_reader, their_writer));
        let mut rest = BytesMut::new();
        while our_reader.read_into(&mut rest).await.unwrap() > 0 {}
        assert_eq!(&rest[..], b"still");
        let error = our_reader.read_exact(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn a_reader_dropped_while_waiting_loses_nothing() {
    block_on(async {
        let (ours, theirs) = tcp_pair().await;
        let (mut reader, _writer) = theirs.into_split();
        let (_reader, mut writer) = ours.into_split();
        let mut buffer = BytesMut::new();
        let waited = ogee_runtime::timeout(
            std::time::Duration::from_millis(2),
            reader.read_into(&mut buffer),
        );
        assert!(waited.await.is_err());
        assert!(buffer.is_empty());
        writer.write_all(b"later").await.unwrap();
        let mut text = [0; 5];
        reader.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"later");
    });
}

#[test]
fn nobody_listening_is_an_error() {
    let directory = scratch();
    block_on(async {
        let address = TcpListener::bind(ANY_PORT).unwrap().local_addr().unwrap();
        let error = TcpStream::connect(address).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(
            UnixStream::connect(directory.path().join("none"))
                .await
                .is_err()
        );
    });
}

#[test]
fn listeners_do_not_share_a_port_silently() {
    block_on(async {
        let first = TcpListener::bind(ANY_PORT).unwrap();
        let error = TcpListener::bind(first.local_addr().unwrap())
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    });
}
