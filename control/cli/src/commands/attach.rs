//! `ogee attach`: what QEMU and libvirt need.

use super::ask::ask;
use super::export_vhost::socket;
use crate::args::{AttachArgs, Format, Via};
use crate::error::CliError;
use crate::output::line;
use crate::settings::wrong;
use ogee_proto::service::VolumeName;
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// What to say to whom.
struct Words {
    /// What serves the volume.
    serve: String,
    /// QEMU's arguments, one after the other.
    qemu: Vec<String>,
    /// Elements of a libvirt domain.
    libvirt: String,
}

pub(crate) fn run(mds: &[String], args: AttachArgs, format: Format) -> Result<ExitCode, CliError> {
    let doing = format!("cannot say how to attach volume {}", args.name);
    let name = args.name.clone();
    ask(mds, &doing, async |c| c.show(VolumeName { name }).await)?;
    let words = words(&args).map_err(|cause| wrong(&doing, &cause, "name another path"))?;
    let Words {
        serve,
        qemu,
        libvirt,
    } = words;
    match format {
        Format::Json => line(&format!(
            "{:#}",
            json!({"serve": serve, "qemu": qemu, "libvirt": libvirt})
        )),
        Format::Table => {
            line(&format!("# serves it, and must run\n{serve}\n\n# QEMU"));
            // An option and its value on a line.
            let lines = qemu.chunks(2).map(|pair| pair.join(" "));
            line(&lines.collect::<Vec<_>>().join(" \\\n"));
            line(&format!("\n# libvirt, within <domain>\n{libvirt}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn words(args: &AttachArgs) -> Result<Words, String> {
    let AttachArgs { name, via, .. } = args;
    let given = match via {
        Via::VhostUser => args.socket_dir.as_deref().map(|dir| socket(dir, name)),
        Via::Nbd => args.socket.clone().map(Ok),
    };
    let given = given.transpose().map_err(|error| error.to_string())?;
    // The command line demands it.
    let path = given.ok_or("no path is given")?;
    let path = std::path::absolute(&path).map_err(|error| error.to_string())?;
    match via {
        Via::VhostUser => vhost_user(args, &path),
        Via::Nbd => nbd(name, &path),
    }
}

/// What QEMU calls it: names of its own begin with a letter, have at most 31 characters, and no slash.
fn id(name: &str) -> String {
    let short: String = name.replace('/', ".").chars().take(26).collect();
    format!("ogee-{short}")
}

/// A path as part of QEMU's comma-separated options and of XML.
fn plain(path: &Path) -> Result<String, String> {
    let text = path.to_str().map(str::to_owned);
    let is_plain = |text: &String| !text.contains(['\'', '"', '<', '>', '&', ',', ' ', '\n']);
    text.filter(is_plain).ok_or_else(|| {
        format!(
            "{} has characters that QEMU or XML would misread",
            path.display()
        )
    })
}

fn vhost_user(args: &AttachArgs, path: &Path) -> Result<Words, String> {
    let AttachArgs {
        name,
        queues,
        memory,
        ..
    } = args;
    let socket = plain(path)?;
    let dir = plain(path.parent().unwrap_or(Path::new("/")))?;
    let mib = memory.get() >> 20;
    let id = id(name);
    let qemu = [
        "-object".to_owned(),
        format!("memory-backend-memfd,id=mem,size={mib}M,share=on"),
        "-machine".to_owned(),
        "memory-backend=mem".to_owned(),
        "-chardev".to_owned(),
        format!("socket,id={id},path={socket},reconnect=1"),
        "-device".to_owned(),
        format!("vhost-user-blk-pci,chardev={id},num-queues={queues}"),
    ];
    let mut libvirt = String::from(
        "<memoryBacking>\n  <source type='memfd'/>\n  <access mode='shared'/>\n</memoryBacking>\n",
    );
    // Writing to a string cannot fail.
    let _ = write!(
        libvirt,
        "<disk type='vhostuser' device='disk' snapshot='no'>\n  <driver name='qemu' type='raw' queues='{queues}'/>\n  \
         <source type='unix' path='{socket}'>\n    <reconnect enabled='yes' timeout='1'/>\n  </source>\n  \
         <target dev='vdb' bus='virtio'/>\n</disk>"
    );
    Ok(Words {
        serve: format!("ogee export vhost-user {name} --socket-dir {dir} --queues {queues}"),
        qemu: qemu.to_vec(),
        libvirt,
    })
}

fn nbd(name: &str, path: &Path) -> Result<Words, String> {
    let socket = plain(path)?;
    let id = id(name);
    let qemu = [
        "-blockdev".to_owned(),
        format!(
            "driver=nbd,node-name={id},server.type=unix,server.path={socket},export={name},reconnect-delay=60,discard=unmap"
        ),
        "-device".to_owned(),
        format!("virtio-blk-pci,drive={id}"),
    ];
    let libvirt = format!(
        "<disk type='network' device='disk'>\n  <driver name='qemu' type='raw' discard='unmap'/>\n  \
         <source protocol='nbd' name='{name}'>\n    <host transport='unix' socket='{socket}'/>\n    \
         <reconnect delay='60'/>\n  </source>\n  <target dev='vdb' bus='virtio'/>\n</disk>"
    );
    Ok(Words {
        serve: format!("ogee export nbd {name} --socket {socket}"),
        qemu: qemu.to_vec(),
        libvirt,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogee_proto::unit::ByteLen;

    fn args(via: Via, dir: &str) -> AttachArgs {
        AttachArgs {
            name: "vol1".to_owned(),
            via,
            socket_dir: Some(dir.into()),
            socket: Some("/run/x/nbd.sock".into()),
            queues: 2,
            memory: ByteLen::new(1 << 30),
        }
    }

    #[test]
    fn the_words_name_the_socket_the_queues_and_shared_memory() {
        let Words {
            serve,
            qemu,
            libvirt,
        } = words(&args(Via::VhostUser, "/run/x")).unwrap();
        assert_eq!(
            serve,
            "ogee export vhost-user vol1 --socket-dir /run/x --queues 2"
        );
        assert!(qemu.contains(&"memory-backend-memfd,id=mem,size=1024M,share=on".to_owned()));
        assert!(qemu.contains(&"socket,id=ogee-vol1,path=/run/x/vol1.sock,reconnect=1".to_owned()));
        assert!(libvirt.contains("path='/run/x/vol1.sock'") && libvirt.contains("queues='2'"));
        let Words { qemu, libvirt, .. } = words(&args(Via::Nbd, "")).unwrap();
        assert!(qemu[1].contains("server.path=/run/x/nbd.sock"));
        assert!(libvirt.contains("socket='/run/x/nbd.sock'"));
    }

    #[test]
    fn a_volume_in_a_directory_has_a_socket_like_any_other() {
        let of = |via| {
            let name = "team/db1".to_owned();
            words(&AttachArgs {
                name,
                ..args(via, "/run/x")
            })
            .unwrap()
        };
        let Words { serve, qemu, .. } = of(Via::VhostUser);
        assert!(
            serve.contains("vhost-user team/db1 --socket-dir /run/x"),
            "{serve}"
        );
        let socket = "socket,id=ogee-team.db1,path=/run/x/team@db1.sock,reconnect=1";
        assert!(qemu.contains(&socket.to_owned()), "{qemu:?}");
        let Words { qemu, libvirt, .. } = of(Via::Nbd);
        assert!(
            qemu[1].contains("node-name=ogee-team.db1") && qemu[1].contains("export=team/db1,")
        );
        assert!(libvirt.contains("name='team/db1'"), "{libvirt}");
    }

    #[test]
    fn a_path_that_would_be_misread_is_refused() {
        for dir in ["/run/a,b", "/run/a'b", "/run/a b", "/run/<x>"] {
            assert!(words(&args(Via::VhostUser, dir)).is_err(), "{dir}");
        }
    }
}
