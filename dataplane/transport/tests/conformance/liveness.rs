//! Who is alive, and who is not.

use crate::support::{
    brisk, bytes, caller_options, client, echoing, handler, mute, pair, serve_with, server,
    service_options, with_keepalive, write,
};
use ogee_runtime::{now, sleep};
use ogee_transport::{CallError, Caller, Endpoint, ServiceOptions, TransportError, metrics};

pub async fn an_idle_connection_stays(endpoint: Endpoint) {
    let service = serve_with(&endpoint, server(), service_options(brisk()), echoing());
    let options = caller_options(brisk());
    let caller = Caller::with_options(service.endpoint().clone(), client(), options);
    caller.call(write(1, bytes(1))).await.unwrap();
    let before = metrics();
    sleep(brisk().silent_after() * 3).await;
    caller.call(write(2, bytes(1))).await.unwrap();
    let after = metrics();
    assert_eq!(
        (after.reconnects, after.peers_silent),
        (before.reconnects, before.peers_silent)
    );
    assert!(after.frames_in - before.frames_in > 2, "they pinged");
}

pub async fn a_silent_peer_is_noticed(endpoint: Endpoint) {
    // A peer that accepts, then neither speaks nor answers.
    let service = serve_with(
        &endpoint,
        server(),
        service_options(mute()),
        handler(|_, _| {}),
    );
    let options = caller_options(brisk());
    let caller = Caller::with_options(service.endpoint().clone(), client(), options);
    let (before, start) = (metrics().peers_silent, now());
    let error = caller.call(write(1, bytes(1))).await.unwrap_err();
    let (elapsed, silence) = (now() - start, brisk().silent_after());
    let cause = TransportError::PeerSilent { silence };
    assert_eq!(error, CallError::Disconnected { sent: true, cause });
    assert!(
        elapsed >= silence && elapsed < 2 * silence,
        "noticed after {elapsed:?}"
    );
    assert_eq!(metrics().peers_silent - before, 1);
}

pub async fn a_peer_that_nobody_listens_to_is_not_silent(endpoint: Endpoint) {
    let (near, far) = pair(&endpoint, with_keepalive(brisk()), with_keepalive(mute())).await;
    let (sender, mut receiver) = near.split();
    sleep(brisk().silent_after() * 2).await;
    assert_eq!(sender.cause(), None);
    let silence = brisk().silent_after();
    assert_eq!(
        receiver.recv().await.unwrap_err(),
        TransportError::PeerSilent { silence }
    );
    drop(far);
}

pub async fn dropping_the_caller_closes_its_connection(endpoint: Endpoint) {
    let service = serve_with(&endpoint, server(), ServiceOptions::default(), echoing());
    let caller = Caller::new(service.endpoint().clone(), client());
    caller.call(write(1, bytes(1))).await.unwrap();
    let peer = service.peers().pop().unwrap();
    assert_eq!(peer.hello(), &client());
    drop(caller);
    assert_eq!(peer.closed().await, TransportError::PeerClosed);
    service.close().await;
}
