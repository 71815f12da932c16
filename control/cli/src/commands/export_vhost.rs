//! `ogee export vhost-user`.

use super::keep::Keeping;
use super::signal::on_stop;
use crate::args::VhostUserArgs;
use crate::error::{CliError, Exit, chain};
use futures_util::future::{Either, select, try_join_all};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ogee_client::Volume;
use ogee_frontend::vhost::{DiskOptions, DiskServer};
use ogee_frontend::{LimitedDisk, Rates, SocketAccess};
use ogee_proto::name::{NameError, PathName};
use ogee_runtime::bridge;
use ogee_runtime::executor::{Placement, ShardBuilder};
use ogee_transport::Transport;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

/// What a shard serves.
#[derive(Clone)]
struct Work {
    mds: Vec<String>,
    names: Vec<String>,
    socket_dir: PathBuf,
    keeping: Keeping,
    rates: Rates,
    options: DiskOptions,
    read_only: bool,
    transport: Transport,
}

pub(super) fn run(mds: &[String], args: VhostUserArgs) -> Result<ExitCode, CliError> {
    let (work, places) = work(mds, args)?;
    let (shards, poll) = (places.len(), work.options.poll);
    raise_descriptor_limit();
    let (stops, inboxes): (Vec<bridge::Sender<()>>, Vec<_>) =
        (0..shards).map(|_| bridge::channel(1)).unzip();
    let stop = move || {
        for stop in &stops {
            // Full or closed: it is ending already.
            let _ = bridge::Sender::try_send(stop, ());
        }
    };
    on_stop(stop.clone())?;
    let (ended, outcomes) = mpsc::channel();
    for (index, stopped) in inboxes.into_iter().enumerate() {
        let names = work.names.iter().skip(index).step_by(shards);
        let names = names.cloned().collect();
        let work = Work {
            names,
            ..work.clone()
        };
        let (ended, failures) = (ended.clone(), ended.clone());
        let main = move || async move {
            // Nobody hears it if another shard has failed before.
            let _ = ended.send(serve(work, stopped).await);
        };
        // What comes back from chunkservers is looked for as long as what the guest asks.
        let shard = ShardBuilder::new(format!("vhost-{index}")).spin_before_park(poll);
        let place = places.get(index).copied().unwrap_or_default();
        if let Err(error) = shard.placement(place).start(main) {
            let remedy = "see the limits in the message";
            let failed = CliError::io("cannot start a shard", &error, remedy);
            // The others end as they would otherwise.
            let _ = failures.send(Err(failed));
        }
    }
    drop(ended);
    // The first that fails ends them all, each after what it has under way.
    let mut failure = None;
    while let Ok(outcome) = outcomes.recv() {
        if let Err(error) = outcome {
            stop();
            failure.get_or_insert(error);
        }
    }
    failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// What to serve, and where each shard is to run.
fn work(mds: &[String], args: VhostUserArgs) -> Result<(Work, Vec<Placement>), CliError> {
    let VhostUserArgs {
        names,
        socket_dir,
        state_dir,
        queues,
        block_size,
        poll_us,
        shards,
        cpus,
        rates,
        owner,
        mode,
        read_only,
        no_registration,
        carrier,
    } = args;
    let mut sorted = names.clone();
    sorted.sort_unstable();
    let wrong = |cause: &str, remedy: &str| {
        let error = CliError::new("OGEE-3502", "cannot serve these volumes", cause, remedy);
        error.with_exit(Exit::Usage)
    };
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        let cause = format!("{} is named twice", pair[0]);
        return Err(wrong(&cause, "name each volume once: one VM writes it"));
    }
    let options = DiskOptions {
        queues,
        block_size,
        poll: Duration::from_micros(poll_us),
        serial: String::new(),
        access: SocketAccess {
            mode,
            uid: owner.map(|owner| owner.uid),
            gid: owner.and_then(|owner| owner.gid),
        },
        announces_memory: !no_registration,
    };
    let checked = options.check();
    checked.map_err(|error| wrong(&error.to_string(), "see ogee export vhost-user --help"))?;
    let places = placements(usize::from(shards), &cpus)
        .map_err(|cause| wrong(&cause, "name one for each shard, or none"))?;
    let places = places.into_iter().take(names.len()).collect();
    let keeping = match state_dir {
        Some(directory) => Keeping::asked(&directory)?,
        None => Keeping::beside_sockets(&socket_dir, options.access.directory_mode())?,
    };
    let work = Work {
        mds: mds.to_vec(),
        names,
        socket_dir,
        keeping,
        rates: rates.into(),
        options,
        read_only,
        transport: carrier.transport,
    };
    Ok((work, places))
}

fn placements(shards: usize, cpus: &[usize]) -> Result<Vec<Placement>, String> {
    match cpus.len() {
        0 => Ok(vec![Placement::Unbound; shards]),
        len if len == shards => Ok(cpus.iter().copied().map(Placement::Cpu).collect()),
        len => Err(format!("{len} processors are named for {shards} shards")),
    }
}

/// Each queue has some nine descriptors, and 1,024 is a common soft limit: the hard one is what the operator meant.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is: many disks may not find enough");
    }
}

/// The socket of a volume.
pub(super) fn socket(dir: &Path, name: &str) -> Result<PathBuf, NameError> {
    let file = PathName::new(name)?.file_name();
    Ok(dir.join(format!("{file}.sock")))
}

/// A volume that is served.
struct Served {
    volume: Volume,
    server: DiskServer<LimitedDisk<Volume>>,
}

async fn serve(work: Work, mut stopped: bridge::Receiver<()>) -> Result<(), CliError> {
    let served = RefCell::new(Vec::new());
    // Side by side: each may have to wait for a metadata server.
    let offers = work.names.iter().map(async |name| {
        let one = offer(&work, name).await?;
        served.borrow_mut().push(one);
        Ok::<_, CliError>(())
    });
    let outcome = match select(pin!(try_join_all(offers)), pin!(stopped.recv())).await {
        Either::Left((Ok(_), stopping)) => {
            stopping.await;
            Ok(())
        }
        Either::Left((Err(error), _)) => Err(error),
        Either::Right(_) => Ok(()),
    };
    let endings = served.take().into_iter().map(end);
    futures_util::future::join_all(endings).await;
    outcome
}

async fn offer(work: &Work, name: &str) -> Result<Served, CliError> {
    let path = socket(&work.socket_dir, name).map_err(|error| {
        let what = format!("cannot serve volume {name}");
        let remedy = "ogee volume ls lists the names";
        CliError::new("OGEE-3501", &what, &error.to_string(), remedy)
    })?;
    let opening = work
        .keeping
        .open(&work.mds, name, work.read_only, work.transport);
    let volume = opening.await?;
    let options = DiskOptions {
        serial: format!("ogee-{}", volume.id()),
        ..work.options.clone()
    };
    let disk = Rc::new(LimitedDisk::new(volume.clone(), work.rates));
    let bound = DiskServer::bind(&path, name, disk, options).await;
    match bound {
        Ok(server) => Ok(Served { volume, server }),
        Err(error) => {
            let what = format!("cannot serve volume {name}");
            let remedy = "choose another --socket-dir";
            let failed = CliError::new("OGEE-3501", &what, &chain(&error), remedy);
            if let Err(error) = volume.close().await {
                tracing::warn!(volume = name, %error, "the attachment was not given up");
            }
            Err(failed)
        }
    }
}

async fn end(served: Served) {
    let Served { volume, server } = served;
    server.stop().await;
    let name = volume.name().to_owned();
    let read_bytes_copied = volume.metrics().snapshot().bytes_copied;
    // Of all disks of this shard, as far as they are over RDMA.
    let shard_bytes_in_place = ogee_transport::metrics().bytes_in_place;
    tracing::info!(
        volume = name,
        read_bytes_copied,
        shard_bytes_in_place,
        "ways of what was read"
    );
    if let Err(error) = volume.close().await {
        tracing::warn!(volume = name, %error, "the attachment was not given up");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_has_a_processor_or_none_has() {
        assert_eq!(placements(2, &[]), Ok(vec![Placement::Unbound; 2]));
        let both = vec![Placement::Cpu(3), Placement::Cpu(1)];
        assert_eq!(placements(2, &[3, 1]), Ok(both));
        assert!(placements(2, &[3]).is_err() && placements(1, &[3, 1]).is_err());
    }
}
