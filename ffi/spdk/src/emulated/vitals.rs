//! What an emulated drive says of its own health.

use crate::page::HealthPage;

const KELVIN: u16 = 273;

/// See [`HealthPage`]; the rest of it is zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DriveVitals {
    /// Bits of its first byte.
    pub critical_warning: u8,
    /// Temperature.
    pub celsius: u16,
    /// Spare blocks that are left.
    pub spare_percent: u8,
    /// Below so many it warns.
    pub spare_threshold_percent: u8,
    /// Of the life that its maker gives it.
    pub used_percent: u8,
    /// Times that it found data it could not read.
    pub media_errors: u64,
}

impl Default for DriveVitals {
    fn default() -> Self {
        Self {
            critical_warning: 0,
            celsius: 40,
            spare_percent: 100,
            spare_threshold_percent: 10,
            used_percent: 1,
            media_errors: 0,
        }
    }
}

impl DriveVitals {
    pub(super) fn page(&self) -> HealthPage {
        let mut page = [0; size_of::<HealthPage>()];
        page[0] = self.critical_warning;
        page[1..3].copy_from_slice(&(self.celsius + KELVIN).to_le_bytes());
        page[3] = self.spare_percent;
        page[4] = self.spare_threshold_percent;
        page[5] = self.used_percent;
        page[160..168].copy_from_slice(&self.media_errors.to_le_bytes());
        page
    }
}
