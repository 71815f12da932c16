//! RDMA as its libraries show it: that they load, what devices take, and a write to ourselves.
//!
//! *Place*: checks of `ogee doctor` in builds with RDMA. *Owner*: what is opened is closed before it returns.
//! *Invariants*: no step waits without a limit. *On failure*: a finding in the words of the layer below.

use super::check::{CheckName, Finding, Fix, Verdict};
use super::limit::rdma_needs;
use super::rdma::Port;
use ogee_rdma::{DeviceInfo, RdmaError};

mod loopback;

/// All findings, for a host with so many shards.
pub(crate) fn findings(ports: &[Port], shards: u16, is_demanded: bool) -> Vec<Finding> {
    let mut findings = vec![Finding::ok(
        CheckName::RdmaBuild,
        "built with RDMA",
        "either",
    )];
    if ports.is_empty() && !is_demanded {
        return findings;
    }
    let devices = match ogee_rdma::devices() {
        Ok(devices) => {
            findings.push(libraries(Ok(())));
            devices
        }
        Err(RdmaError::NoDevice) => {
            // The check of devices has said so.
            findings.push(libraries(Ok(())));
            return findings;
        }
        Err(error) => {
            findings.push(libraries(Err(&error)));
            return findings;
        }
    };
    findings.extend(devices.iter().map(|device| limits(device, shards)));
    let active = ports.iter().filter(|port| port.is_active);
    findings.extend(active.map(check_loopback));
    findings
}

fn libraries(loaded: Result<(), &RdmaError>) -> Finding {
    let needed = "libibverbs and librdmacm load, and open the devices";
    let finding = |found: String| Finding::ok(CheckName::RdmaLibraries, found, needed);
    match loaded {
        Ok(()) => finding("both load".into()),
        Err(error) => {
            let fix = Fix::new("install rdma-core, and load its kernel modules").by(&[
                "apt-get install -y rdma-core ibverbs-providers librdmacm1",
                "modprobe rdma_ucm",
            ]);
            finding(error.to_string()).but(Verdict::Failed, fix)
        }
    }
}

/// What of a device shards need, and how much there is: (what, there is, of each shard, of all).
fn limits(device: &DeviceInfo, shards: u16) -> Finding {
    let needs = rdma_needs();
    let all = |each: u32| each.saturating_mul(shards.into());
    let table = [
        ("max_qp", device.pairs_max, all(needs.pairs)),
        ("max_qp_wr", device.pair_depth_max, needs.pair_depth),
        ("max_cq", device.completion_queues_max, all(1)),
        ("max_cqe", device.completions_max, needs.completions),
        ("max_srq", device.receive_queues_max, all(1)),
        ("max_srq_wr", device.receives_max, needs.receives),
        ("max_srq_sge", device.receive_parts_max, needs.parts),
        ("max_mr", device.regions_max, all(needs.regions)),
        ("max_mw", device.windows_max, all(needs.windows)),
        ("max_sge", device.send_parts_max, needs.parts),
        ("max_qp_rd_atom", device.reads_max, needs.reads),
    ];
    let show = |rows: &[&(&str, u32, u32)]| {
        let rows = rows
            .iter()
            .map(|(name, found, _)| format!("{name} {found}"));
        rows.collect::<Vec<_>>().join(", ")
    };
    let needed = table
        .iter()
        .map(|(name, _, needed)| format!("{name} {needed}"));
    let needed = needed.collect::<Vec<_>>().join(", ");
    let needed = format!("{needed}, for {shards} shards");
    let short: Vec<_> = table
        .iter()
        .filter(|(_, found, needed)| found < needed)
        .collect();
    if short.is_empty() {
        let found = show(&table.iter().collect::<Vec<_>>());
        return Finding::ok(CheckName::RdmaLimits, found, needed).of(&device.name);
    }
    let fix = Fix::new(
        "run fewer shards on this device, or expect fewer connections; the driver's or firmware's settings may \
         raise its limits",
    );
    let finding = Finding::ok(
        CheckName::RdmaLimits,
        format!("too few: {}", show(&short)),
        needed,
    );
    finding.but(Verdict::Warning, fix).of(&device.name)
}

fn check_loopback(port: &Port) -> Finding {
    let name = CheckName::RdmaLoopback;
    let needed = "an RDMA WRITE from this port to itself arrives";
    let finding = |found: String| Finding::ok(name, found, needed).of(&port.subject());
    let Some(address) = port.ip_address() else {
        let fix = Fix::new("give its network interface an IP address: connections are made by it");
        return finding("not tried: the port has no IP address".into()).but(Verdict::Warning, fix);
    };
    match loopback::write_to_self(&port.device, address) {
        Ok(took) => finding(format!(
            "4096 bytes to {address} in {} us",
            took.as_micros()
        )),
        Err(why) => {
            let text = "`rdma link` and `ip address` must show the same address on the port's interface; for rxe, \
                        let UDP port 4791 through the firewall";
            finding(why).but(Verdict::Failed, Fix::new(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DeviceInfo, RdmaError, Verdict, libraries, limits};

    fn device() -> DeviceInfo {
        DeviceInfo {
            name: "mlx5_0".into(),
            pairs_max: 256,
            pair_depth_max: 8192,
            completions_max: 1 << 20,
            receives_max: 32_767,
            reads_max: 16,
            windows_max: 1 << 20,
            completion_queues_max: 1 << 16,
            receive_queues_max: 1 << 16,
            regions_max: 1 << 20,
            send_parts_max: 30,
            receive_parts_max: 31,
            ports: Vec::new(),
        }
    }

    #[test]
    fn limits_that_are_too_small_for_the_shards_are_named() {
        assert_eq!(limits(&device(), 2).verdict, Verdict::Ok);
        let few = limits(&device(), 3);
        assert_eq!(
            (few.verdict, few.found.as_str()),
            (Verdict::Warning, "too few: max_qp 256")
        );
        assert!(
            few.needed.contains("max_qp 384") && few.needed.contains("3 shards"),
            "{few:?}"
        );
        let one = DeviceInfo {
            receive_parts_max: 1,
            ..device()
        };
        assert_eq!(limits(&one, 1).found, "too few: max_srq_sge 1");
    }

    #[test]
    fn a_library_that_is_missing_is_told_in_the_loaders_words() {
        let error = RdmaError::Library {
            library: "libibverbs.so.1",
            reason: "no such file".into(),
        };
        let finding = libraries(Err(&error));
        assert_eq!(finding.verdict, Verdict::Failed);
        assert!(finding.found.contains("libibverbs.so.1"), "{finding:?}");
        let fix = finding.fix.expect("a fix");
        assert!(fix.commands[0].contains("rdma-core"), "{fix:?}");
    }
}
