//! Whose a volume is, and the labels that programs and people tell volumes by.

use std::collections::{BTreeMap, BTreeSet};

use ogee_proto::name::{Name, PathName};
use serde::{Deserialize, Serialize};

use super::command::{Outcome, Reply};
use super::model::State;
use super::quota::Usage;
use super::refusal::Refusal;
use super::topology::check_text;
use crate::limit::{LABELS_MAX, TEXT_LEN_MAX};

/// Labels of a volume.
pub type Labels = BTreeMap<Name, String>;

/// See [`super::Command::SetVolume`]. What is not given stays as it is. Idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetVolume {
    /// Which.
    pub name: PathName,
    /// Free text.
    pub owner: Option<String>,
    /// Set, or set anew.
    pub labels: Labels,
    /// Taken off first; those that it does not have are passed over.
    pub unlabel: BTreeSet<Name>,
}

/// Whether a volume may have these labels.
pub(super) fn check_labels(name: &PathName, labels: &Labels) -> Result<(), Refusal> {
    let is_good = |value: &str| value.len() <= TEXT_LEN_MAX && !value.contains(char::is_control);
    if let Some((key, _)) = labels.iter().find(|(_, value)| !is_good(value)) {
        return Err(Refusal::BadLabel { key: key.clone() });
    }
    match labels.len() {
        count if count > LABELS_MAX => Err(Refusal::TooManyLabels {
            name: name.clone(),
            count,
        }),
        _ => Ok(()),
    }
}

impl State {
    pub(super) fn set_volume(&mut self, command: &SetVolume) -> Outcome {
        let (id, volume) = self.volume(command.name.as_str())?;
        let mut next = volume.clone();
        if let Some(owner) = &command.owner
            && *owner != volume.owner
        {
            check_text("owner", owner)?;
            self.check_quotas(Some(owner), std::iter::empty(), Usage::of([volume]))?;
            next.owner.clone_from(owner);
        }
        next.labels.retain(|key, _| !command.unlabel.contains(key));
        next.labels.extend(command.labels.clone());
        check_labels(&command.name, &next.labels)?;
        let answer = Box::new(next.clone());
        self.volumes.insert(id, next);
        Ok(Reply::Volume(id, answer))
    }
}
