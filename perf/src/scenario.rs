//! Workloads as files and flags give them.
//!
//! *Place*: between the command line, `scenarios/*.toml` and [`Workload`].
//! *Owner*: none; plain values. *Invariants*: flags win over a scenario, key by key; where two keys
//! exclude each other, a flag of one takes the scenario's other one away. Every file in `scenarios/`
//! is in the table here. *On failure*: [`ScenarioError`] names the value and what is possible.

use crate::arrivals::{Arrivals, Process};
use crate::distribution::Distribution;
use crate::rw::Rw;
use crate::sizes::Sizes;
use crate::workload::{Stop, Workload};
use ogee_proto::size::parse_size;
use ogee_proto::unit::{ByteLen, ByteOffset};
use serde::{Deserialize, Deserializer};
use std::fmt::Display;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// A named scenario: its name and its file.
type Named = (&'static str, &'static str);

macro_rules! named {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../scenarios/", $name, ".toml")))),*]
    };
}

const NAMED: [Named; 15] = named![
    "4k-randread-qd1",
    "4k-randread-qd32",
    "4k-randread-qd128",
    "4k-randwrite-qd1",
    "4k-randwrite-qd32",
    "4k-randwrite-qd128",
    "database",
    "vm",
    "64k-randread",
    "64k-randwrite",
    "1m-read",
    "1m-write",
    "failover",
    "many-volumes",
    "many-groups",
];

/// A workload in which everything may be left open. The keys are fio's, with `_` for `-`.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// What it is for.
    pub about: Option<String>,
    /// What to set up before.
    pub prepare: Option<String>,
    /// Which requests.
    #[serde(deserialize_with = "parsed")]
    pub rw: Option<Rw>,
    /// Share of reads of a mix, in percent.
    pub rwmixread: Option<u8>,
    /// Bytes of each request.
    #[serde(deserialize_with = "size")]
    pub bs: Option<ByteLen>,
    /// Bytes of the requests, with shares.
    #[serde(deserialize_with = "parsed")]
    pub bssplit: Option<Sizes>,
    /// Requests at a time of each job.
    pub iodepth: Option<u32>,
    /// Jobs on each target.
    pub numjobs: Option<u32>,
    /// Seconds to run.
    pub runtime: Option<u64>,
    /// Bytes to read and write instead.
    #[serde(deserialize_with = "size")]
    pub io_size: Option<ByteLen>,
    /// Seconds at the front that do not count.
    pub ramp_time: Option<u64>,
    /// Requests per second at most.
    pub rate_iops: Option<NonZeroU32>,
    /// Bytes per second at most.
    #[serde(deserialize_with = "size")]
    pub rate: Option<ByteLen>,
    /// Requests per second that become due in an open loop.
    pub arrival_rate: Option<NonZeroU32>,
    /// How they are spaced.
    #[serde(deserialize_with = "parsed")]
    pub rate_process: Option<Process>,
    /// Which places random requests go to.
    #[serde(deserialize_with = "parsed")]
    pub random_distribution: Option<Distribution>,
    /// Where the range starts.
    #[serde(deserialize_with = "size")]
    pub offset: Option<ByteLen>,
    /// How long it is.
    #[serde(deserialize_with = "size")]
    pub size: Option<ByteLen>,
    /// Of the addresses.
    pub seed: Option<u64>,
    /// Check what is read.
    pub verify: Option<bool>,
    /// Fewer targets make no sense.
    pub targets_min: Option<usize>,
    /// What happens to the cluster meanwhile, in order of time.
    pub event: Vec<Event>,
}

/// Something that happens to a process of a dev cluster during a run.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "EventForm")]
pub struct Event {
    /// Seconds since requests count.
    pub at: u64,
    /// What happens.
    pub what: EventKind,
}

/// What happens to a process of a dev cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// The process of this name is killed.
    Kill(String),
    /// The process of this name is started again.
    Start(String),
}

/// An event as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventForm {
    at: u64,
    kill: Option<String>,
    start: Option<String>,
}

impl TryFrom<EventForm> for Event {
    type Error = &'static str;

    fn try_from(form: EventForm) -> Result<Self, Self::Error> {
        let what = match (form.kill, form.start) {
            (Some(name), None) => EventKind::Kill(name),
            (None, Some(name)) => EventKind::Start(name),
            _ => return Err("an event has either kill = NAME or start = NAME"),
        };
        Ok(Self { at: form.at, what })
    }
}

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Neither a name nor a file.
    #[error(
        "\"{name}\" is neither a scenario nor a file; {}there are: {known}",
        near(suggestion)
    )]
    Unknown {
        /// As given.
        name: Box<str>,
        /// The nearest name.
        suggestion: Option<&'static str>,
        /// All names.
        known: Box<str>,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// As given.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a scenario.
    #[error("in {name}: {source}")]
    Form {
        /// As given.
        name: Box<str>,
        /// Line, value and what was due.
        source: Box<toml::de::Error>,
    },
    /// Two keys that exclude each other.
    #[error("{first} and {second} exclude each other: leave one of them out")]
    Both {
        /// A key.
        first: &'static str,
        /// Another one.
        second: &'static str,
    },
    /// A rate of nothing.
    #[error("a {0} of 0 would never send anything: give a larger one or leave it out")]
    Zero(&'static str),
    /// A percentage past 100.
    #[error("rwmixread of {0} must be from 0 to 100")]
    Percent(u8),
}

impl Spec {
    /// Names and descriptions of the scenarios that are built in.
    ///
    /// # Errors
    /// None that a test has not found.
    pub fn named() -> Result<Vec<(&'static str, Self)>, ScenarioError> {
        let each = NAMED.iter();
        each.map(|(name, text)| Ok((*name, Self::parse(name, text)?)))
            .collect()
    }

    /// The scenario of this name, or in this file.
    ///
    /// # Errors
    /// If there is neither, or it is not a scenario.
    pub fn load(name: &str) -> Result<Self, ScenarioError> {
        if let Some((_, text)) = NAMED.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        let path = Path::new(name);
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(name, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let known: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
                Err(ScenarioError::Unknown {
                    name: name.into(),
                    suggestion: nearest(name, &known),
                    known: known.join(", ").into(),
                })
            }
            Err(source) => Err(ScenarioError::Read {
                path: path.into(),
                source,
            }),
        }
    }

    fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let spec: Self = toml::from_str(text).map_err(|source| ScenarioError::Form {
            name: name.into(),
            source: Box::new(source),
        })?;
        spec.check()?;
        Ok(spec)
    }

    /// These keys, and those of `scenario` where they are open.
    #[must_use]
    pub fn over(self, scenario: Self) -> Self {
        let (mut flags, mut below) = (self, scenario);
        if flags.bs.is_some() || flags.bssplit.is_some() {
            (below.bs, below.bssplit) = (None, None);
        }
        if flags.runtime.is_some() || flags.io_size.is_some() {
            (below.runtime, below.io_size) = (None, None);
        }
        if flags.rate_iops.is_some() || flags.rate.is_some() || flags.arrival_rate.is_some() {
            (below.rate_iops, below.rate, below.arrival_rate) = (None, None, None);
        }
        // A mix that a flag asks for has the share of that flag.
        if flags.rw.is_some() {
            below.rwmixread = None;
        }
        if flags.event.is_empty() {
            flags.event = below.event;
        }
        Self {
            about: flags.about.or(below.about),
            prepare: flags.prepare.or(below.prepare),
            rw: flags.rw.or(below.rw),
            rwmixread: flags.rwmixread.or(below.rwmixread),
            bs: flags.bs.or(below.bs),
            bssplit: flags.bssplit.or(below.bssplit),
            iodepth: flags.iodepth.or(below.iodepth),
            numjobs: flags.numjobs.or(below.numjobs),
            runtime: flags.runtime.or(below.runtime),
            io_size: flags.io_size.or(below.io_size),
            ramp_time: flags.ramp_time.or(below.ramp_time),
            rate_iops: flags.rate_iops.or(below.rate_iops),
            rate: flags.rate.or(below.rate),
            arrival_rate: flags.arrival_rate.or(below.arrival_rate),
            rate_process: flags.rate_process.or(below.rate_process),
            random_distribution: flags.random_distribution.or(below.random_distribution),
            offset: flags.offset.or(below.offset),
            size: flags.size.or(below.size),
            seed: flags.seed.or(below.seed),
            verify: flags.verify.or(below.verify),
            targets_min: flags.targets_min.or(below.targets_min),
            event: flags.event,
        }
    }

    /// The workload, with defaults where keys are open.
    ///
    /// # Errors
    /// If keys exclude each other.
    pub fn workload(&self, name: String) -> Result<Workload, ScenarioError> {
        self.check()?;
        let default = Workload::default();
        let rw = self.rw.unwrap_or(default.rw);
        let sizes = self.bssplit.clone().or(self.bs.map(Sizes::one));
        let rate_bytes = self.rate.map(|rate| NonZeroU64::new(rate.get()));
        Ok(Workload {
            name,
            rw: self
                .rwmixread
                .map_or(rw, |percent| rw.with_read_percent(percent)),
            sizes: sizes.unwrap_or(default.sizes),
            distribution: self.random_distribution.unwrap_or_default(),
            iodepth: self.iodepth.map_or(default.iodepth, |depth| depth as usize),
            jobs: self.numjobs.map_or(default.jobs, |jobs| jobs as usize),
            stop: match (self.io_size, self.runtime) {
                (Some(bytes), _) => Stop::Bytes(bytes),
                (None, Some(seconds)) => Stop::Runtime(Duration::from_secs(seconds)),
                (None, None) => default.stop,
            },
            ramp: Duration::from_secs(self.ramp_time.unwrap_or(0)),
            rate: self.rate_iops,
            rate_bytes: match rate_bytes {
                Some(None) => return Err(ScenarioError::Zero("rate")),
                Some(rate) => rate,
                None => None,
            },
            arrivals: self.arrival_rate.map(|rate| Arrivals {
                rate,
                process: self.rate_process.unwrap_or_default(),
            }),
            start: ByteOffset::new(self.offset.map_or(0, ByteLen::get)),
            span: self.size,
            seed: self.seed.unwrap_or(default.seed),
            verify: self.verify.unwrap_or(false),
        })
    }

    fn check(&self) -> Result<(), ScenarioError> {
        let both = |first, second| Err(ScenarioError::Both { first, second });
        if self.bs.is_some() && self.bssplit.is_some() {
            return both("bs", "bssplit");
        }
        if self.runtime.is_some() && self.io_size.is_some() {
            return both("runtime", "io_size");
        }
        if self.arrival_rate.is_some() && self.rate_iops.is_some() {
            return both("arrival_rate", "rate_iops");
        }
        if self.arrival_rate.is_some() && self.rate.is_some() {
            return both("arrival_rate", "rate");
        }
        match self.rwmixread {
            Some(percent) if percent > 100 => Err(ScenarioError::Percent(percent)),
            _ => Ok(()),
        }
    }
}

fn parsed<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteLen>, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "expected a size like \"4k\" or a number of bytes"
    )]
    enum Written {
        Bytes(u64),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Bytes(bytes) => Ok(Some(ByteLen::new(bytes))),
        Written::Text(text) => parse_size(&text)
            .map(Some)
            .map_err(serde::de::Error::custom),
    }
}

fn near(suggestion: &Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!("did you mean {name}? "))
}

/// The name that begins or ends alike, for a hint.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let distance = |known: &str| {
        let (a, b): (Vec<char>, Vec<char>) = (name.chars().collect(), known.chars().collect());
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, left) in a.iter().enumerate() {
            let mut diagonal = row[0];
            row[0] = i + 1;
            for (j, right) in b.iter().enumerate() {
                let best = (diagonal + usize::from(left != right)).min(row[j] + 1);
                diagonal = row[j + 1];
                row[j + 1] = best.min(diagonal + 1);
            }
        }
        row[b.len()]
    };
    let nearest = known.iter().copied().min_by_key(|known| distance(known))?;
    (distance(nearest) <= name.len().max(3) / 2).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: ByteLen = ByteLen::new(4 << 30);

    #[test]
    fn every_file_is_named_says_what_it_is_and_makes_a_workload() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let entries = std::fs::read_dir(dir).unwrap();
        let mut files: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let mut known: Vec<String> = NAMED
            .iter()
            .map(|(name, _)| format!("{name}.toml"))
            .collect();
        known.sort();
        assert_eq!(files, known);
        for (name, spec) in Spec::named().unwrap() {
            assert!(spec.about.is_some(), "{name}");
            let workload = spec.workload(name.to_owned()).unwrap();
            let targets = spec.targets_min.unwrap_or(1);
            assert!(workload.plan(SIZE, targets).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_file_says_what_the_flags_would() {
        let text = r#"
            about = "a mix"
            rw = "randrw"
            rwmixread = 70
            bssplit = "4k/90:64k/10"
            iodepth = 8
            random_distribution = "zipf:0.9"
            arrival_rate = 500
            rate_process = "poisson"
            size = "1GiB"
            [[event]]
            at = 5
            kill = "cs1"
        "#;
        let spec = Spec::parse("x", text).unwrap();
        let workload = spec.workload("x".into()).unwrap();
        assert_eq!(workload.rw, Rw::RandRw { read_percent: 70 });
        assert_eq!(workload.sizes.to_string(), "4k/90:64k/10");
        assert_eq!(workload.arrivals.map(|a| a.process), Some(Process::Poisson));
        assert_eq!(workload.span, Some(ByteLen::new(1 << 30)));
        let kill = Event {
            at: 5,
            what: EventKind::Kill("cs1".into()),
        };
        assert_eq!(spec.event, [kill]);
    }

    #[test]
    fn flags_win_and_take_what_they_exclude_away() {
        let scenario = "rw = 'randrw'\nrwmixread = 70\nbssplit = '4k/50:8k/50'\niodepth = 8\nrate_iops = 5\nruntime = 3";
        let scenario = Spec::parse("x", scenario).unwrap();
        let flags = Spec {
            bs: Some(ByteLen::new(16384)),
            io_size: Some(ByteLen::new(1 << 20)),
            arrival_rate: NonZeroU32::new(9),
            rw: Some(Rw::RandRw { read_percent: 50 }),
            ..Spec::default()
        };
        let workload = flags.over(scenario).workload("x".into()).unwrap();
        assert_eq!(workload.sizes.to_string(), "16k");
        assert_eq!(workload.stop, Stop::Bytes(ByteLen::new(1 << 20)));
        assert!(workload.rate.is_none() && workload.arrivals.is_some());
        assert_eq!(
            (workload.iodepth, workload.rw.to_string().as_str()),
            (8, "randrw:50")
        );
    }

    #[test]
    fn bad_input_is_named_with_a_remedy() {
        let cases = [
            ("rw = 'trim'", "\"trim\" is none of read"),
            ("bs = '4kb'", "unknown unit \"kb\""),
            ("bs = true", "a size like \"4k\""),
            ("bssplit = '4k/50:8k/20'", "70 %, not 100 %"),
            ("random_distribution = 'pareto'", "zipf:THETA"),
            ("iodeph = 3", "iodepth"),
            ("rate_iops = 0", "nonzero"),
            ("bs = '4k'\nbssplit = '4k:8k'", "exclude each other"),
            ("rwmixread = 101", "0 to 100"),
            ("[[event]]\nat = 1\nhug = 'cs1'", "hug"),
        ];
        for (text, due) in cases {
            let error = Spec::parse("my.toml", text).unwrap_err();
            let error = format!("{error}");
            assert!(error.contains(due), "{text}: {error}");
        }
        let error = Spec::load("4k-randreed-qd1").unwrap_err().to_string();
        assert!(error.contains("did you mean 4k-randread-qd1"), "{error}");
        assert!(error.contains("many-groups"), "{error}");
        let zero = Spec {
            rate: Some(ByteLen::ZERO),
            ..Spec::default()
        };
        assert!(zero.workload("x".into()).is_err());
    }
}
