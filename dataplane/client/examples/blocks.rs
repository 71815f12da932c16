//! Reads and writes a volume: one request at a time, then many at once.
//!
//! ```text
//! OGEE_MDS=127.0.0.1:7000 cargo run --release -p ogee-client --example blocks -- VOLUME
//! ```
//! It overwrites the first 16 MiB. docs/client.md explains each step.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use ogee_client::{MdsConfig, MdsHandle, OpenOptions, Volume};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::Payload;
use ogee_runtime::executor::block_on;
use std::error::Error;

const PIECE: usize = 64 << 10;
const PIECES: u8 = 250;
const DEPTH: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).ok_or("usage: blocks VOLUME")?;
    let servers = std::env::var("OGEE_MDS")?;
    // A thread for the metadata servers; any number of volumes may share it.
    let addresses = servers.split(',').map(str::to_owned).collect();
    let mds = MdsHandle::start(MdsConfig::new(addresses))?;
    // Everything of a volume runs on the executor that opened it: this thread's.
    block_on(run(mds, &name))
}

async fn run(mds: MdsHandle, name: &str) -> Result<(), Box<dyn Error>> {
    let options = OpenOptions {
        host: "example".into(),
        ..OpenOptions::default()
    };
    let volume = Volume::open(mds, name, options).await?;
    println!("{name} has {}", volume.size());

    // One at a time: durable on a majority when it returns.
    let data = vec![b'a'; PIECE];
    volume.write(place(0), data.clone().into()).await?;
    let mut back = vec![0; PIECE];
    volume.read_into(place(0), &mut back).await?;
    check(back == data, "what was read is what was written")?;

    // Many at once: futures, of which DEPTH run at a time.
    let writes = stream::iter(0..PIECES).map(|at| volume.write(place(at), piece(at)));
    let written = writes.buffer_unordered(DEPTH);
    written.try_for_each(async |()| Ok(())).await?;
    for at in 0..PIECES {
        // In pieces, as they came from the network: not copied.
        let found = volume.read(place(at), ByteLen::from_usize(PIECE)).await?;
        let is_same = found
            .iter()
            .all(|bytes| bytes.iter().all(|byte| *byte == at));
        check(is_same, "each piece is what was written")?;
    }
    println!("wrote and read {PIECES} pieces of {PIECE} bytes");

    volume.close().await?;
    Ok(())
}

fn place(at: u8) -> ByteOffset {
    ByteOffset::new(u64::from(at) * PIECE as u64)
}

fn piece(at: u8) -> Payload {
    Payload::from(vec![at; PIECE])
}

fn check(is_so: bool, what: &'static str) -> Result<(), &'static str> {
    is_so.then_some(()).ok_or(what)
}
