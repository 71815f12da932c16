//! What kind of device data is on.

use std::fmt;

/// Told by a chunkserver, wanted by a pool.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum MediaClass {
    /// It turns.
    Hdd,
    /// Flash behind SATA or SAS, or a virtual disk that says it does not turn.
    Ssd,
    /// Flash behind PCIe.
    Nvme,
}

/// No class goes by that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no class of devices: hdd, ssd or nvme")]
pub struct NoClass(pub String);

impl MediaClass {
    /// As commands, configuration and messages spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hdd => "hdd",
            Self::Ssd => "ssd",
            Self::Nvme => "nvme",
        }
    }
}

impl fmt::Display for MediaClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for MediaClass {
    type Err = NoClass;

    fn from_str(text: &str) -> Result<Self, NoClass> {
        let all = [Self::Hdd, Self::Ssd, Self::Nvme];
        let found = all.into_iter().find(|class| class.as_str() == text);
        found.ok_or_else(|| NoClass(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::MediaClass;

    #[test]
    fn each_is_read_as_it_is_written() {
        for class in [MediaClass::Hdd, MediaClass::Ssd, MediaClass::Nvme] {
            assert_eq!(class.to_string().parse(), Ok(class));
        }
        for wrong in ["", "HDD", "tape"] {
            let refused = wrong.parse::<MediaClass>().unwrap_err();
            assert!(refused.to_string().contains("hdd, ssd or nvme"));
        }
    }
}
