//! Append streams.

use crate::support::{bytes, client, echo, echoing, frame, handler, serve, server};
use ogee_proto::wire::FrameKind;
use ogee_runtime::spawn;
use ogee_transport::{Caller, Endpoint, Frame, Hello, Role, TransportError};

fn member() -> Hello {
    Hello::new(Role::Chunkserver, 2, "member")
}

fn append(sequence: u64, len: usize) -> Frame {
    frame(FrameKind::AppendEntries, sequence, bytes(len))
}

pub async fn replies_come_back_in_order(endpoint: Endpoint) {
    const FRAMES: u64 = 500;
    const WINDOW: usize = 500;
    // Fewer credits than frames: streams take none.
    let service = serve(&endpoint, server().with_credits(2), echoing());
    let caller = Caller::new(service.endpoint().clone(), member());
    let (first, mut first_replies) = caller.open_stream(WINDOW).await.unwrap();
    let (second, mut second_replies) = caller.open_stream(WINDOW).await.unwrap();
    assert_ne!(first.id(), second.id());
    let sending = spawn(async move {
        for sequence in 0..FRAMES {
            first.send(append(sequence, 5000)).await.unwrap();
            second.send(append(sequence + 1000, 0)).await.unwrap();
        }
        (first, second)
    });
    for sequence in 0..FRAMES {
        let reply = first_replies.recv().await.unwrap();
        assert_eq!(reply.header.sequence.get(), sequence);
        let reply = second_replies.recv().await.unwrap();
        assert_eq!(reply.header.sequence.get(), sequence + 1000);
    }
    assert!(first_replies.try_recv().is_none());
    drop(sending.await.unwrap());
    // A call works beside them.
    caller.call(append(7, 0)).await.unwrap();
}

pub async fn a_broken_connection_ends_the_stream(endpoint: Endpoint) {
    let service = serve(&endpoint, server(), echoing());
    let endpoint = service.endpoint().clone();
    let caller = Caller::new(endpoint.clone(), member());
    let (sender, mut replies) = caller.open_stream(8).await.unwrap();
    sender.send(append(1, 10)).await.unwrap();
    assert_eq!(replies.recv().await.unwrap().header.sequence.get(), 1);
    service.close().await;
    assert!(replies.recv().await.is_none());
    assert_eq!(replies.cause(), Some(TransportError::PeerClosed));
    let _service = serve(&endpoint, server(), echoing());
    while caller.open_stream(8).await.is_err() {}
    assert!(
        sender.try_send(append(2, 10)).is_err(),
        "a stream never moves to a new connection"
    );
    let (sender, mut replies) = caller.open_stream(8).await.unwrap();
    sender.send(append(3, 10)).await.unwrap();
    assert_eq!(replies.recv().await.unwrap().header.sequence.get(), 3);
}

pub async fn more_replies_than_the_window_end_the_stream(endpoint: Endpoint) {
    let babbling = handler(|peer, frame| {
        for _ in 0..3 {
            drop(peer.reply(echo(frame.clone())));
        }
    });
    let service = serve(&endpoint, server(), babbling);
    let caller = Caller::new(service.endpoint().clone(), member());
    let (sender, mut replies) = caller.open_stream(2).await.unwrap();
    sender.send(append(1, 10)).await.unwrap();
    let mut count = 0;
    while replies.recv().await.is_some() {
        count += 1;
    }
    assert!(count <= 3);
    assert_eq!(replies.cause(), None, "the connection lives");
}

pub async fn a_client_may_not_stream(endpoint: Endpoint) {
    let service = serve(&endpoint, server(), echoing());
    let caller = Caller::new(service.endpoint().clone(), client());
    let (sender, mut replies) = caller.open_stream(8).await.unwrap();
    sender.send(append(1, 10)).await.unwrap();
    let peer = service.peers().pop().unwrap();
    let kind = FrameKind::AppendEntries;
    assert_eq!(peer.closed().await, TransportError::StreamRefused { kind });
    while replies.recv().await.is_some() {}
}
