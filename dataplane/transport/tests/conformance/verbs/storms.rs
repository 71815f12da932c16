//! Many connections, and many ends of them.

use crate::support::{
    MS, bytes, client, echo, echoing, frame, handler, serve, server, standing, write,
};
use ogee_proto::wire::FrameKind;
use ogee_runtime::{now, sleep, spawn, timeout};
use ogee_transport::rdma::{RdmaFault, RdmaOptions, configure};
use ogee_transport::{Caller, Endpoint, Handler, TransportError, connect};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where a client that is to be killed connects to.
const ENDPOINT: &str = "OGEE_RDMA_ENDPOINT";

pub async fn connections_come_and_go(endpoint: Endpoint) {
    let mut service = serve(&endpoint, server(), echoing());
    let endpoint = service.endpoint().clone();
    for round in 0..6 {
        let storms: Vec<_> = (0..8)
            .map(|number| {
                let endpoint = endpoint.clone();
                spawn(async move {
                    let caller = Caller::new(endpoint, client());
                    let mut answered = 0;
                    for sequence in 0..6 {
                        // Some end in the middle of things.
                        let len = [100, 40 << 10, 200 << 10][usize::from(number % 3_u8)];
                        let call = caller.call(write(sequence, bytes(len)));
                        if let Ok(Ok(reply)) = timeout(300 * MS, call).await {
                            assert!(reply.payload[..] == bytes(len)[..]);
                            answered += 1;
                        }
                    }
                    answered
                })
            })
            .collect();
        if round % 2 == 1 {
            sleep(100 * MS).await;
            service.close().await;
            service = serve(&endpoint, server(), echoing());
        }
        for storm in storms {
            storm.await.unwrap();
        }
    }
    // Nothing was lost on the way: as many connect, and work, as at first.
    let callers: Vec<_> = (0..14)
        .map(|_| Caller::new(endpoint.clone(), client()))
        .collect();
    for caller in &callers {
        let end = now() + Duration::from_secs(20);
        let reply = loop {
            match caller.call(write(1, bytes(100 << 10))).await {
                Ok(reply) => break reply,
                Err(error) => assert!(now() < end, "{error:?}"),
            }
        };
        assert_eq!(reply.payload.len(), 100 << 10);
    }
}

pub async fn grants_are_never_more_than_the_queue_holds(endpoint: Endpoint) {
    let service = serve(&endpoint, server(), echoing());
    let mut connections = Vec::new();
    let error = loop {
        match connect(service.endpoint(), &client()).await {
            Ok(connection) => connections.push(connection.split()),
            Err(error) => break error,
        }
        assert!(connections.len() < 40, "there is an end");
    };
    // Both ends of each are of this port, which takes 64.
    assert_eq!(error, RdmaFault::Busy.into());
    assert_eq!(connections.len(), 32);
    // All of them at once use all that they were granted.
    for round in 0..3 {
        for (sender, _) in &connections {
            for sequence in 0..40 {
                sender
                    .try_send(write(round * 40 + sequence, bytes(5000)))
                    .unwrap();
            }
        }
        for (_, receiver) in &mut connections {
            for sequence in 0..40 {
                let reply = receiver.recv().await.unwrap();
                assert_eq!(reply.header.sequence.get(), round * 40 + sequence);
            }
        }
    }
    connections.pop();
    let again = async {
        while connect(service.endpoint(), &client()).await.is_err() {
            sleep(MS).await;
        }
    };
    timeout(Duration::from_secs(10), again)
        .await
        .expect("there is room again");
}

/// Reads are answered with as much as they ask for.
fn reading_and_echoing() -> Handler {
    handler(|peer, request| {
        let length = request.header.length as usize;
        let mut reply = echo(request);
        if length > 0 {
            reply.payload = bytes(length).into();
        }
        drop(peer.reply(reply));
    })
}

pub async fn a_killed_process_is_noticed_while_memory_moves(endpoint: Endpoint) {
    let service = serve(&endpoint, server(), reading_and_echoing());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "verbs::a_client_to_be_killed"])
        .env(ENDPOINT, service.endpoint().to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // A busy guest may cut it off for its silence; it comes back.
    let peer = loop {
        sleep(500 * MS).await;
        let peers = service.peers();
        if let Some(peer) = peers.into_iter().find(|peer| !peer.is_closed()) {
            break peer;
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    let began = now();
    let ended = timeout(Duration::from_secs(10), peer.closed()).await;
    let (error, elapsed) = (ended.expect("it ends"), now() - began);
    assert!(
        elapsed < Duration::from_secs(3),
        "{error} after {elapsed:?}"
    );
    assert_ne!(error, TransportError::Closed);
    let caller = Caller::new(service.endpoint().clone(), client());
    let reply = caller.call(write(1, bytes(200 << 10))).await.unwrap();
    assert_eq!(reply.payload.len(), 200 << 10);
}

/// Writes and reads much, for ever, where it is told to by the test above; else there is nothing to do.
pub async fn a_client_to_be_killed(_endpoint: Endpoint) {
    let Ok(endpoint) = std::env::var(ENDPOINT) else {
        return;
    };
    let caller = Caller::new(endpoint.parse().unwrap(), client());
    let sending: Vec<_> = (0..4)
        .map(|sequence| {
            let caller = caller.clone();
            spawn(async move {
                let mut request = write(sequence, bytes(1 << 20));
                if sequence % 2 == 1 {
                    request = frame(FrameKind::Read, sequence, Vec::new());
                    request.header.length = 1 << 20;
                }
                // Whatever becomes of a call: until it is killed, or the emulator is too slow for all of it.
                let end = now() + Duration::from_secs(60);
                while now() < end {
                    let _ = caller.call(request.clone()).await;
                }
            })
        })
        .collect();
    for sending in sending {
        sending.await.unwrap();
    }
}

pub async fn a_port_that_never_sleeps_lets_others_run(endpoint: Endpoint) {
    configure(RdmaOptions {
        busy_poll: true,
        receives: 256,
        larges: 16,
        ..RdmaOptions::default()
    });
    let service = serve(&endpoint, server(), echoing());
    let beside = serve(&"127.0.0.1:0".parse().unwrap(), server(), echoing());
    let callers = [&service, &beside].map(|to| Caller::new(to.endpoint().clone(), client()));
    for caller in &callers {
        standing(caller).await;
    }
    let began = now();
    for len in [0, 4096, 40 << 10, 1 << 20] {
        for caller in &callers {
            let reply = caller.call(write(1, bytes(len))).await.unwrap();
            assert!(reply.payload[..] == bytes(len)[..]);
        }
        sleep(MS).await;
    }
    // Generous: one emulated processor does all of it.
    assert!(now() - began < Duration::from_secs(10));
}
