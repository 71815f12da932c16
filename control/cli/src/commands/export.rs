//! `ogee export`.

use super::ask::config;
use super::bench::open;
use super::keep::Keeping;
use super::signal::on_stop;
use crate::args::{ExportCommand, RateArgs};
use crate::error::{CliError, chain};
use ogee_client::Volume;
use ogee_frontend::nbd::{Address, Exports, Server};
use ogee_frontend::{LimitedDisk, Rates};
use ogee_runtime::bridge;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

pub(crate) fn run(mds: &[String], what: ExportCommand) -> Result<ExitCode, CliError> {
    let (name, socket, listen, state_dir, rates, read_only, transport) = match what {
        ExportCommand::Nbd {
            name,
            socket,
            listen,
            state_dir,
            rates,
            read_only,
            carrier,
        } => {
            let transport = carrier.transport;
            (name, socket, listen, state_dir, rates, read_only, transport)
        }
        ExportCommand::VhostUser(args) => return super::export_vhost::run(mds, args),
    };
    let address = match (socket, listen) {
        (Some(path), _) => Address::Unix(path),
        (None, Some(address)) => Address::Tcp(address),
        (None, None) => unreachable!("the command line demands one of them"),
    };
    let (sender, stopped) = bridge::channel(1);
    on_stop(move || {
        // Full or closed: it is ending already.
        let _ = sender.try_send(());
    })?;
    let keeping = state_dir.map(|directory| Keeping::asked(&directory));
    let keeping = keeping.transpose()?;
    ogee_runtime::executor::block_on(async {
        let volume = match keeping {
            Some(keeping) => keeping.open(mds, &name, read_only, transport).await?,
            None => open(mds, &name, read_only, transport).await?,
        };
        serve(mds, volume, rates.into(), address, stopped).await
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    mds: &[String],
    volume: Volume,
    rates: Rates,
    address: Address,
    mut stopped: bridge::Receiver<()>,
) -> Result<(), CliError> {
    let name = volume.name().to_owned();
    let failed = |error: &dyn std::error::Error| {
        let what = format!("cannot serve volume {name}");
        CliError::new(
            "OGEE-3501",
            &what,
            &chain(error),
            "choose another socket or address",
        )
    };
    let exports = Exports::new();
    let disk = LimitedDisk::new(volume.clone(), rates);
    let offered = exports.add(&name, "Ogee volume", Rc::new(disk));
    offered.map_err(|error| failed(&error))?;
    let server = Server::bind(address, exports)
        .await
        .map_err(|error| failed(&error))?;
    tracing::info!(volume = name, address = %server.address(), mds = ?config(mds).endpoints, "serving");
    stopped.recv().await;
    server.stop().await;
    if let Err(error) = volume.close().await {
        tracing::warn!(volume = name, %error, "the attachment was not given up");
    }
    Ok(())
}

impl From<RateArgs> for Rates {
    fn from(args: RateArgs) -> Self {
        Self {
            iops: args.iops,
            bytes: args.bandwidth,
            burst: Duration::from_millis(args.burst_ms),
        }
    }
}
