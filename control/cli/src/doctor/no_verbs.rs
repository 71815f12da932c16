//! The checks that need verbs, in a build without them: that it has none.
//!
//! *Place*: in the place of `verbs`. *Owner*: plain values. *Invariants*: as there. *On failure*: a finding.

use super::check::{CheckName, Finding, Fix, Verdict};
use super::rdma::Port;

/// That this build has no RDMA; bad where there are ports to use.
pub(crate) fn findings(ports: &[Port], _shards: u16, is_demanded: bool) -> Vec<Finding> {
    let finding = Finding::ok(
        CheckName::RdmaBuild,
        "built without RDMA: libraries, limits and loopback are not checked",
        if is_demanded {
            "built with RDMA"
        } else {
            "either"
        },
    );
    let verdict = match (is_demanded, ports.is_empty()) {
        (true, _) => Verdict::Failed,
        (false, false) => Verdict::Warning,
        (false, true) => return vec![finding],
    };
    let text =
        "build it with the feature rdma; it wants libibverbs-dev, librdmacm-dev and libclang 14";
    let commands = ["cargo build --release -p ogee-cli --features rdma"];
    vec![finding.but(verdict, Fix::new(text).by(&commands))]
}

#[cfg(test)]
mod tests {
    use super::{Verdict, findings};

    #[test]
    fn a_build_without_rdma_says_how_to_get_it_where_it_is_wanted() {
        let verdict = |is_demanded| findings(&[], 1, is_demanded)[0].verdict;
        assert_eq!(
            (verdict(false), verdict(true)),
            (Verdict::Ok, Verdict::Failed)
        );
        let fix = findings(&[], 1, true)[0].fix.clone().expect("a fix");
        assert!(fix.commands[0].contains("--features rdma"));
    }
}
