//! What the kernel tells of RDMA devices in /sys.
//!
//! *Place*: beside verbs, which do not tell the kind of a GID in every version. *Owner*: plain values.
//! *Invariants*: empty entries of a table are left out. *On failure*: what cannot be read is not there.

use std::fs;
#[cfg(any(feature = "verbs", test))]
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::path::Path;

/// What a GID is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GidKind {
    /// InfiniBand, or RoCE version 1, which no router forwards.
    Ib,
    /// RoCE version 2: over UDP.
    RoceV2,
}

/// An address of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gid {
    /// Its place in the port's table.
    pub index: u32,
    /// The address; an IPv4 address as ::ffff:a.b.c.d.
    pub address: Ipv6Addr,
    /// What it is for.
    pub kind: GidKind,
}

impl Gid {
    /// The one that connections should use: RoCE v2 of an IPv4 address, else RoCE v2 of an IPv6 address that
    /// is routed, else the first.
    #[must_use]
    pub fn preferred(gids: &[Self]) -> Option<Self> {
        let rank = |gid: &Self| match (gid.kind, gid.address.to_ipv4_mapped()) {
            (GidKind::RoceV2, Some(_)) => 0,
            (GidKind::RoceV2, None) if !gid.address.is_unicast_link_local() => 1,
            (GidKind::RoceV2, None) => 2,
            (GidKind::Ib, _) => 3,
        };
        gids.iter()
            .copied()
            .min_by_key(|gid| (rank(gid), gid.index))
    }

    /// Those of a port, in order, of which the kernel tells in this folder: `…/infiniband/DEVICE/ports/NUMBER`.
    #[must_use]
    pub fn of_port(port: &Path) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(port.join("gids")) else {
            return Vec::new();
        };
        let mut gids: Vec<Self> = entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                gid(port, &name)
            })
            .collect();
        gids.sort_by_key(|gid| gid.index);
        gids
    }
}

/// The GIDs of a port of this host.
#[cfg(feature = "verbs")]
pub(crate) fn gids(device: &str, port: u8) -> Vec<Gid> {
    Gid::of_port(
        &Path::new("/sys/class/infiniband")
            .join(device)
            .join("ports")
            .join(port.to_string()),
    )
}

/// The device one of whose ports has that address as a GID: of RoCE, and of no InfiniBand.
#[cfg(feature = "verbs")]
#[must_use]
pub fn device_with(address: IpAddr) -> Option<String> {
    device_in(Path::new("/sys/class/infiniband"), address)
}

#[cfg(any(feature = "verbs", test))]
fn device_in(devices: &Path, address: IpAddr) -> Option<String> {
    let wanted = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let has_it = |device: &Path| {
        let ports = fs::read_dir(device.join("ports"));
        let mut ports = ports.into_iter().flatten().flatten();
        ports.any(|port| {
            let gids = Gid::of_port(&port.path());
            gids.iter().any(|gid| gid.address == wanted)
        })
    };
    let mut found: Vec<String> = fs::read_dir(devices)
        .ok()?
        .flatten()
        .filter(|device| has_it(&device.path()))
        .filter_map(|device| device.file_name().into_string().ok())
        .collect();
    found.sort();
    found.into_iter().next()
}

fn gid(port: &Path, name: &str) -> Option<Gid> {
    let index = name.parse().ok()?;
    let address = fs::read_to_string(port.join("gids").join(name)).ok()?;
    let address: Ipv6Addr = address.trim().parse().ok()?;
    if address.is_unspecified() {
        return None;
    }
    // The kind of an empty entry cannot be read, and one that has gone meanwhile is no entry.
    let kind = fs::read_to_string(port.join("gid_attrs/types").join(name)).ok()?;
    let kind = match kind.trim() {
        "RoCE v2" => GidKind::RoceV2,
        _ => GidKind::Ib,
    };
    Some(Gid {
        index,
        address,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::{Gid, GidKind, device_in};
    use std::fs;

    #[test]
    fn a_device_is_found_by_its_address() {
        let devices = std::env::temp_dir().join(format!("ogee-devices-{}", std::process::id()));
        for (device, address) in [
            ("mlx5_0", "0000:0000:0000:0000:0000:ffff:0a09:0001"),
            ("mlx5_1", "0000:0000:0000:0000:0000:ffff:0a0a:0001"),
        ] {
            let port = devices.join(device).join("ports/1");
            fs::create_dir_all(port.join("gids")).expect("a folder");
            fs::create_dir_all(port.join("gid_attrs/types")).expect("a folder");
            fs::write(port.join("gids/0"), address).expect("a file");
            fs::write(port.join("gid_attrs/types/0"), "RoCE v2").expect("a file");
        }
        let found = |address: &str| device_in(&devices, address.parse().expect("an address"));
        assert_eq!(found("10.9.0.1").as_deref(), Some("mlx5_0"));
        assert_eq!(found("10.10.0.1").as_deref(), Some("mlx5_1"));
        assert_eq!(found("10.11.0.1"), None);
        fs::remove_dir_all(&devices).expect("removed");
        assert_eq!(found("10.9.0.1"), None);
    }

    /// A port as the kernel shows one.
    fn port(entries: &[(&str, &str, &str)]) -> std::path::PathBuf {
        let port = std::env::temp_dir().join(format!("ogee-gids-{}", std::process::id()));
        fs::create_dir_all(port.join("gids")).expect("a folder");
        fs::create_dir_all(port.join("gid_attrs/types")).expect("a folder");
        for (name, address, kind) in entries {
            fs::write(port.join("gids").join(name), address).expect("a file");
            fs::write(port.join("gid_attrs/types").join(name), kind).expect("a file");
        }
        port
    }

    #[test]
    fn routed_ones_of_roce_v2_come_first_and_empty_ones_are_left_out() {
        let port = port(&[
            (
                "0",
                "fe80:0000:0000:0000:0202:c9ff:fe00:0001\n",
                "RoCE v2\n",
            ),
            (
                "1",
                "0000:0000:0000:0000:0000:0000:0000:0000\n",
                "IB/RoCE v1\n",
            ),
            (
                "2",
                "0000:0000:0000:0000:0000:ffff:0a09:0001\n",
                "IB/RoCE v1\n",
            ),
            (
                "3",
                "0000:0000:0000:0000:0000:ffff:0a09:0001\n",
                "RoCE v2\n",
            ),
            (
                "10",
                "2001:0db8:0000:0000:0000:0000:0000:0001\n",
                "RoCE v2\n",
            ),
        ]);
        let gids = Gid::of_port(&port);
        fs::remove_dir_all(&port).expect("removed");
        let indexes: Vec<u32> = gids.iter().map(|gid| gid.index).collect();
        assert_eq!(indexes, [0, 2, 3, 10]);
        let best = |gids: &[Gid]| Gid::preferred(gids).map(|gid| gid.index);
        assert_eq!(best(&gids), Some(3));
        let without: Vec<Gid> = gids.iter().copied().filter(|gid| gid.index != 3).collect();
        assert_eq!(best(&without), Some(10));
        assert_eq!(gids[1].kind, GidKind::Ib);
        assert_eq!(best(&[]), None);
        assert!(Gid::of_port(&port).is_empty(), "there is no such port");
    }
}
