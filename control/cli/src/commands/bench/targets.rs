//! What stands behind the names of targets.

use crate::args::{LoadArgs, SyncMode};
use crate::commands::ask::config;
use crate::error::{CliError, chain};
use crate::settings::wrong;
use ogee_client::{ClientError, Control, MdsHandle, OpenOptions, Volume};
use ogee_device::Device;
use ogee_perf::{AnyTarget, NbdAddress, NbdClient, VhostClient, VhostError, Workload};
use ogee_proto::name::PathName;
use ogee_transport::Transport;
use std::path::PathBuf;
use std::rc::Rc;

/// A target as it is named.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Name {
    Volume(String),
    Raw(PathBuf),
    Nbd(NbdAddress),
    Vhost(PathBuf),
}

/// Opens every target; a raw one is written only with `--yes`.
pub(super) async fn open_all(
    mds: &[String],
    args: &LoadArgs,
    workload: &Workload,
) -> Result<Vec<AnyTarget>, CliError> {
    let writes = workload.rw.writes();
    let mut targets = Vec::with_capacity(args.targets.len());
    for text in &args.targets {
        let name = parse(text)?;
        if let Name::Raw(path) = &name
            && writes
            && !args.yes
        {
            let what = format!("writes would overwrite {}", path.display());
            let remedy = "give --yes if nothing on it is needed, or only read: --rw randread";
            return Err(wrong(&what, "a raw target has no owner to ask", remedy));
        }
        targets.push(open_one(mds, name, args, workload).await?);
    }
    Ok(targets)
}

/// Gives every volume back.
pub(super) async fn close_all(targets: Vec<AnyTarget>) -> Result<(), CliError> {
    for target in targets {
        if let AnyTarget::Volume(volume) = target {
            let closed = volume.close().await;
            closed.map_err(|error| failed("cannot detach a volume", &error))?;
        }
    }
    Ok(())
}

fn failed(what: &str, error: &dyn std::error::Error) -> CliError {
    CliError::new(
        "OGEE-3402",
        what,
        &chain(error),
        "ogee volume show names its state",
    )
}

fn parse(text: &str) -> Result<Name, CliError> {
    if let Some(path) = text.strip_prefix("raw:") {
        return Ok(Name::Raw(path.into()));
    }
    if let Some(path) = text
        .strip_prefix("vhost-user:")
        .filter(|path| !path.is_empty())
    {
        return Ok(Name::Vhost(path.into()));
    }
    if text.starts_with("nbd") && text.contains("://") {
        let address = text.parse().map_err(|error: ogee_perf::NbdError| {
            let remedy = "ogee export nbd NAME --socket PATH serves one";
            wrong("cannot use the target", &error.to_string(), remedy)
        })?;
        return Ok(Name::Nbd(address));
    }
    let name = text.strip_prefix("volume:").unwrap_or(text);
    let path = PathName::new(name).map_err(|error| {
        let cause =
            format!("\"{text}\" is no name of a volume, and no other target we know: {error}");
        let remedy = "write NAME, raw:PATH, vhost-user:SOCKET, nbd+unix:///EXPORT?socket=PATH or nbd://IP:PORT/EXPORT";
        wrong("cannot use the target", &cause, remedy)
    })?;
    Ok(Name::Volume(path.into()))
}

async fn open_one(
    mds: &[String],
    name: Name,
    args: &LoadArgs,
    workload: &Workload,
) -> Result<AnyTarget, CliError> {
    let writes = workload.rw.writes();
    let is_durable = args.sync == SyncMode::Dsync;
    match name {
        // Also to read: a load takes the volume, so that nobody else disturbs the figures.
        Name::Volume(name) => {
            let volume = open(mds, &name, false, args.carrier.transport).await?;
            Ok(AnyTarget::Volume(volume))
        }
        Name::Raw(path) => {
            let opened = Device::open(&path, ogee_device::OpenOptions::default()).await;
            let device = opened.map_err(|error| {
                let what = format!("cannot open {}", path.display());
                let remedy = "truncate -s 4G FILE makes one; a read of its holes costs nothing";
                CliError::new("OGEE-3403", &what, &chain(&error), remedy)
            })?;
            Ok(AnyTarget::Raw { device, is_durable })
        }
        Name::Nbd(address) => {
            let connected = NbdClient::connect(&address, is_durable && writes).await;
            let client = connected.map_err(|error| {
                let what = format!("cannot use the NBD export {}", address.export);
                let remedy = "ogee export nbd NAME --socket PATH serves one";
                CliError::new("OGEE-3404", &what, &chain(&error), remedy)
            })?;
            Ok(AnyTarget::Nbd(client))
        }
        Name::Vhost(socket) => {
            let connected = VhostClient::connect(&socket, workload, is_durable && writes).await;
            let client = connected.map_err(|error| {
                let what = format!("cannot use the disk at {}", socket.display());
                let remedy =
                    "ogee export vhost-user NAME --socket-dir DIR serves one at DIR/NAME.sock";
                match error {
                    VhostError::Workload(_) | VhostError::Depth(_) => {
                        wrong(&what, &chain(&error), "ogee bench --help names every flag")
                    }
                    _ => CliError::new("OGEE-3406", &what, &chain(&error), remedy),
                }
            })?;
            Ok(AnyTarget::Vhost(client))
        }
    }
}

/// Attaches a volume for a frontend or a load.
pub(in crate::commands) async fn open(
    mds: &[String],
    name: &str,
    read_only: bool,
    transport: Transport,
) -> Result<Volume, CliError> {
    let doing = format!("cannot attach volume {name}");
    check_transport(&doing, transport)?;
    let handle =
        MdsHandle::start(config(mds)).map_err(|error| CliError::control(&doing, &error))?;
    let opened = open_through(Rc::new(handle), name, read_only, transport).await;
    opened.map_err(|error| not_attached(&doing, &error))
}

/// Why a volume is not attached.
pub(in crate::commands) fn not_attached(doing: &str, error: &ClientError) -> CliError {
    match error {
        ClientError::Control(control) => CliError::control(doing, control),
        other => failed(doing, other),
    }
}

/// Whether this program has what carries frames over `transport`.
pub(in crate::commands) fn check_transport(
    doing: &str,
    transport: Transport,
) -> Result<(), CliError> {
    if transport == Transport::Rdma && !cfg!(feature = "rdma") {
        let remedy = "cargo build --release -p ogee-cli --features rdma makes one that has it";
        return Err(wrong(doing, "this program was built without RDMA", remedy));
    }
    Ok(())
}

/// The same through any control plane.
pub(in crate::commands) async fn open_through(
    control: Rc<dyn Control>,
    name: &str,
    read_only: bool,
    transport: Transport,
) -> Result<Volume, ClientError> {
    let options = OpenOptions {
        read_only,
        host: host_name(),
        io_timeout: None,
        transport,
    };
    Volume::open_with(control, name, options).await
}

/// This host, as operators know it.
pub(in crate::commands) fn host_name() -> String {
    let name = nix::unistd::gethostname();
    let name = name.ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| String::from("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_it_is() {
        let volume = |name: &str| Name::Volume(name.into());
        assert_eq!(parse("vol1").unwrap(), volume("vol1"));
        assert_eq!(parse("volume:compare").unwrap(), volume("compare"));
        assert_eq!(parse("team/db1").unwrap(), volume("team/db1"));
        assert_eq!(parse("raw:/dev/x").unwrap(), Name::Raw("/dev/x".into()));
        assert!(matches!(
            parse("nbd+unix:///v?socket=/tmp/s"),
            Ok(Name::Nbd(_))
        ));
        assert!(matches!(parse("nbd://127.0.0.1:10809/v"), Ok(Name::Nbd(_))));
        assert_eq!(parse("vhost-user:/s").unwrap(), Name::Vhost("/s".into()));
        // A volume may be called so.
        assert_eq!(parse("nbd").unwrap(), volume("nbd"));
        assert_eq!(parse("vhost-user").unwrap(), volume("vhost-user"));
    }

    #[test]
    fn what_is_no_target_is_named_with_the_forms() {
        for text in [
            "",
            "volume:",
            "/dev/sda",
            "iscsi:x",
            "vhost-user:",
            "nbd://somewhere/v",
            "./file",
            "a//b",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("try:"), "{error}");
        }
        let error = parse("/dev/sda").unwrap_err().to_string();
        assert!(
            error.contains("\"/dev/sda\"") && error.contains("raw:PATH"),
            "{error}"
        );
    }
}
