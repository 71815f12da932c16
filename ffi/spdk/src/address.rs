//! PCI addresses.
//!
//! *Place*: how a drive is named. *Owner*: plain values. *Invariants*: written one way, with the domain, whatever way it
//! was read. *On failure*: [`SpdkError::Address`].

use crate::error::SpdkError;
use std::fmt;
use std::str::FromStr;

/// Devices of a bus, and functions of a device, in three and five bits.
const DEVICE_MAX: u8 = 31;
const FUNCTION_MAX: u8 = 7;

/// Where a controller is: domain, bus, device, function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl FromStr for PciAddress {
    type Err = SpdkError;

    /// `0000:65:00.0`, or `65:00.0` in domain 0.
    fn from_str(text: &str) -> Result<Self, SpdkError> {
        parse(text).ok_or_else(|| SpdkError::Address { text: text.into() })
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
    let byte = |text: &str| digits(text, 2).and_then(|value| u8::try_from(value).ok());
    Some(PciAddress {
        domain: digits(domain, 8)?,
        bus: byte(bus)?,
        device: byte(device).filter(|device| *device <= DEVICE_MAX)?,
        function: byte(function).filter(|function| *function <= FUNCTION_MAX)?,
    })
}

/// Hexadecimal, without a sign.
fn digits(text: &str, length_max: usize) -> Option<u32> {
    let is_plain = !text.is_empty()
        && text.len() <= length_max
        && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u32::from_str_radix(text, 16).ok().filter(|_| is_plain)
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

#[cfg(test)]
mod tests {
    use super::PciAddress;

    #[test]
    fn addresses_are_read_with_and_without_a_domain() {
        for (text, written) in [
            ("0000:00:04.0", "0000:00:04.0"),
            ("65:1f.7", "0000:65:1f.7"),
            ("10001:C0:00.0", "10001:c0:00.0"),
            ("0:4:0.0", "0000:04:00.0"),
        ] {
            let address: PciAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), written);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        for text in [
            "",
            "4",
            "nvme0",
            "00:04",
            "0000:00:20.0",
            "0000:00:04.8",
            "0000:100:04.0",
            "0000:00:+4.0",
            "a:0:0:4.0",
            "0000:00:04.0 ",
            "/dev/nvme0n1",
        ] {
            let error = text.parse::<PciAddress>().expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
