//! What a check finds.
//!
//! *Place*: made by `host`, `rdma` and `verbs`, shown by `print`. *Owner*: plain values.
//! *Invariants*: names are a contract, as JSON fields are. A finding that is not fine has a fix.
//! *On failure*: it is the failure.

use clap::ValueEnum;

/// What is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum CheckName {
    /// Version of the kernel.
    Kernel,
    /// Whether this user may use io_uring, here.
    IoUring,
    /// Limit of locked memory against what executors register.
    Memlock,
    /// Limit of open files.
    OpenFiles,
    /// Whether this binary has RDMA in it.
    RdmaBuild,
    /// Whether there is an RDMA device.
    RdmaDevice,
    /// Whether its ports are ACTIVE, and their link layer.
    RdmaPort,
    /// Packet size of its ports.
    RdmaMtu,
    /// The address that connections will use.
    RdmaGid,
    /// Limit of locked memory against what RDMA registers.
    RdmaMemlock,
    /// Whether rdma-core's libraries can be loaded.
    RdmaLibraries,
    /// Limits of the device against what shards need of it.
    RdmaLimits,
    /// An RDMA WRITE from this host to itself.
    RdmaLoopback,
    /// Which driver has an NVMe controller: the kernel's, or one for user space.
    NvmeDriver,
    /// Whether controllers with vfio-pci are behind an IOMMU.
    NvmeIommu,
    /// Memory for controllers in user space.
    NvmeHugepages,
    /// Whether this binary has SPDK in it.
    NvmeBuild,
}

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    pub(crate) name: CheckName,
    /// Which device or port, if there are several.
    pub(crate) subject: String,
    pub(crate) verdict: Verdict,
    pub(crate) found: String,
    pub(crate) needed: String,
    pub(crate) fix: Option<Fix>,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fix {
    pub(crate) text: String,
    /// As root; empty if it cannot be said in a command.
    pub(crate) commands: Vec<String>,
}

impl CheckName {
    /// Those that open devices.
    pub(crate) const OF_VERBS: [Self; 4] = [
        Self::RdmaBuild,
        Self::RdmaLibraries,
        Self::RdmaLimits,
        Self::RdmaLoopback,
    ];

    /// Whether a host that uses TCP can do without.
    pub(crate) const fn is_of_rdma(self) -> bool {
        !matches!(
            self,
            Self::Kernel
                | Self::IoUring
                | Self::Memlock
                | Self::OpenFiles
                | Self::NvmeDriver
                | Self::NvmeIommu
                | Self::NvmeHugepages
                | Self::NvmeBuild
        )
    }

    /// As it is written.
    pub(crate) fn text(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl Verdict {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

impl Fix {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            commands: Vec::new(),
        }
    }

    /// The same, in commands.
    pub(crate) fn by(mut self, commands: &[impl AsRef<str>]) -> Self {
        let commands = commands.iter().map(|command| command.as_ref().to_owned());
        self.commands = commands.collect();
        self
    }
}

impl Finding {
    pub(crate) fn ok(name: CheckName, found: impl Into<String>, needed: impl Into<String>) -> Self {
        Self {
            name,
            subject: String::new(),
            verdict: Verdict::Ok,
            found: found.into(),
            needed: needed.into(),
            fix: None,
        }
    }

    /// The same, not fine.
    pub(crate) fn but(mut self, verdict: Verdict, fix: Fix) -> Self {
        self.verdict = verdict;
        self.fix = Some(fix);
        self
    }

    /// The same where RDMA is not demanded: what is missing of it is told, and no failure.
    pub(crate) fn relaxed(mut self) -> Self {
        if self.name.is_of_rdma() && self.verdict == Verdict::Failed {
            self.verdict = Verdict::Warning;
        }
        self
    }

    /// The same, of one device or port.
    pub(crate) fn of(mut self, subject: &str) -> Self {
        subject.clone_into(&mut self.subject);
        self
    }
}

/// The worst of all verdicts.
pub(crate) fn worst(findings: &[Finding]) -> Verdict {
    let verdicts = findings.iter().map(|finding| finding.verdict);
    verdicts.max().unwrap_or(Verdict::Ok)
}

#[cfg(test)]
mod tests {
    use super::{CheckName, Finding, Fix, Verdict};

    #[test]
    fn only_what_rdma_lacks_is_relaxed() {
        let failed = |name| Finding::ok(name, "", "").but(Verdict::Failed, Fix::new("fix"));
        let relaxed = |name| failed(name).relaxed().verdict;
        assert_eq!(relaxed(CheckName::RdmaPort), Verdict::Warning);
        assert_eq!(relaxed(CheckName::Memlock), Verdict::Failed);
        let fine = Finding::ok(CheckName::RdmaPort, "", "").relaxed();
        assert_eq!(fine.verdict, Verdict::Ok);
    }
}
