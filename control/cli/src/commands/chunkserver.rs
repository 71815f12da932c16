//! `ogee chunkserver`: a chunkserver in the foreground.

use super::mds::ready;
use super::signal::on_stop;
use crate::args::{DaemonArgs, POLL_US_MAX, RECORDS};
use crate::drive;
use crate::error::{CliError, chain};
use crate::media;
use crate::settings::{
    self, BackgroundSettings, ChunkserverSettings, DeviceSettings, NvmeSettings, RaftSettings,
    RdmaSettings, ScrubSettings, wrong,
};
use ogee_device::{Notice, NvmeName, NvmeOptions};
use ogee_group::GroupConfig;
use ogee_proto::media::{MediaClass, NoClass};
use ogee_proto::size::parse_size;
use ogee_proto::unit::ByteLen;
use ogee_shard::{
    BACKGROUND_RATE_MAX, BACKGROUND_RATE_MIN, BackgroundConfig, Chunkserver, ChunkserverConfig,
    ScrubConfig, ScrubHours, StoreConfig,
};
use ogee_spdk::{PciAddress, SpdkError};
use ogee_transport::{RdmaOptions, Transport};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A slower copy of a replica would hardly ever end.
const COPY_RATE_MIN: ByteLen = ByteLen::new(1 << 20);
/// A week.
const SCRUB_PERIOD_S: u64 = 7 * 24 * 3600;
/// So is their metadata, more often.
const LIGHT_PERIOD_S: u64 = 24 * 3600;

pub(crate) fn run(args: &DaemonArgs) -> Result<ExitCode, CliError> {
    let config = config(settings::chunkserver(args)?)?;
    let (chunkserver, stop) = Chunkserver::new(config);
    on_stop(move || stop.stop())?;
    let ready_args = args.ready_file.clone();
    let outcome = chunkserver.run(move || {
        let args = DaemonArgs {
            config: None,
            set: Vec::new(),
            ready_file: ready_args,
        };
        if let Err(error) = ready(&args) {
            tracing::error!(%error, "not announced as ready");
        }
    });
    outcome.map_err(|error| {
        let remedy = "correct the device, address or setting named; docs/configuration.md has all";
        CliError::new(
            "OGEE-3102",
            "the chunkserver cannot run",
            &chain(&error),
            remedy,
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn config(settings: ChunkserverSettings) -> Result<ChunkserverConfig, CliError> {
    let host = || {
        nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
    };
    let server = settings
        .server
        .or_else(host)
        .unwrap_or_else(|| settings.name.clone());
    let stores = settings.device.into_iter();
    let stores = stores.map(|device| store(device, &settings.nvme));
    let stores = stores.collect::<Result<_, _>>()?;
    Ok(ChunkserverConfig {
        name: settings.name,
        zone: settings.zone,
        server,
        listen: settings.listen,
        transport: transport(settings.transport.as_deref())?,
        rdma: rdma(settings.rdma),
        cpus: settings.cpus,
        poll: poll(settings.poll_us)?,
        stores,
        mds: settings.mds,
        metrics: settings.metrics,
        group: raft(settings.raft)?,
        scrub: scrub(&settings.scrub)?,
        background: background(&settings.background)?,
    })
}

fn poll(us: u64) -> Result<Duration, CliError> {
    if us > POLL_US_MAX {
        return Err(wrong(
            "cannot use poll_us",
            &format!("{us} is more than {POLL_US_MAX}, a second"),
            "write microseconds: some 20, about what a sleep costs; 0 for none",
        ));
    }
    Ok(Duration::from_micros(us))
}

fn background(settings: &BackgroundSettings) -> Result<BackgroundConfig, CliError> {
    let defaults = BackgroundConfig::default();
    let rate = |key: &str, text: Option<&String>, default| {
        let rate = text.map_or(Ok(default), |text| size(text))?;
        match (BACKGROUND_RATE_MIN..=BACKGROUND_RATE_MAX).contains(&rate) {
            true => Ok(rate),
            false => Err(wrong(
                &format!("cannot use background.{key}"),
                &format!(
                    "{} bytes per second are less than 4MiB or more than 1TiB",
                    rate.get()
                ),
                "give a size from 4MiB to 1TiB, or leave it out for 1GiB",
            )),
        }
    };
    Ok(BackgroundConfig {
        device_rate: rate(
            "device_rate",
            settings.device_rate.as_ref(),
            defaults.device_rate,
        )?,
        network_rate: rate(
            "network_rate",
            settings.network_rate.as_ref(),
            defaults.network_rate,
        )?,
    })
}

/// A period of 0 is never; two of them are nothing at all.
fn scrub(settings: &ScrubSettings) -> Result<Option<ScrubConfig>, CliError> {
    let hours = settings.hours.as_deref().map(scrub_hours).transpose()?;
    let period = |given: Option<u64>, usual| {
        let seconds = given.unwrap_or(usual);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    };
    let config = ScrubConfig {
        period: period(settings.period_s, SCRUB_PERIOD_S),
        light: period(settings.light_period_s, LIGHT_PERIOD_S),
        hours,
    };
    let is_any = config.period.is_some() || config.light.is_some();
    Ok(is_any.then_some(config))
}

/// Two different hours of the day.
fn scrub_hours(text: &str) -> Result<ScrubHours, CliError> {
    let hour = |text: &str| text.trim().parse::<u8>().ok().filter(|hour| *hour < 24);
    let hours = text.split_once('-');
    let hours = hours.and_then(|(from, to)| Some((hour(from)?, hour(to)?)));
    let (from, to) = hours.filter(|(from, to)| from != to).ok_or_else(|| {
        wrong(
            "cannot read the hours of scrubbing",
            &format!("scrub.hours is \"{text}\""),
            "write two hours of the day in UTC, 0 to 23, such as hours = \"22-6\"; leave it out for any time",
        )
    })?;
    let begun = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(ScrubHours {
        from,
        to,
        begun: begun.unwrap_or_default(),
    })
}

fn transport(text: Option<&str>) -> Result<Transport, CliError> {
    text.map_or(Ok(Transport::default()), str::parse)
        .map_err(|error| {
            wrong(
                "cannot use a transport",
                &error.to_string(),
                "write transport = \"auto\", \"rdma\" or \"tcp\"",
            )
        })
}

fn rdma(settings: RdmaSettings) -> RdmaOptions {
    let defaults = RdmaOptions::default();
    RdmaOptions {
        device: settings.device,
        connections_max: settings.connections_max.unwrap_or(defaults.connections_max),
        receives: settings.receives.unwrap_or(defaults.receives),
        mediums: settings.mediums.unwrap_or(defaults.mediums),
        larges: settings.larges.unwrap_or(defaults.larges),
        transfers: settings.transfers.unwrap_or(defaults.transfers),
        registered_max: defaults.registered_max,
        traffic_class: settings.traffic_class,
        spin: settings
            .spin_us
            .map_or(defaults.spin, Duration::from_micros),
        busy_poll: settings.busy_poll.unwrap_or(defaults.busy_poll),
    }
}

fn store(device: DeviceSettings, drives: &NvmeSettings) -> Result<StoreConfig, CliError> {
    let nvme = nvme(&device, drives)?;
    let unclear = || {
        wrong(
            "cannot use a device",
            "it has no `path` and neither `pci` nor `serial`, or both kinds",
            "give each [[device]] a path (a file or block device), or the PCI address or serial number of an NVMe drive",
        )
    };
    let path = match (device.path, &nvme) {
        (Some(path), None) => path,
        (None, Some(name)) => PathBuf::from(name.to_string()),
        _ => return Err(unclear()),
    };
    let class = match (&device.class, &nvme) {
        (Some(class), _) => {
            let parsed = class.parse();
            let remedy = "class = \"hdd\", \"ssd\" or \"nvme\", or leave it out";
            Some(parsed.map_err(|error: NoClass| {
                wrong("cannot use a device", &error.to_string(), remedy)
            })?)
        }
        (None, Some(_)) => Some(MediaClass::Nvme),
        (None, None) => media::detect(&path),
    };
    Ok(StoreConfig {
        class,
        create: device.create.as_deref().map(size).transpose()?,
        log_len: size(&device.log_size)?,
        path,
        nvme,
        nvme_options: NvmeOptions {
            notice: notice(drives.wait.as_deref())?,
            ..NvmeOptions::default()
        },
        shard: device.shard,
    })
}

/// An NVMe drive: by its address, of which a serial number makes sure, or by its serial number alone.
fn nvme(device: &DeviceSettings, drives: &NvmeSettings) -> Result<Option<NvmeName>, CliError> {
    let refused = |cause: &str, remedy: &str| Err(wrong("cannot use a device", cause, remedy));
    let named = match (&device.pci, &device.serial) {
        // `path` beside them is refused later.
        (Some(pci), _) => format!("the NVMe controller at {}", address(pci)?),
        (None, Some(serial)) if device.path.is_none() => format!("the NVMe drive {serial}"),
        (None, None) if device.namespace.is_none() => return Ok(None),
        _ => {
            return refused(
                "`serial` and `namespace` are of an NVMe drive without the kernel, and `path` goes through the kernel",
                "leave `path` out, or name the drive by /dev/disk/by-id/… alone",
            );
        }
    };
    if device.create.is_some() {
        return refused(
            "`create` makes files, and `pci` and `serial` name a drive",
            "leave `create` out",
        );
    }
    if !ogee_spdk::has_spdk() {
        return refused(
            &format!(
                "{named} is to be used without the kernel, and {}",
                SpdkError::NotBuilt
            ),
            "build with --features spdk, or write path = \"/dev/disk/by-id/nvme-…\"",
        );
    }
    let address = match (&device.pci, &device.serial) {
        (None, Some(serial)) => {
            let records = drives.records.as_deref().unwrap_or(Path::new(RECORDS));
            address(&drive::locate(serial, records)?)?
        }
        (pci, _) => address(pci.as_deref().unwrap_or_default())?,
    };
    Ok(Some(NvmeName {
        address,
        serial: device.serial.clone(),
        namespace: device.namespace,
    }))
}

/// What the installed SPDK does not have is refused when the drive is opened.
fn notice(wait: Option<&str>) -> Result<Notice, CliError> {
    match wait {
        None | Some("poll") => Ok(Notice::Polling),
        Some("interrupt") => Ok(Notice::Interrupts),
        Some(other) => Err(wrong(
            "cannot use nvme.wait",
            &format!("{other:?} is none of the ways to wait for a drive"),
            "write wait = \"poll\" or \"interrupt\" under [nvme], or leave it out for poll",
        )),
    }
}

fn address(pci: &str) -> Result<PciAddress, CliError> {
    pci.parse().map_err(|error: SpdkError| {
        wrong(
            "cannot use a device",
            &error.to_string(),
            "write pci = \"0000:65:00.0\"",
        )
    })
}

fn size(text: &str) -> Result<ByteLen, CliError> {
    parse_size(text).map_err(|error| {
        wrong(
            "cannot use a size",
            &error.to_string(),
            "write a size such as 8GiB",
        )
    })
}

fn raft(settings: RaftSettings) -> Result<GroupConfig, CliError> {
    let defaults = GroupConfig::default();
    let time = |ms: Option<u64>, default| ms.map_or(default, Duration::from_millis);
    let config = GroupConfig {
        heartbeat: time(settings.heartbeat_ms, defaults.heartbeat),
        election_min: time(settings.election_min_ms, defaults.election_min),
        election_max: time(settings.election_max_ms, defaults.election_max),
        quiet_after: time(settings.quiet_after_ms, defaults.quiet_after),
        copy_rate: settings.copy_rate.as_deref().map(size).transpose()?,
        lease_reads: settings.lease_reads.unwrap_or(defaults.lease_reads),
        ..defaults
    };
    if config.copy_rate.is_some_and(|rate| rate < COPY_RATE_MIN) {
        return Err(wrong(
            "cannot use raft.copy_rate",
            "it is less than 1MiB per second",
            "give at least 1MiB, or leave it out for no limit",
        ));
    }
    config.raft().map_err(|error| {
        let remedy = "keep heartbeat < election_min < election_max";
        wrong("cannot use the Raft times", &error.to_string(), remedy)
    })?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::store;
    use crate::settings::{DeviceSettings, NvmeSettings};
    use std::path::PathBuf;

    fn device(text: &str) -> Result<super::StoreConfig, String> {
        let settings: DeviceSettings = toml::from_str(text).expect("known keys");
        store(settings, &NvmeSettings::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_device_is_a_path_or_an_address() {
        let config = device("path = \"/dev/x\"").expect("a path");
        assert_eq!((config.path, config.nvme), (PathBuf::from("/dev/x"), None));
        let config = device("path = \"/dev/x\"\nclass = \"hdd\"").expect("a class");
        assert_eq!(config.class, Some(super::MediaClass::Hdd));
        let said = device("path = \"/dev/x\"\nclass = \"tape\"").expect_err("none");
        assert!(said.contains("hdd, ssd or nvme"), "{said}");
        for text in [
            "shard = 1",
            "path = \"/dev/x\"\nserial = \"S1\"",
            "path = \"/dev/x\"\nnamespace = 1",
            "namespace = 1",
            "serial = \"S1\"\ncreate = \"1GiB\"",
        ] {
            let said = device(text).expect_err(text);
            assert!(said.contains("cannot use a device"), "{said}");
        }
        let said = device("pci = \"4\"").expect_err("no address");
        assert!(said.contains("\"4\" is no PCI address"), "{said}");
        let said = device("pci = \"00:04.0\"\ncreate = \"1GiB\"").expect_err("no file");
        assert!(said.contains("`create`"), "{said}");
    }

    #[test]
    fn drives_are_polled_unless_they_are_to_interrupt() {
        let notice = |wait| super::notice(wait).map_err(|error| error.to_string());
        assert_eq!(notice(None), Ok(super::Notice::Polling));
        assert_eq!(notice(Some("poll")), Ok(super::Notice::Polling));
        assert_eq!(notice(Some("interrupt")), Ok(super::Notice::Interrupts));
        let said = notice(Some("sleep")).expect_err("no such way");
        assert!(
            said.contains("\"sleep\"") && said.contains("nvme.wait"),
            "{said}"
        );
    }

    #[test]
    fn stores_are_read_at_the_hours_that_are_given() {
        let read = |text: &str| super::scrub(&toml::from_str(text).expect("known keys"));
        let always = read("").expect("fine").expect("once a week");
        let seconds = |period: Option<std::time::Duration>| period.map(|period| period.as_secs());
        assert_eq!(
            (seconds(always.period), always.hours),
            (Some(604_800), None)
        );
        assert_eq!(seconds(always.light), Some(86_400));
        let light = read("period_s = 0").expect("fine").expect("metadata");
        assert_eq!(
            (seconds(light.period), seconds(light.light)),
            (None, Some(86_400))
        );
        assert_eq!(
            read("period_s = 0\nlight_period_s = 0").expect("fine"),
            None
        );
        let nights = read("hours = \"22-6\"")
            .expect("fine")
            .expect("once a week");
        let hours = nights.hours.expect("given");
        assert_eq!((hours.from, hours.to), (22, 6));
        assert!(
            hours.begun.as_secs() > 1_700_000_000,
            "by this host's clock"
        );
        for wrong in ["22", "22-24", "6-6", "-", "a-b", "22-6-7", "-1-5", ""] {
            let said = read(&format!("hours = \"{wrong}\"")).expect_err(wrong);
            let said = said.to_string();
            assert!(
                said.contains(&format!("\"{wrong}\"")) && said.contains("22-6"),
                "{said}"
            );
        }
    }

    #[test]
    fn what_the_background_may_take_has_a_range() {
        let read = |text: &str| super::background(&toml::from_str(text).expect("known keys"));
        let usual = read("").expect("fine");
        assert_eq!(usual.device_rate.get(), 1 << 30);
        assert_eq!(usual.network_rate.get(), 1 << 30);
        let set = read("device_rate = \"16MiB\"\nnetwork_rate = \"4MiB\"").expect("fine");
        assert_eq!(set.device_rate.get(), 16 << 20);
        assert_eq!(set.network_rate.get(), 4 << 20);
        for wrong in ["device_rate = \"1MiB\"", "network_rate = \"2TiB\""] {
            let said = read(wrong).expect_err(wrong).to_string();
            assert!(
                said.contains("background.") && said.contains("4MiB to 1TiB"),
                "{said}"
            );
        }
    }

    #[cfg(not(feature = "spdk"))]
    #[test]
    fn a_program_without_spdk_says_what_to_build() {
        let said = device("pci = \"0000:00:04.0\"").expect_err("no SPDK in it");
        for part in ["0000:00:04.0", "--features spdk", "/dev/disk/by-id"] {
            assert!(said.contains(part), "{said}");
        }
        let said = device("serial = \"S1\"").expect_err("no SPDK in it");
        for part in ["the NVMe drive S1", "--features spdk"] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[cfg(feature = "spdk")]
    #[test]
    fn a_drive_is_named_by_its_address() {
        let config = device("pci = \"4:0.0\"\nserial = \"S1\"\nnamespace = 2").expect("a drive");
        assert_eq!(config.path, PathBuf::from("nvme:0000:04:00.0/n2"));
        let name = config.nvme.expect("a drive");
        assert_eq!(
            (name.serial.as_deref(), name.namespace),
            (Some("S1"), Some(2))
        );
        let records = Some(PathBuf::from("/nowhere/drives.toml"));
        let settings = toml::from_str("serial = \"S1\"").expect("known keys");
        let said = store(
            settings,
            &NvmeSettings {
                records,
                wait: None,
            },
        );
        let said = said.expect_err("not recorded").to_string();
        for part in ["serial number S1", "/nowhere/drives.toml does not know it"] {
            assert!(said.contains(part), "{said}");
        }
    }
}
