//! `ogee export`.

use super::ask::config;
use super::bench::open;
use super::signal::on_stop;
use crate::args::ExportCommand;
use crate::error::{CliError, chain};
use ogee_frontend::nbd::{Address, Exports, Server};
use ogee_runtime::bridge;
use std::process::ExitCode;
use std::rc::Rc;

pub(crate) fn run(mds: &[String], what: ExportCommand) -> Result<ExitCode, CliError> {
    let (name, socket, listen, read_only) = match what {
        ExportCommand::Nbd {
            name,
            socket,
            listen,
            read_only,
        } => (name, socket, listen, read_only),
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
    ogee_runtime::executor::block_on(serve(mds, &name, address, read_only, stopped))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    mds: &[String],
    name: &str,
    address: Address,
    read_only: bool,
    mut stopped: bridge::Receiver<()>,
) -> Result<(), CliError> {
    let volume = open(mds, name, read_only).await?;
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
    let offered = exports.add(name, "Ogee volume", Rc::new(volume.clone()));
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
