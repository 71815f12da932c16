//! What a request and its answer cost over RDMA: 4 KiB one way, 64 bytes back, one after the other.
//!
//! ```text
//! rdma_cost serve ADDRESS:PORT          until it is killed
//! rdma_cost ask ADDRESS:PORT COUNT      prints the quickest, the typical and the slowest, in microseconds
//! ```
//! `ONLY=rdma_cost scripts/test lab` runs both in a guest whose time counts instructions, beside perftest. There is one
//! processor, so nobody waits by looking: as perftest with `-e`, each side sleeps until the device wakes it.

use ogee_proto::id::RequestId;
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::executor::block_on;
use ogee_runtime::{Payload, now, sleep};
use ogee_transport::rdma::{RdmaOptions, configure};
use ogee_transport::{Caller, Endpoint, Frame, Handler, Hello, Listener, Peer, Role, Service};
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

const ASKED: usize = 4096;
const ANSWERED: usize = 64;
/// Calls before the first that counts.
const WARM_UP: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: rdma_cost serve ADDRESS:PORT | ask ADDRESS:PORT COUNT";
    let mut arguments = std::env::args().skip(1);
    let (what, endpoint) = arguments.next().zip(arguments.next()).ok_or(usage)?;
    let endpoint: Endpoint = format!("rdma:{endpoint}").parse()?;
    configure(RdmaOptions {
        connections_max: 8,
        receives: 256,
        mediums: 16,
        larges: 4,
        spin: Duration::ZERO,
        ..RdmaOptions::default()
    });
    match what.as_str() {
        "serve" => block_on(serve(&endpoint)),
        "ask" => block_on(ask(endpoint, arguments.next().ok_or(usage)?.parse()?)),
        _ => Err(usage.into()),
    }
}

async fn serve(endpoint: &Endpoint) -> Result<(), Box<dyn Error>> {
    let answer = Payload::from(vec![7; ANSWERED]);
    let handler: Handler = Rc::new(move |peer: Peer, request: Frame| {
        let header = FrameHeader::reply(&request.header, Status::Ok);
        // The connection may have ended, and the caller sees that.
        drop(peer.reply(Frame::with_payload(header, answer.clone())));
    });
    let hello = Hello::new(Role::Chunkserver, 1, "server");
    let _service = Service::serve(Listener::bind(endpoint)?, hello, handler);
    println!("serving");
    loop {
        sleep(Duration::from_secs(3600)).await;
    }
}

async fn ask(endpoint: Endpoint, count: usize) -> Result<(), Box<dyn Error>> {
    let caller = Caller::new(endpoint, Hello::new(Role::Client, 7, "client"));
    let payload = Payload::from(vec![1; ASKED]);
    let mut taken = Vec::with_capacity(count);
    for at in 0..WARM_UP + count {
        let header = FrameHeader::new(FrameKind::Write, RequestId::new(at as u64));
        let began = now();
        let reply = caller
            .call(Frame::with_payload(header, payload.clone()))
            .await?;
        if at >= WARM_UP {
            taken.push(now() - began);
        }
        if reply.payload.len() != ANSWERED {
            return Err(format!("{} bytes came back", reply.payload.len()).into());
        }
    }
    taken.sort_unstable();
    let micros = |at: usize| taken.get(at).map_or(0.0, |it| it.as_secs_f64() * 1e6);
    println!(
        "{:.2} {:.2} {:.2}",
        micros(0),
        micros(count / 2),
        micros(count.saturating_sub(1))
    );
    Ok(())
}
