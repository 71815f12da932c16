//! `ogee dev up`.

use super::layout::{Layout, write};
use super::pool::make_pool;
use super::process::{await_ready, running, spawn};
use crate::args::DevUpArgs;
use crate::commands::ask;
use crate::error::CliError;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::Child;
use std::time::{Duration, Instant};

/// The first metadata server's name.
const MDS: &str = "mds1";
/// Bound on the cluster becoming healthy.
const HEALTHY: Duration = Duration::from_secs(60);

/// Starts what does not run, makes the pool, waits for health.
pub(super) fn up(args: &DevUpArgs) -> Result<(), CliError> {
    let layout = Layout::create(&args.dir)?;
    if !layout.conf(MDS).exists() {
        configure(&layout, args)?;
    }
    let names = layout.names();
    let fresh: Vec<&String> = names
        .iter()
        .filter(|name| running(&layout, name).is_none())
        .collect();
    eprintln!("starting {}", names.join(", "));
    let mut children: Vec<(&String, Child)> = Vec::new();
    for name in fresh {
        children.extend(spawn(&layout, name)?.map(|child| (name, child)));
    }
    for (name, child) in &mut children {
        await_ready(&layout, name, child)?;
    }
    let mds = mds_addresses(&layout)?;
    make_pool(&layout, &mds, args)?;
    await_health(&mds)?;
    eprintln!("healthy; now: . {}", layout.env().display());
    Ok(())
}

/// Chooses addresses and writes every configuration file, once.
fn configure(layout: &Layout, args: &DevUpArgs) -> Result<(), CliError> {
    let per_node = usize::from(args.shards) + 1;
    let of_mds = 2 * usize::from(args.mds_nodes);
    let ports = free_addresses(of_mds + usize::from(args.nodes) * per_node)?;
    let (of_mds, of_nodes) = ports.split_at(of_mds);
    let (mds, metrics) = of_mds.split_at(of_mds.len() / 2);
    for (node, addresses) in (1..=args.nodes).zip(of_nodes.chunks(per_node)) {
        let name = format!("cs{node}");
        write(
            &layout.conf(&name),
            &chunkserver_conf(layout, args, &name, node, mds, addresses),
        )?;
    }
    let names: Vec<String> = mds.iter().map(ToString::to_string).collect();
    let env = format!("export OGEE_MDS={}\n", names.join(","));
    write(&layout.env(), &env)?;
    // The first comes last: its presence says that the configuration is complete.
    for (at, (listen, metrics)) in mds.iter().zip(metrics).enumerate().rev() {
        let id = at + 1;
        let name = format!("mds{id}");
        let text = mds_conf(layout, &name, id, (*listen, *metrics), mds);
        write(&layout.conf(&name), &text)?;
    }
    Ok(())
}

fn mds_conf(
    layout: &Layout,
    name: &str,
    id: usize,
    (listen, metrics): (SocketAddr, SocketAddr),
    all: &[SocketAddr],
) -> String {
    let mut text = format!(
        "data_dir = {:?}\nlisten = \"{listen}\"\nmetrics = \"{metrics}\"\ncluster = \"dev\"\nid = {id}\n",
        layout.data(name)
    );
    if all.len() > 1 {
        for (id, addr) in (1..).zip(all) {
            let id: usize = id;
            let _ = write!(text, "\n[[members]]\nid = {id}\naddr = \"{addr}\"\n");
        }
    }
    text
}

fn chunkserver_conf(
    layout: &Layout,
    args: &DevUpArgs,
    name: &str,
    node: u16,
    mds: &[SocketAddr],
    addresses: &[SocketAddr],
) -> String {
    let (metrics, shards) = addresses
        .split_last()
        .expect("one address more than shards");
    let listen: Vec<String> = shards
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    let zone = (node - 1) % args.zones() + 1;
    let mut text = format!(
        "name = \"{name}\"\nzone = \"zone{zone}\"\nserver = \"dev{node}\"\n\
         listen = [{}]\nmds = [{}]\nmetrics = \"{metrics}\"\n",
        listen.join(", "),
        mds.iter()
            .map(|addr| format!("\"{addr}\""))
            .collect::<Vec<_>>()
            .join(", "),
    );
    for shard in 0..shards.len() {
        let path = layout.data(&format!("{name}-{shard}.store"));
        let _ = write!(
            text,
            "\n[[device]]\npath = {path:?}\ncreate = \"{}\"\nlog_size = \"{}\"\nshard = {shard}\n",
            args.store_size.get(),
            args.log_size.get()
        );
    }
    text
}

/// Lowest port that a cluster takes.
const PORT_MIN: u16 = 10_000;
/// Random ports that are tried before the kernel is asked for one.
const PORT_TRIES: usize = 64;

/// The kernel's choice for outgoing connections: one of those may take a port in this range while
/// the process that it belongs to is down for a moment.
fn ephemeral_from() -> Option<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_whitespace().next()?.parse().ok()
}

/// A listener on a port below the ephemeral ones, or on any where there are none below.
fn free_listener() -> std::io::Result<TcpListener> {
    let below = ephemeral_from().filter(|first| *first > PORT_MIN);
    let tries = std::iter::repeat_with(|| {
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
        let port = below.map_or(0, |end| {
            PORT_MIN + u16::try_from(random % u64::from(end - PORT_MIN)).unwrap_or(0)
        });
        TcpListener::bind(("127.0.0.1", port))
    });
    let free = tries.take(PORT_TRIES).find(Result::is_ok);
    free.unwrap_or_else(|| TcpListener::bind(("127.0.0.1", 0)))
}

/// Free loopback addresses: all held at once, so that they differ.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, CliError> {
    let failed = |error: std::io::Error| {
        CliError::io(
            "cannot find free ports on 127.0.0.1",
            &error,
            "end some programs",
        )
    };
    let held: Result<Vec<TcpListener>, _> = (0..count).map(|_| free_listener()).collect();
    let addresses = held.map_err(failed)?;
    addresses
        .iter()
        .map(|listener| listener.local_addr().map_err(failed))
        .collect()
}

fn mds_addresses(layout: &Layout) -> Result<Vec<String>, CliError> {
    let env = layout.env();
    let text = std::fs::read_to_string(&env).map_err(|error| {
        CliError::io(
            &format!("cannot read {}", env.display()),
            &error,
            "run ogee dev up again",
        )
    })?;
    let address = text
        .trim()
        .strip_prefix("export OGEE_MDS=")
        .map(|names| names.split(',').map(str::to_owned).collect());
    address.ok_or_else(|| {
        let what = format!("{} does not name the metadata server", env.display());
        CliError::new(
            "OGEE-3303",
            &what,
            "",
            "remove the directory and run ogee dev up again",
        )
    })
}

fn await_health(mds: &[String]) -> Result<(), CliError> {
    let deadline = Instant::now() + HEALTHY;
    let mut last;
    loop {
        let status = ask(mds, "cannot get the status", async |client| {
            client.status().await
        })?;
        if status.health == "OK" {
            return Ok(());
        }
        last = status
            .codes
            .iter()
            .map(|code| code.detail.as_str())
            .collect::<Vec<_>>()
            .join("; ");
        if Instant::now() > deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let what = format!("the cluster is not healthy after {HEALTHY:?}");
    Err(CliError::new(
        "OGEE-3304",
        &what,
        &last,
        "ogee status, and the logs in DIR/logs",
    ))
}
