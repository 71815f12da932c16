//! Real clients: libnbd's tools, QEMU's, fio. One that is not installed is skipped, and says so.

use crate::served::{Order, Remote};
use ogee_frontend::MemoryFault;
use serde_json::Value;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

const MIB: u64 = 1 << 20;

/// A command of the tool, unless it is not installed.
fn tool(name: &str) -> Option<Command> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&paths).any(|dir| dir.join(name).is_file());
    if !is_there {
        skip(&format!("{name} is not installed"));
    }
    is_there.then(|| Command::new(name))
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("it starts");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A file of `len` bytes: noise, with a hole in the middle.
fn noise(path: &Path, len: u64) -> Vec<u8> {
    let len = usize::try_from(len).expect("small");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes[len / 4..len / 2].fill(0);
    std::fs::write(path, &bytes).expect("a file");
    bytes
}

#[test]
fn nbdinfo_sees_the_export() {
    let Some(mut info) = tool("nbdinfo") else {
        return;
    };
    let served = Remote::new(64 * MIB, false);
    let found = json(&run(info.arg("--json").arg(served.uri())));
    let export = &found["exports"][0];
    assert_eq!(found["protocol"], "newstyle-fixed");
    assert_eq!(found["structured"], true);
    assert_eq!(export["export-size"], 64 * MIB);
    assert_eq!(export["description"], "a disk in memory");
    assert_eq!(export["contexts"][0], "base:allocation");
    for (key, due) in [
        ("is_read_only", false),
        ("can_cache", true),
        ("can_df", true),
        ("can_fast_zero", true),
        ("can_flush", true),
        ("can_fua", true),
        ("can_multi_conn", true),
        ("can_trim", true),
        ("can_zero", true),
    ] {
        assert_eq!(export[key], due, "{key}");
    }
    assert_eq!(export["block_size_minimum"], 1);
    assert_eq!(export["block_size_preferred"], 4096);
    assert_eq!(export["block_size_maximum"], 32 * MIB);
    let mut list = Command::new("nbdinfo");
    let found = json(&run(list.args(["--list", "--json"]).arg(served.uri())));
    assert_eq!(found["exports"][0]["export-name"], "disk");
    served.stop();
}

/// Status replies cover only a part of such a disk; the client asks on.
#[test]
fn nbdinfo_maps_a_large_disk() {
    let Some(mut map) = tool("nbdinfo") else {
        return;
    };
    let size = (9 << 30) + 4096;
    let served = Remote::new(size, false);
    let found = json(&run(map.args(["--map", "--json"]).arg(served.uri())));
    let runs = found.as_array().expect("a list").iter();
    let total: u64 = runs.filter_map(|run| run["length"].as_u64()).sum();
    assert_eq!(total, size);
    served.stop();
}

#[test]
fn nbdinfo_sees_a_read_only_export() {
    let Some(mut info) = tool("nbdinfo") else {
        return;
    };
    let served = Remote::new(MIB, true);
    run(info.args(["--is", "read-only"]).arg(served.uri()));
    served.stop();
}

#[test]
fn nbdcopy_there_and_back() {
    let Some(mut there) = tool("nbdcopy") else {
        return;
    };
    let served = Remote::new(48 * MIB, false);
    let file = served.dir.path().join("in");
    let copy = served.dir.path().join("out");
    let bytes = noise(&file, 48 * MIB);
    run(there
        .args(["--flush", "--connections=4", "--requests=64"])
        .arg(&file)
        .arg(served.uri()));
    run(Command::new("nbdcopy").arg(served.uri()).arg(&copy));
    assert!(
        std::fs::read(&copy).expect("the copy") == bytes,
        "the copy differs"
    );
    let mut map = Command::new("nbdinfo");
    let found = json(&run(map.args(["--map", "--json"]).arg(served.uri())));
    let holes = found.as_array().expect("a list").iter();
    let holes: u64 = holes
        .filter(|run| run["type"] == 3)
        .filter_map(|run| run["length"].as_u64())
        .sum();
    assert!(holes > 0, "the zeros of the file became holes");
    let seen = served.stop();
    assert!(seen.disk.flushes > 0 && seen.export.connections >= 4);
    assert_eq!(seen.export.failures, 0);
}

/// Even where the file system would let it in.
#[test]
fn another_user_is_refused() {
    const NOBODY: u32 = 65_534;
    if !nix::unistd::geteuid().is_root() {
        skip("only root can be another user");
        return;
    }
    let Some(mut info) = tool("nbdinfo") else {
        return;
    };
    let served = Remote::new(MIB, false);
    let dir = served.dir.path();
    for (path, mode) in [(dir, 0o755), (&dir.join("nbd.sock"), 0o666)] {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("our file");
    }
    let mut probe = Command::new("test");
    run(probe
        .arg("-w")
        .arg(dir.join("nbd.sock"))
        .uid(NOBODY)
        .gid(NOBODY));
    let output = info.arg(served.uri()).uid(NOBODY).gid(NOBODY).output();
    assert!(!output.expect("it starts").status.success());
    run(Command::new("nbdinfo").arg(served.uri()));
    assert_eq!(served.stop().export.connections, 1);
}

fn qemu_io(uri: &str, commands: &[&str]) -> Option<Output> {
    let mut qemu = tool("qemu-io")?;
    qemu.args(["-f", "raw", "-d", "unmap"]);
    for command in commands {
        qemu.args(["-c", command]);
    }
    Some(qemu.arg(uri).output().expect("it starts"))
}

#[test]
fn qemu_io_verifies_patterns() {
    let served = Remote::new(64 * MIB, false);
    let commands = [
        "write -P 0xab 1M 64k",
        "read -P 0xab 1M 64k",
        // Less than a block, across a block's border, with FUA.
        "write -P 0x11 1050000 700",
        "write -f -P 0x22 4095 2",
        "read -P 0x11 1050000 700",
        "read -P 0xab 1M 1424",
        "read -P 0x22 4095 2",
        "read -P 0 0 4095",
        "write -P 0x33 2M 8M",
        "write -z 3M 1M",
        "write -z -u 5000001 100000",
        "read -P 0 3M 1M",
        "read -P 0 5000001 100000",
        "read -P 0x33 5100001 10000",
        "discard 8M 1M",
        "read -P 0 8M 1M",
        "flush",
        "aio_write -P 0x44 20M 1M",
        "aio_write -P 0x55 21000001 999",
        "aio_flush",
        "read -P 0x55 21000001 999",
    ];
    let Some(output) = qemu_io(&served.uri(), &commands) else {
        return;
    };
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("failed"), "{said}");
    let seen = served.stop();
    assert!(seen.disk.flushes > 0 && seen.disk.discards > 0 && seen.disk.zeroes > 0);
    assert_eq!(seen.export.failures, 0);
}

#[test]
fn qemu_io_sees_errors_and_goes_on() {
    let served = Remote::new(MIB, false);
    let failing = |orders: [Order; 1], command: &str| {
        for order in orders {
            served.order(order);
        }
        let output = qemu_io(&served.uri(), &[command])?;
        Some(text(&output.stdout) + &text(&output.stderr))
    };
    let full = [Order::FailWrites(Some(MemoryFault::NoSpace))];
    let Some(said) = failing(full, "write 0 64k") else {
        return;
    };
    assert!(said.contains("No space left on device"), "{said}");
    let broken = [Order::FailReads(Some(MemoryFault::Medium))];
    let said = failing(broken, "read 0 64k").expect("it was there");
    assert!(said.contains("Input/output error"), "{said}");
    served.order(Order::FailReads(None));
    let said = failing([Order::FailWrites(None)], "write 0 64k").expect("it was there");
    assert!(said.contains("wrote 65536/65536"), "{said}");
    served.stop();
}

#[test]
fn qemu_img_converts_compares_maps_and_benches() {
    let Some(mut convert) = tool("qemu-img") else {
        return;
    };
    let served = Remote::new(48 * MIB, false);
    let file = served.dir.path().join("in");
    noise(&file, 48 * MIB);
    let raw = ["-f", "raw"];
    run(convert
        .args(["convert", "-n", "-W", "-m", "16"])
        .args(raw)
        .args(["-O", "raw"])
        .arg(&file)
        .arg(served.uri()));
    let img = |verb: &str| {
        let mut command = Command::new("qemu-img");
        command.arg(verb);
        command
    };
    run(img("compare")
        .args(raw)
        .args(["-F", "raw"])
        .arg(&file)
        .arg(served.uri()));
    let map = json(&run(img("map")
        .args(["--output", "json"])
        .args(raw)
        .arg(served.uri())));
    let runs = map.as_array().expect("a list").iter();
    let zeros: u64 = runs
        .filter(|run| run["zero"] == true)
        .filter_map(|run| run["length"].as_u64())
        .sum();
    assert_eq!(zeros, 12 * MIB);
    for unaligned in [false, true] {
        let mut bench = img("bench");
        bench
            .args(["-w", "-c", "2000", "-d", "32", "--pattern", "7"])
            .args(raw);
        if unaligned {
            bench.args(["-o", "777", "-s", "3000"]);
        }
        run(bench.arg(served.uri()));
    }
    let seen = served.stop();
    assert_eq!(seen.export.failures, 0);
    assert!(
        seen.export.merged_blocks > 0,
        "the unaligned bench was merged"
    );
}

/// Random writes, each verified afterwards; 512 bytes at a time, eight of them share a block.
#[test]
fn fio_verifies_what_it_wrote() {
    let served = Remote::new(64 * MIB, false);
    for (bs, size) in [("4k", "32m"), ("512", "2m"), ("4k-192k", "32m")] {
        let Some(mut fio) = tool("fio") else {
            return;
        };
        run(fio
            .current_dir(served.dir.path())
            .args([
                "--name=verify",
                "--ioengine=nbd",
                "--rw=randwrite",
                "--iodepth=32",
            ])
            .args(["--verify=crc32c", "--do_verify=1", "--verify_fatal=1"])
            .args([format!("--bs={bs}"), format!("--size={size}")])
            .arg(format!("--uri={}", served.uri())));
    }
    let seen = served.stop();
    assert_eq!(seen.export.failures, 0);
    assert!(seen.export.merged_blocks > 0);
}

/// Tells of a skipped test; not by a macro, whose output is captured: a skip is to be counted.
fn skip(why: &str) {
    use std::io::Write;
    let told = std::io::stderr().write_all(format!("SKIP {why}\n").as_bytes());
    told.expect("stderr");
}
