//! `ogee-floor`: one of the three processes of the replication floor. `perf/floor.sh` runs them.

use clap::Parser;
use libmimalloc_sys::{mi_option_set, mi_option_t};
use ogee_floor::{FloorConfig, FloorError, NODES};
use ogee_proto::size::parse_size;
use ogee_proto::unit::ByteLen;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// As the daemons have it: else the allocators would be compared.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
/// `mi_option_purge_delay` of mimalloc 3.
const PURGE_DELAY: mi_option_t = 15;

/// A chunkserver without consensus, to measure the real one against. It keeps nobody's data.
#[derive(Parser, Debug)]
#[command(name = "ogee-floor")]
struct Cli {
    /// Which of the three this is: 0, 1 or 2.
    #[arg(long)]
    node: usize,
    /// Where each of the three serves frames, separated by commas.
    #[arg(long, value_delimiter = ',', required = true, value_name = "IP:PORT")]
    peers: Vec<SocketAddr>,
    /// The store's file; made if it does not exist.
    #[arg(long)]
    store: PathBuf,
    /// Its size when it is made.
    #[arg(long, default_value = "8GiB", value_parser = size)]
    store_size: ByteLen,
    /// Its log's.
    #[arg(long, default_value = "512MiB", value_parser = size)]
    log_size: ByteLen,
    /// Groups; each process leads a third of them.
    #[arg(long, default_value_t = 8)]
    groups: u32,
    /// Size of the volume "floor".
    #[arg(long, default_value = "4GiB", value_parser = size)]
    volume_size: ByteLen,
    /// Answer for the metadata server here.
    #[arg(long, value_name = "IP:PORT")]
    mds: Option<SocketAddr>,
    /// File to make when it serves.
    #[arg(long)]
    ready_file: Option<PathBuf>,
}

fn size(text: &str) -> Result<ByteLen, String> {
    parse_size(text).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    // SAFETY: takes two numbers; an option that it does not know would be ignored.
    unsafe { mi_option_set(PURGE_DELAY, -1) };
    let filter = EnvFilter::try_from_env("OGEE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    log.with_writer(std::io::stderr).init();
    match run(Cli::parse()) {
        Ok(never) => match never {},
        Err(error) => {
            eprint!("the floor cannot run: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprint!(": {cause}");
                source = cause.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<std::convert::Infallible, FloorError> {
    let found = cli.peers.len() as u64;
    let peers = cli.peers.try_into().map_err(|_| FloorError::Bounds {
        what: "a number of peers",
        found,
        min: NODES as u64,
        max: NODES as u64,
    })?;
    let config = FloorConfig {
        node: cli.node,
        peers,
        store: cli.store,
        store_len: cli.store_size,
        log_len: cli.log_size,
        groups: cli.groups,
        volume_len: cli.volume_size,
        control: cli.mds,
    };
    ogee_runtime::executor::block_on(ogee_floor::run(config, cli.ready_file))
}
