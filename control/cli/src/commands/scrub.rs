//! `ogee device scrub`: asks the chunkservers themselves, which keep a pause on the device.

use super::ask;
use crate::args::{Format, ScrubArgs};
use crate::error::{CliError, Exit};
use crate::output::{line, print};
use ogee_proto::id::{RequestId, StoreId};
use ogee_proto::service::{DeviceInfo, ServerInfo};
use ogee_proto::wire::{FrameHeader, FrameKind, ScrubWish, Status};
use ogee_transport::{Caller, CallerOptions, Endpoint, Frame, Hello, Role};
use serde_json::json;
use std::process::ExitCode;
use uuid::Uuid;

pub(crate) fn scrub(
    mds: &[String],
    args: &ScrubArgs,
    format: Format,
) -> Result<ExitCode, CliError> {
    let name = &args.name;
    let (wish, told) = match (args.pause, args.resume, args.light) {
        (true, ..) => (ScrubWish::Pause, "paused"),
        (_, true, _) => (ScrubWish::Resume, "resumed"),
        (_, _, true) => (ScrubWish::LightNow, "light begun"),
        _ => (ScrubWish::Now, "begun"),
    };
    let doing = format!("cannot tell {name} what is wanted of scrubbing");
    let devices = ask(mds, &doing, async |client| client.list_devices().await)?.devices;
    let servers = ask(mds, &doing, async |client| client.list_servers().await)?.servers;
    let named = devices.iter();
    let named = named.filter(|device| device.store == *name || device.chunkserver_name == *name);
    let named: Vec<&DeviceInfo> = named.collect();
    if named.is_empty() {
        let why = "there is no such device or chunkserver";
        let missing = CliError::new("OGEE-3208", &doing, why, "ogee device ls");
        return Err(missing.with_exit(Exit::NotFound));
    }
    for device in &named {
        let frame = request(device, wish)
            .ok_or_else(|| failed(&doing, device, "its store id is malformed"))?;
        let endpoint = endpoint_of(device, &servers);
        let endpoint =
            endpoint.ok_or_else(|| failed(&doing, device, "its chunkserver has no endpoint"))?;
        let is_heard = ogee_runtime::executor::block_on(tell(endpoint, frame));
        let is_heard = is_heard.map_err(|why| failed(&doing, device, &why))?;
        if !is_heard {
            line(&format!(
                "{}: scrub.period_s is 0 there{}, so nothing is done",
                device.store,
                if args.light {
                    ", and so is scrub.light_period_s"
                } else {
                    ""
                }
            ));
        }
    }
    let json = json!({"name": name, "devices": named.len(), "scrub": told});
    let row = vec![name.clone(), named.len().to_string(), told.to_owned()];
    print(format, &json, &["NAME", "DEVICES", "SCRUB"], vec![row]);
    Ok(ExitCode::SUCCESS)
}

fn failed(doing: &str, device: &DeviceInfo, why: &str) -> CliError {
    CliError::new(
        "OGEE-3209",
        doing,
        &format!("{} of {}: {why}", device.store, device.chunkserver_name),
        "the chunkserver must be online (ogee server ls), and be of this version",
    )
}

fn request(device: &DeviceInfo, wish: ScrubWish) -> Option<Frame> {
    let store = StoreId::new(Uuid::parse_str(&device.store).ok()?);
    let mut frame = Frame::new(FrameHeader::new(FrameKind::Scrub, RequestId::new(0)));
    let mut meta = store.to_bytes().to_vec();
    meta.push(wish.raw());
    frame.meta = meta.into();
    Some(frame)
}

fn endpoint_of(device: &DeviceInfo, servers: &[ServerInfo]) -> Option<Endpoint> {
    let server = servers
        .iter()
        .find(|it| it.name == device.chunkserver_name)?;
    let shard = usize::try_from(device.shard).ok()?;
    server.endpoints.get(shard)?.parse().ok()
}

/// Whether anything is done in the background there.
async fn tell(endpoint: Endpoint, frame: Frame) -> Result<bool, String> {
    let hello = Hello::new(Role::Admin, 0, "ogee-cli");
    let caller = Caller::with_options(endpoint, hello, CallerOptions::default());
    let reply = caller
        .call(frame)
        .await
        .map_err(|error| error.to_string())?;
    match reply.header.status {
        Status::Ok => Ok(reply.meta.first() == Some(&1)),
        Status::NoCopyset => Err("the chunkserver does not have it".to_owned()),
        Status::Io => Err("the device does not take the note".to_owned()),
        status => Err(status.text().to_owned()),
    }
}
