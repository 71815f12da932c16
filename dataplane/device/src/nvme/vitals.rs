//! Asking a drive how it fares, every so often.
//!
//! *Place*: between the pump, which looks twice a second, and whoever reports. *Owner*: the drive's port. *Invariants*: one
//! question at a time; who owns the admin queue asks, and takes the answer in a later look, so nobody waits.
//! A warning is logged when it comes up, not again while it stays. *On failure*: the drive is used on: a drive that does not tell its
//! health may well store data. It is counted, and what was told before stays, marked as old.

use super::fault::NvmeFault;
use crate::health::DriveHealth;
use ogee_proto::drive::DriveWarnings;
use ogee_runtime::{Instant, now};
use ogee_spdk::Admin;
use std::cell::Cell;
use std::time::Duration;

/// What is known of a drive's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NvmeVitals {
    /// What it told last; `None`: it has not told anything yet.
    pub health: Option<DriveHealth>,
    /// How long ago that was.
    pub age: Duration,
    /// It did not tell when it was asked last.
    pub is_old: bool,
    /// Times that it did not, since it was opened.
    pub refusals: u64,
}

/// See the module.
pub(super) struct Vitals {
    every: Duration,
    told: Cell<Option<(DriveHealth, Instant)>>,
    is_old: Cell<bool>,
    refusals: Cell<u64>,
    next: Cell<Option<Instant>>,
    /// Since when an answer is waited for.
    asked: Cell<Option<Instant>>,
    /// It was said that none comes.
    is_late: Cell<bool>,
}

impl Vitals {
    pub(super) const fn new(every: Duration) -> Self {
        Self {
            every,
            told: Cell::new(None),
            is_old: Cell::new(false),
            refusals: Cell::new(0),
            next: Cell::new(None),
            asked: Cell::new(None),
            is_late: Cell::new(false),
        }
    }

    /// As it is known now.
    pub(super) fn get(&self) -> NvmeVitals {
        let told = self.told.get();
        NvmeVitals {
            health: told.map(|(health, _)| health),
            age: told.map_or(Duration::ZERO, |(_, at)| {
                now().saturating_duration_since(at)
            }),
            is_old: self.is_old.get(),
            refusals: self.refusals.get(),
        }
    }

    /// Takes the answer, if it is there, and asks again, if that is due. Behind a poll of the admin queue.
    pub(super) fn look(&self, admin: &Admin, device: &str, at: Instant, patience: Duration) {
        if let Some(answer) = admin.take_health() {
            self.asked.set(None);
            self.is_late.set(false);
            match answer {
                Ok(page) => self.take(DriveHealth::parse(&page), device, at),
                Err(status) => self.refused(device, &NvmeFault::Command(status)),
            }
        }
        match self.asked.get() {
            Some(since) => {
                let is_late = at.saturating_duration_since(since) >= patience;
                if is_late && !self.is_late.replace(true) {
                    let seconds = u16::try_from(patience.as_secs()).unwrap_or(u16::MAX);
                    tracing::warn!(device, seconds, "the drive does not tell its health");
                    self.is_old.set(true);
                    self.refusals.set(self.refusals.get() + 1);
                }
            }
            None if self.next.get().is_none_or(|next| at >= next) => self.ask(admin, device, at),
            None => {}
        }
    }

    fn ask(&self, admin: &Admin, device: &str, at: Instant) {
        self.next.set(Some(at + self.every));
        match admin.start_health() {
            Ok(()) => self.asked.set(Some(at)),
            Err(error) => self.refused(device, &error),
        }
    }

    fn take(&self, health: DriveHealth, device: &str, at: Instant) {
        let before = self.told.replace(Some((health, at)));
        let before = before.map_or(DriveWarnings::default(), |(health, _)| health.warnings);
        self.is_old.set(false);
        let new = health.warnings.without(before);
        if !new.is_empty() {
            tracing::warn!(
                device, warnings = %health.warnings, media_errors = health.media_errors, celsius = health.celsius,
                spare_percent = health.spare_percent, used_percent = health.used_percent,
                "the drive warns: look at it, and replace it (ogee device health, ogee device replace)"
            );
        } else if health.warnings.is_empty() && !before.is_empty() {
            tracing::info!(device, "the drive does not warn any more");
        }
    }

    /// Told of once, until it tells again.
    fn refused(&self, device: &str, why: &dyn std::fmt::Display) {
        self.refusals.set(self.refusals.get() + 1);
        if !self.is_old.replace(true) {
            tracing::warn!(device, error = %why, "the drive does not tell its health");
        }
    }
}
