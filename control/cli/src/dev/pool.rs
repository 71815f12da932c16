//! The pool of a dev cluster: made once, when every chunkserver is there.

use super::layout::Layout;
use crate::args::DevUpArgs;
use crate::commands::ask;
use crate::error::CliError;
use ogee_proto::service::{CreatePoolRequest, DeviceInfo, ServerInfo};
use std::time::{Duration, Instant};

/// The pool that every dev cluster has.
const POOL: &str = "default";
/// Bound on all chunkservers having reported devices that can be used.
const HEARD: Duration = Duration::from_secs(120);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Makes the pool, if there is none with copysets.
///
/// What is placed is placed on what was heard of by then: a chunkserver that comes later would carry nothing. So
/// it waits for all of them.
pub(super) fn make_pool(layout: &Layout, mds: &[String], args: &DevUpArgs) -> Result<(), CliError> {
    let pools = ask(mds, "cannot list pools", async |client| {
        client.list_pools().await
    })?
    .pools;
    if pools
        .iter()
        .any(|pool| pool.name == POOL && pool.copysets > 0)
    {
        return Ok(());
    }
    await_heard(layout, mds)?;
    let replicas = u32::from(args.zones()).min(3);
    // Two replicas survive nothing that one does not.
    let replicas = if replicas == 2 { 1 } else { replicas };
    let request = CreatePoolRequest {
        name: POOL.to_owned(),
        replicas,
        copysets: args.copysets,
        ..CreatePoolRequest::default()
    };
    ask(mds, "cannot create the default pool", async |client| {
        client.create_pool(request).await
    })?;
    Ok(())
}

fn await_heard(layout: &Layout, mds: &[String]) -> Result<(), CliError> {
    let names = layout.names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let names: Vec<&str> = names.into_iter().filter(|it| is_chunkserver(it)).collect();
    let deadline = Instant::now() + HEARD;
    loop {
        let (servers, devices) = ask(mds, "cannot list chunkservers", async |client| {
            let servers = client.list_servers().await?.servers;
            Ok((servers, client.list_devices().await?.devices))
        })?;
        let late = late(&names, &servers, &devices);
        if late.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(not_heard(layout, &late));
        }
        std::thread::sleep(LOOK);
    }
}

fn is_chunkserver(name: &str) -> bool {
    !name.starts_with("mds")
}

/// The chunkservers of which nothing can be placed on some device, and why.
fn late<'a>(
    names: &[&'a str],
    servers: &[ServerInfo],
    devices: &[DeviceInfo],
) -> Vec<(&'a str, String)> {
    let why = |name: &str| {
        let Some(server) = servers.iter().find(|it| it.name == name) else {
            return Some("it has not registered".to_owned());
        };
        if !server.online {
            return Some(format!("it is {}", server.state));
        }
        let own = || devices.iter().filter(|it| it.chunkserver_name == name);
        let bad = own().find(|it| !it.online || it.state != "ok");
        match bad {
            Some(device) => Some(format!("{} is {}", device.path, device.state)),
            None if own().next().is_none() => Some("it has reported no device".to_owned()),
            None => None,
        }
    };
    let late = names.iter().filter_map(|name| Some((*name, why(name)?)));
    late.collect()
}

fn not_heard(layout: &Layout, late: &[(&str, String)]) -> CliError {
    let names: Vec<&str> = late.iter().map(|(name, _)| *name).collect();
    let names = names.join(", ");
    let what = format!("no pool is made: not heard of after {HEARD:?}: {names}");
    let causes: Vec<String> = late
        .iter()
        .map(|(name, why)| format!("{name}: {why}"))
        .collect();
    let logs: Vec<String> = late
        .iter()
        .map(|(name, _)| layout.log(name).display().to_string())
        .collect();
    let remedy = format!("see {}, then run ogee dev up again", logs.join(", "));
    CliError::new("OGEE-3306", &what, &causes.join("; "), &remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, online: bool) -> ServerInfo {
        ServerInfo {
            name: name.to_owned(),
            online,
            state: if online { "online" } else { "offline" }.to_owned(),
            ..ServerInfo::default()
        }
    }

    fn device(of: &str, state: &str) -> DeviceInfo {
        DeviceInfo {
            chunkserver_name: of.to_owned(),
            path: format!("{of}.store"),
            state: state.to_owned(),
            online: state != "missing",
            ..DeviceInfo::default()
        }
    }

    #[test]
    fn late_is_whoever_has_a_device_that_nothing_is_placed_on() {
        let names = ["cs1", "cs2", "cs3", "cs4", "cs5"];
        let online = ["cs1", "cs3", "cs4"].map(|name| server(name, true));
        let servers = [&online[..], &[server("cs5", false)]].concat();
        let devices = [
            device("cs1", "ok"),
            device("cs1", "ok"),
            // Registered, but no heartbeat of it was heard yet.
            device("cs3", "missing"),
            device("cs5", "ok"),
        ];
        let late = late(&names, &servers, &devices);
        let said = |at: usize| (late[at].0, late[at].1.as_str());
        assert_eq!(late.len(), 4, "{late:?}");
        assert_eq!(said(0), ("cs2", "it has not registered"));
        assert_eq!(said(1), ("cs3", "cs3.store is missing"));
        assert_eq!(said(2), ("cs4", "it has reported no device"));
        assert_eq!(said(3), ("cs5", "it is offline"));
    }

    #[test]
    fn the_error_names_who_did_not_come_and_its_log() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let layout = Layout::create(dir.path()).expect("a layout");
        let late = [("cs4", "it has not registered".to_owned())];
        let said = not_heard(&layout, &late).to_string();
        assert!(said.contains("OGEE-3306") && said.contains("cs4"), "{said}");
        assert!(said.contains("logs/cs4.log"), "{said}");
    }
}
