//! Drives that chunkservers use: what they say of their health, as the metadata servers heard it.
//!
//! *Place*: `ogee device health`. *Owner*: the process. *Invariants*: a PCI address is one of this host, so it means a device
//! of a chunkserver of this host, and of no other, whatever their addresses are. *On failure*: an error that names
//! the devices that could be meant, and what shows them.

use super::health::{of_report, report_json, show};
use super::verdict;
use crate::args::Format;
use crate::commands::ask;
use crate::error::{CliError, Exit};
use ogee_proto::service::{DeviceInfo, DriveUnknown, ServerInfo};
use std::process::ExitCode;

/// Which device.
pub(super) enum Wanted<'a> {
    /// With that store.
    Store(&'a str),
    /// Of this host.
    Address(&'a str),
}

pub(super) fn health(
    mds: &[String],
    wanted: &Wanted<'_>,
    format: Format,
) -> Result<ExitCode, CliError> {
    let doing = match wanted {
        Wanted::Store(store) => format!("cannot show the health of {store}"),
        Wanted::Address(address) => format!(
            "cannot show the health of {address}, which the kernel does not drive: only its chunkserver can ask it"
        ),
    };
    let devices = ask(mds, &doing, async |client| client.list_devices().await)?.devices;
    let servers = ask(mds, &doing, async |client| client.list_servers().await)?.servers;
    let host = nix::unistd::gethostname().ok();
    let host = host.and_then(|host| host.into_string().ok());
    let device = pick(&devices, &servers, wanted, host.as_deref())?;
    let Some(report) = &device.drive else {
        return Err(untold(device));
    };
    let health = of_report(report);
    let mut json = report_json(report);
    json["store"] = device.store.clone().into();
    json["chunkserver"] = device.chunkserver_name.clone().into();
    json["path"] = device.path.clone().into();
    json["online"] = device.online.into();
    let told = match (device.online, report.is_old) {
        (false, _) => "its chunkserver is offline: as it was before".to_owned(),
        (true, true) => format!(
            "it did not tell when it was asked last ({} times in all): as it was before",
            report.refusals
        ),
        (true, false) => "asked once a minute".to_owned(),
    };
    let title = format!("{}:{}", device.chunkserver_name, device.path);
    show(&title, &json, &health, &[("as of", told)], format);
    Ok(verdict(&health))
}

fn untold(device: &DeviceInfo) -> CliError {
    let by_path = "ask on that host, by its path, as root: ogee device health /dev/disk/by-id/…";
    let (cause, remedy) = match device.drive_unknown() {
        DriveUnknown::Unspecified => (
            "its chunkserver has not told of it since this metadata server has heard from it",
            "ogee device ls says whether it is online; its log says whether its drive tells its health, and why not; one that \
             was just started has asked within a minute",
        ),
        DriveUnknown::NoNvme => (
            "it does not stand on one NVMe drive: other disks, and several drives together, are not asked",
            "smartctl on that host asks SATA and SAS disks",
        ),
        DriveUnknown::NotPermitted => (
            "its chunkserver may not ask the drive: the kernel wants CAP_SYS_ADMIN, and the right to open /dev/nvmeN",
            by_path,
        ),
        DriveUnknown::NoNode => (
            "the drive's controller, /dev/nvmeN, has no device node where its chunkserver runs, as in a container",
            "give the container that device, or ask on that host by its path: ogee device health /dev/disk/by-id/…",
        ),
        DriveUnknown::Refused => ("the drive was asked, and does not tell", by_path),
    };
    let what = format!(
        "no health page of {}:{}",
        device.chunkserver_name, device.path
    );
    CliError::new("OGEE-3014", &what, cause, remedy)
}

fn pick<'a>(
    devices: &'a [DeviceInfo],
    servers: &[ServerInfo],
    wanted: &Wanted<'_>,
    host: Option<&str>,
) -> Result<&'a DeviceInfo, CliError> {
    let address = match wanted {
        Wanted::Store(store) => {
            let mut found = devices.iter();
            return found
                .find(|device| device.store.eq_ignore_ascii_case(store))
                .ok_or_else(|| {
                    let what = format!("there is no store {store}");
                    CliError::new("OGEE-3011", &what, "", "ogee device ls names them all")
                        .with_exit(Exit::NotFound)
                });
        }
        Wanted::Address(address) => address,
    };
    let is_at = |device: &&DeviceInfo| {
        let rest = device.path.strip_prefix("nvme:");
        let rest = rest.and_then(|path| path.strip_prefix(address));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let there: Vec<&DeviceInfo> = devices.iter().filter(is_at).collect();
    let is_here = |device: &DeviceInfo| {
        let server = servers.iter().find(|s| s.name == device.chunkserver_name);
        server.is_some_and(|server| Some(server.server.as_str()) == host)
    };
    let here: Vec<&DeviceInfo> = there.iter().copied().filter(|one| is_here(one)).collect();
    match here.as_slice() {
        [one] => Ok(one),
        _ => Err(unclear(address, &there, host)),
    }
}

fn unclear(address: &str, there: &[&DeviceInfo], host: Option<&str>) -> CliError {
    let named = there
        .iter()
        .map(|device| format!("{} ({})", device.store, device.chunkserver_name));
    let named: Vec<String> = named.take(8).collect();
    let host = host.unwrap_or("this host");
    let (cause, remedy) = match named.as_slice() {
        [] => (
            "no chunkserver of the cluster has a device at that address".to_owned(),
            "start the chunkserver that is to use it, or give it back to the kernel: ogee device release",
        ),
        some => (
            format!(
                "that address is of this host, and which of these is on {host} is not known: {}",
                some.join(", ")
            ),
            "name it by its store: ogee device health STORE; `server` in a chunkserver's configuration is the host's name \
             if it is not given",
        ),
    };
    let what = format!("cannot tell whose drive {address} is");
    CliError::new("OGEE-3014", &what, &cause, remedy)
}

#[cfg(test)]
mod tests {
    use super::{Wanted, pick, untold};
    use ogee_proto::service::{DeviceInfo, DriveUnknown, ServerInfo};

    fn device(server: &str, store: &str, path: &str) -> DeviceInfo {
        DeviceInfo {
            chunkserver_name: server.into(),
            store: store.into(),
            path: path.into(),
            ..DeviceInfo::default()
        }
    }

    fn server(name: &str, host: &str) -> ServerInfo {
        ServerInfo {
            name: name.into(),
            server: host.into(),
            ..ServerInfo::default()
        }
    }

    #[test]
    fn an_address_is_of_this_host_and_a_store_of_any() {
        let devices = [
            device("cs1", "a", "nvme:0000:65:00.0"),
            device("cs2", "b", "nvme:0000:65:00.0/n2"),
            device("cs3", "c", "nvme:0000:65:00.01"),
            device("cs3", "d", "/dev/sda"),
        ];
        let servers = [
            server("cs1", "one"),
            server("cs2", "two"),
            server("cs3", "three"),
        ];
        let wanted = Wanted::Address("0000:65:00.0");
        let found = |host| pick(&devices, &servers, &wanted, host).map(|one| one.store.as_str());
        assert_eq!(found(Some("one")).expect("one"), "a");
        assert_eq!(found(Some("two")).expect("one"), "b");
        for host in [Some("three"), Some("four"), None] {
            let said = found(host).expect_err("unclear").to_string();
            assert!(said.contains("a (cs1), b (cs2)"), "{said}");
        }
        let nowhere = Wanted::Address("0000:66:00.0");
        let said = pick(&devices, &servers, &nowhere, Some("one")).expect_err("none");
        assert!(said.to_string().contains("no chunkserver"), "{said}");
        let by_store = pick(&devices, &servers, &Wanted::Store("B"), None);
        assert_eq!(by_store.expect("one").chunkserver_name, "cs2");
        let said = pick(&devices, &servers, &Wanted::Store("x"), None).expect_err("none");
        assert_eq!(said.exit(), crate::error::Exit::NotFound);
    }

    #[test]
    fn a_drive_that_has_not_told_says_why() {
        let said = untold(&device("cs1", "a", "nvme:0000:65:00.0")).to_string();
        assert!(said.contains("has not told"), "{said}");
        for (why, words) in [
            (DriveUnknown::NoNvme, "one NVMe drive"),
            (DriveUnknown::NotPermitted, "CAP_SYS_ADMIN"),
            (DriveUnknown::NoNode, "device node"),
            (DriveUnknown::Refused, "does not tell"),
        ] {
            let mut device = device("cs1", "a", "/dev/sda");
            device.set_drive_unknown(why);
            let said = untold(&device).to_string();
            assert!(said.contains(words), "{said}");
        }
    }
}
