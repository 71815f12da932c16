//! RDMA devices as the kernel shows them: needs no library, and no feature.
//!
//! *Place*: checks of `ogee doctor`. *Owner*: plain values. *Invariants*: a host without devices is fine, unless
//! it was said to have some. *On failure*: a finding.

use super::check::{CheckName, Finding, Fix, Verdict};
use super::host::{locked, raise_memlock};
use super::limit::{RDMA_HEADERS, RDMA_MTU_WANTED, rdma_needs};
use super::tree::Tree;
use crate::output::human;
use ogee_rdma::{Gid, GidKind};

const CLASS: &str = "sys/class/infiniband";

/// A port of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Port {
    pub(crate) device: String,
    pub(crate) number: u8,
    pub(crate) is_active: bool,
    state: String,
    is_ethernet: bool,
    netdev: Option<String>,
    netdev_mtu: Option<u32>,
    /// The address that connections will use.
    pub(crate) gid: Option<Gid>,
}

impl Port {
    /// What connections are made by: an IP address that can be written without naming an interface.
    #[cfg(feature = "rdma")]
    pub(crate) fn ip_address(&self) -> Option<std::net::IpAddr> {
        let address = self.gid.filter(|_| self.is_ethernet)?.address;
        match address.to_ipv4_mapped() {
            Some(address) => Some(address.into()),
            None if !address.is_unicast_link_local() => Some(address.into()),
            None => None,
        }
    }

    pub(crate) fn subject(&self) -> String {
        format!("{} port {}", self.device, self.number)
    }
}

/// All findings, for a host with so many shards.
pub(crate) fn findings(tree: &Tree, shards: u16, is_demanded: bool) -> Vec<Finding> {
    let devices = tree.names(CLASS);
    let mut findings = vec![device(&devices, is_demanded)];
    if devices.is_empty() {
        return findings;
    }
    let ports = ports(tree);
    let has_active = ports.iter().any(|port| port.is_active);
    for port in &ports {
        findings.push(check_port(port, has_active));
        // Of a port that nobody plugged in, no more is of interest.
        if port.is_active || !has_active {
            findings.extend(mtu(port));
            findings.push(gid(port));
        }
    }
    findings.push(memlock(tree, shards));
    findings
}

/// All ports of all devices.
pub(crate) fn ports(tree: &Tree) -> Vec<Port> {
    let mut ports = Vec::new();
    for device in tree.names(CLASS) {
        let numbers = tree.names(format!("{CLASS}/{device}/ports"));
        let numbers = numbers.iter().filter_map(|number| number.parse().ok());
        ports.extend(numbers.map(|number| port(tree, &device, number)));
    }
    ports
}

fn port(tree: &Tree, device: &str, number: u8) -> Port {
    let at = format!("{CLASS}/{device}/ports/{number}");
    let state = tree.read(format!("{at}/state")).unwrap_or_default();
    let gid = Gid::preferred(&Gid::of_port(&tree.path(&at)));
    let index = gid.map_or(0, |gid| gid.index);
    let netdev = tree.read(format!("{at}/gid_attrs/ndevs/{index}"));
    let netdev_mtu = netdev.as_ref().and_then(|netdev| {
        let mtu = tree.read(format!("sys/class/net/{netdev}/mtu"))?;
        mtu.parse().ok()
    });
    Port {
        device: device.to_owned(),
        number,
        is_active: state.ends_with("ACTIVE"),
        is_ethernet: tree.read(format!("{at}/link_layer")).as_deref() == Some("Ethernet"),
        state,
        netdev,
        netdev_mtu,
        gid,
    }
}

fn device(devices: &[String], is_demanded: bool) -> Finding {
    let name = CheckName::RdmaDevice;
    let needed = match is_demanded {
        true => "a device",
        false => "none, for transport over TCP",
    };
    if !devices.is_empty() {
        return Finding::ok(name, devices.join(", "), needed);
    }
    let finding = Finding::ok(name, "none", needed);
    if !is_demanded {
        return finding;
    }
    let text = "load the driver of the adapter (`lspci` shows which), or for a trial without one rdma_rxe on \
                a network interface";
    let commands = [
        "modprobe rdma_rxe",
        "rdma link add rxe0 type rxe netdev INTERFACE",
    ];
    finding.but(Verdict::Failed, Fix::new(text).by(&commands))
}

/// One that works is enough: the other of an adapter is often not plugged in.
fn check_port(port: &Port, has_active: bool) -> Finding {
    let layer = if port.is_ethernet {
        "Ethernet (RoCE)"
    } else {
        "InfiniBand"
    };
    let state = port
        .state
        .split_once(": ")
        .map_or(port.state.as_str(), |(_, state)| state);
    let over = port
        .netdev
        .as_ref()
        .map_or_else(String::new, |netdev| format!(" over {netdev}"));
    let found = format!("{state}, {layer}{over}");
    let finding = Finding::ok(CheckName::RdmaPort, found, "ACTIVE").of(&port.subject());
    if port.is_active {
        return finding;
    }
    let fix = match (&port.netdev, port.is_ethernet) {
        (Some(netdev), _) => Fix::new(format!(
            "bring {netdev} up; if it is, look at cable, transceiver and switch port"
        ))
        .by(&[&format!("ip link set {netdev} up")]),
        (None, true) => Fix::new("bring its network interface up: `rdma link` names it"),
        (None, false) => Fix::new("look at the cable, and at the subnet manager (`sminfo`)"),
    };
    let verdict = if has_active {
        Verdict::Warning
    } else {
        Verdict::Failed
    };
    finding.but(verdict, fix)
}

fn mtu(port: &Port) -> Option<Finding> {
    let netdev_mtu = port.netdev_mtu.filter(|_| port.is_ethernet)?;
    let netdev = port.netdev.as_deref().unwrap_or_default();
    let roce = roce_mtu(netdev_mtu);
    let found = format!("{roce} bytes a packet: {netdev} has an MTU of {netdev_mtu}");
    let needed = format!("{RDMA_MTU_WANTED} for large requests");
    let finding = Finding::ok(CheckName::RdmaMtu, found, needed).of(&port.subject());
    if roce >= RDMA_MTU_WANTED {
        return Some(finding);
    }
    let text = "set an MTU of 4200 or more (9000 is usual) here, on every host, and on the switches between";
    let command = format!("ip link set {netdev} mtu 9000");
    Some(finding.but(Verdict::Warning, Fix::new(text).by(&[&command])))
}

/// The largest packet of RoCE in an Ethernet packet.
fn roce_mtu(netdev_mtu: u32) -> u32 {
    let room = netdev_mtu.saturating_sub(RDMA_HEADERS);
    let sizes = [4096, 2048, 1024, 512, 256];
    sizes.into_iter().find(|size| *size <= room).unwrap_or(0)
}

fn gid(port: &Port) -> Finding {
    let name = CheckName::RdmaGid;
    let needed = match port.is_ethernet {
        true => "RoCE v2 of an IPv4 address",
        false => "any",
    };
    let subject = port.subject();
    let Some(gid) = port.gid else {
        let text = "give the port's network interface an IPv4 address";
        let finding = Finding::ok(name, "none", needed).of(&subject);
        return finding.but(Verdict::Failed, Fix::new(text));
    };
    let is_roce_v2 = gid.kind == GidKind::RoceV2;
    let kind = match (port.is_ethernet, is_roce_v2) {
        (true, true) => " (RoCE v2)",
        (true, false) => " (RoCE v1)",
        (false, _) => "",
    };
    let address = match gid.address.to_ipv4_mapped() {
        Some(address) => address.to_string(),
        None => gid.address.to_string(),
    };
    let found = format!("index {}: {address}{kind}", gid.index);
    let finding = Finding::ok(name, found, needed).of(&subject);
    if !port.is_ethernet || (is_roce_v2 && gid.address.to_ipv4_mapped().is_some()) {
        return finding;
    }
    let netdev = port.netdev.as_deref().unwrap_or("INTERFACE");
    let command = format!("ip address add ADDRESS/PREFIX dev {netdev}");
    let (verdict, text) = match is_roce_v2 {
        true => (
            Verdict::Warning,
            "give its network interface an IPv4 address",
        ),
        false => (
            Verdict::Failed,
            "RoCE v1 is not routed: switch the adapter to RoCE v2, and give its interface an IPv4 address",
        ),
    };
    finding.but(verdict, Fix::new(text).by(&[&command]))
}

fn memlock(tree: &Tree, shards: u16) -> Finding {
    let needs = rdma_needs();
    let bytes = needs.locked_bytes * u64::from(shards);
    // How much that is only who serves guests, or programs, knows.
    let needed = format!(
        "{} that {shards} shards lock; beside that, all memory of the guests that a shard serves, or that a program registers ({} at most)",
        human(bytes),
        human(needs.others_bytes_max)
    );
    let (found, is_enough) = locked(tree, bytes);
    let finding = Finding::ok(CheckName::RdmaMemlock, found, needed);
    match is_enough {
        true => finding,
        false => finding.but(Verdict::Failed, raise_memlock(&human(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::{CheckName, Finding, Tree, Verdict, findings, rdma_needs, roce_mtu};
    use crate::doctor::tree::put;
    use std::path::Path;

    /// A RoCE port on `eth0`, as Linux shows one; tables of addresses are (index, address, kind).
    fn roce(root: &Path, state: &str, mtu: u32, gids: &[(u32, &str, &str)]) {
        let port = "sys/class/infiniband/mlx5_0/ports/1";
        put(root, &format!("{port}/state"), &format!("{state}\n"));
        put(root, &format!("{port}/link_layer"), "Ethernet\n");
        put(root, "sys/class/net/eth0/mtu", &format!("{mtu}\n"));
        for (index, address, kind) in gids {
            put(
                root,
                &format!("{port}/gids/{index}"),
                &format!("{address}\n"),
            );
            put(
                root,
                &format!("{port}/gid_attrs/types/{index}"),
                &format!("{kind}\n"),
            );
            put(root, &format!("{port}/gid_attrs/ndevs/{index}"), "eth0\n");
        }
        put(
            root,
            "proc/self/limits",
            "Max locked memory         unlimited   unlimited   bytes\n",
        );
    }

    const LOCAL: (u32, &str, &str) = (1, "fe80:0000:0000:0000:0202:c9ff:fe00:0001", "RoCE v2");
    const OLD: (u32, &str, &str) = (2, "0000:0000:0000:0000:0000:ffff:0a09:0001", "IB/RoCE v1");
    const GOOD: (u32, &str, &str) = (3, "0000:0000:0000:0000:0000:ffff:0a09:0001", "RoCE v2");
    const NONE: (u32, &str, &str) = (0, "0000:0000:0000:0000:0000:0000:0000:0000", "RoCE v2");

    fn found(root: &Path) -> Vec<Finding> {
        findings(&Tree::at(root), 4, true)
    }

    fn of(findings: &[Finding], name: CheckName) -> Finding {
        let mut those = findings.iter().filter(|finding| finding.name == name);
        those.next().expect("there is one").clone()
    }

    fn fix(finding: &Finding) -> String {
        let fix = finding.fix.as_ref().expect("a fix");
        format!("{} {}", fix.text, fix.commands.join(" "))
    }

    #[test]
    fn a_port_that_works_is_fine_and_its_gid_is_told() {
        let root = tempfile::tempdir().expect("a folder");
        roce(root.path(), "4: ACTIVE", 9000, &[NONE, LOCAL, OLD, GOOD]);
        let found = found(root.path());
        assert!(
            found.iter().all(|finding| finding.verdict == Verdict::Ok),
            "{found:?}"
        );
        let gid = of(&found, CheckName::RdmaGid);
        assert_eq!(gid.found, "index 3: 10.9.0.1 (RoCE v2)");
        assert_eq!(gid.subject, "mlx5_0 port 1");
        assert_eq!(
            of(&found, CheckName::RdmaPort).found,
            "ACTIVE, Ethernet (RoCE) over eth0"
        );
        assert!(of(&found, CheckName::RdmaMtu).found.starts_with("4096 "));
    }

    #[test]
    fn a_port_that_is_down_fails_with_its_interface() {
        let root = tempfile::tempdir().expect("a folder");
        roce(root.path(), "1: DOWN", 1500, &[GOOD]);
        let found = found(root.path());
        let port = of(&found, CheckName::RdmaPort);
        assert_eq!(
            (port.verdict, port.found.as_str()),
            (Verdict::Failed, "DOWN, Ethernet (RoCE) over eth0")
        );
        assert!(fix(&port).contains("ip link set eth0 up"), "{port:?}");
        let mtu = of(&found, CheckName::RdmaMtu);
        assert_eq!(mtu.verdict, Verdict::Warning);
        assert!(
            mtu.found.starts_with("1024 ") && fix(&mtu).contains("mtu 9000"),
            "{mtu:?}"
        );
    }

    #[test]
    fn a_second_port_that_is_not_plugged_in_is_only_told() {
        let root = tempfile::tempdir().expect("a folder");
        roce(root.path(), "4: ACTIVE", 9000, &[GOOD]);
        let port = "sys/class/infiniband/mlx5_0/ports/2";
        put(root.path(), &format!("{port}/state"), "1: DOWN\n");
        put(root.path(), &format!("{port}/link_layer"), "Ethernet\n");
        let found = found(root.path());
        let of_port: Vec<_> = found
            .iter()
            .filter(|finding| finding.subject == "mlx5_0 port 2")
            .collect();
        assert_eq!(of_port.len(), 1, "{found:?}");
        assert_eq!(of_port[0].verdict, Verdict::Warning);
        assert_eq!(crate::doctor::check::worst(&found), Verdict::Warning);
    }

    #[test]
    fn addresses_that_connections_should_not_use_are_told() {
        for (gids, verdict, part) in [
            (vec![LOCAL, OLD], Verdict::Warning, "IPv4 address"),
            (vec![OLD], Verdict::Failed, "RoCE v2"),
            (vec![NONE], Verdict::Failed, "IPv4 address"),
        ] {
            let root = tempfile::tempdir().expect("a folder");
            roce(root.path(), "4: ACTIVE", 9000, &gids);
            let gid = of(&found(root.path()), CheckName::RdmaGid);
            assert_eq!(gid.verdict, verdict, "{gid:?}");
            assert!(fix(&gid).contains(part), "{gid:?}");
        }
    }

    #[test]
    fn infiniband_needs_no_ip_address() {
        let root = tempfile::tempdir().expect("a folder");
        let port = "sys/class/infiniband/mlx4_0/ports/2";
        for (path, text) in [
            ("state", "2: INIT"),
            ("link_layer", "InfiniBand"),
            ("gids/0", "fe80:0000:0000:0000:0002:c903:0012:3456"),
            ("gid_attrs/types/0", "IB/RoCE v1"),
        ] {
            put(root.path(), &format!("{port}/{path}"), text);
        }
        let found = found(root.path());
        assert_eq!(of(&found, CheckName::RdmaGid).verdict, Verdict::Ok);
        let port = of(&found, CheckName::RdmaPort);
        assert!(
            port.verdict == Verdict::Failed && fix(&port).contains("subnet manager"),
            "{port:?}"
        );
        assert!(
            found
                .iter()
                .all(|finding| finding.name != CheckName::RdmaMtu)
        );
    }

    #[test]
    fn no_device_fails_only_where_one_is_demanded() {
        let root = tempfile::tempdir().expect("a folder");
        let tree = Tree::at(root.path());
        let relaxed = findings(&tree, 1, false);
        assert_eq!((relaxed.len(), relaxed[0].verdict), (1, Verdict::Ok));
        let demanded = findings(&tree, 1, true);
        assert!(demanded[0].verdict == Verdict::Failed && fix(&demanded[0]).contains("rdma_rxe"));
    }

    #[test]
    fn locked_memory_is_for_all_shards() {
        let root = tempfile::tempdir().expect("a folder");
        roce(root.path(), "4: ACTIVE", 9000, &[GOOD]);
        let limit = rdma_needs().locked_bytes * 5 / 2;
        put(
            root.path(),
            "proc/self/limits",
            &format!("Max locked memory         {limit}   {limit}   bytes\n"),
        );
        let verdict = |shards| {
            let found = findings(&Tree::at(root.path()), shards, true);
            of(&found, CheckName::RdmaMemlock).verdict
        };
        assert_eq!((verdict(2), verdict(3)), (Verdict::Ok, Verdict::Failed));
        let found = findings(&Tree::at(root.path()), 2, true);
        let needed = &of(&found, CheckName::RdmaMemlock).needed;
        assert!(needed.contains("memory of the guests"), "{needed}");
    }

    #[test]
    fn packets_of_roce_fit_into_those_of_ethernet() {
        let sizes = [9000, 4200, 4171, 1500, 1280, 200].map(roce_mtu);
        assert_eq!(sizes, [4096, 4096, 2048, 1024, 1024, 0]);
    }
}
