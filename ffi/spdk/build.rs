//! Compiles the shim against an installed SPDK and says how to link it. Does nothing without the feature `spdk`.
//!
//! SPDK's shared objects do not name all that they use, and what registers itself when it is loaded (the PCI bus,
//! the memory pools) is used by nobody whom a linker could see. So everything is linked by name, and programs add the
//! arguments in `DEP_OGEE_SPDK_LINK_ARGS`: those that cargo does not pass on from a library to a program.

use pkg_config::{Config, Library};
use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::process;

/// The first and the last release with the functions that the shim calls, as year and month; later ones may have others.
const OLDEST: (u32, u32) = (24, 9);
const NEWEST: (u32, u32) = (26, 5);

const PACKAGES: [&str; 2] = ["spdk_nvme", "spdk_env_dpdk"];

/// Of DPDK's libraries those that register themselves, and those that SPDK's objects forget.
const DPDK: [&str; 8] = [
    "rte_eal",
    "rte_kvargs",
    "rte_telemetry",
    "rte_mempool",
    "rte_mempool_ring",
    "rte_ring",
    "rte_bus_pci",
    "rte_pci",
];

/// What SPDK uses of the system and its packages do not name.
const SYSTEM: [&str; 4] = ["ssl", "crypto", "uuid", "numa"];

fn main() {
    println!("cargo::rerun-if-changed=csrc");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    if env::var_os("CARGO_FEATURE_SPDK").is_none() {
        return;
    }
    let found = PACKAGES.map(find);
    check_version(&found[0]);
    let mut shim = cc::Build::new();
    shim.file("csrc/shim.c").flag("-std=gnu11").warnings(true);
    for path in found.iter().flat_map(|library| &library.include_paths) {
        shim.flag("-isystem").flag(path);
    }
    shim.compile("ogee_spdk_shim");
    for path in found.iter().flat_map(|library| &library.link_paths) {
        println!("cargo::rustc-link-search=native={}", path.display());
    }
    // The folder of a package's own file is in that of its libraries.
    let folder = pkg_config::get_variable(PACKAGES[0], "pcfiledir").unwrap_or_default();
    let is_shared = Path::new(&folder).join("../libspdk_nvme.so").exists();
    if is_shared {
        link_shared(&found);
    } else {
        link_static();
    }
}

fn find(name: &str) -> Library {
    let found = Config::new()
        .cargo_metadata(false)
        .print_system_libs(false)
        .probe(name);
    found.unwrap_or_else(|error| {
        fail(&format!(
            "the feature `spdk` wants SPDK {}, and pkg-config does not find {name}: install SPDK \
             (https://spdk.io/doc/getting_started.html; no distribution has a package of it), add the folder of its .pc \
             files to PKG_CONFIG_PATH, or build without the feature ({})",
            range(),
            error.to_string().lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim()
        ))
    })
}

/// A build that ends with nothing but these words.
fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    process::exit(0)
}

/// The packages have the numbers of their interfaces; that of the release is in a header.
fn check_version(library: &Library) {
    let headers = library.include_paths.iter();
    let mut headers = headers.map(|path| path.join("spdk/version.h"));
    let header = headers.find(|path| path.exists());
    let text = header.and_then(|path| fs::read_to_string(path).ok());
    let text = text.unwrap_or_default();
    let number = |name: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix("#define ")?.strip_prefix(name))?;
        value.trim().parse::<u32>().ok()
    };
    let version = number("SPDK_VERSION_MAJOR").zip(number("SPDK_VERSION_MINOR"));
    if !version.is_some_and(|version| (OLDEST..=NEWEST).contains(&version)) {
        let found = version.map_or_else(|| String::from("of an unknown version"), written);
        fail(&format!(
            "the feature `spdk` wants SPDK {}, and what pkg-config finds is {found}: install another release, or set \
             PKG_CONFIG_PATH to where one is",
            range()
        ));
    }
}

fn written((year, month): (u32, u32)) -> String {
    format!("{year}.{month:02}")
}

fn range() -> String {
    format!("{} to {}", written(OLDEST), written(NEWEST))
}

fn link_shared(found: &[Library]) {
    let names = PACKAGES.iter().chain(&DPDK).chain(&SYSTEM);
    let mut args = vec![
        String::from("-Wl,--push-state"),
        String::from("-Wl,--no-as-needed"),
    ];
    for name in names {
        println!("cargo::rustc-link-lib=dylib={name}");
        args.push(format!("-l{name}"));
    }
    args.push(String::from("-Wl,--pop-state"));
    let paths = found.iter().flat_map(|library| &library.link_paths);
    args.extend(paths.map(|path| format!("-Wl,-rpath,{}", path.display())));
    publish(&args);
}

/// All of the archives: what registers itself is named by nobody. They need the system's libraries, which SPDK's packages
/// do not name.
fn link_static() {
    let mut archives = BTreeSet::new();
    let mut system: BTreeSet<_> = SYSTEM.map(String::from).into();
    for package in PACKAGES.into_iter().chain(["libdpdk"]) {
        let found = Config::new()
            .cargo_metadata(false)
            .statik(true)
            .probe(package);
        let found =
            found.unwrap_or_else(|error| fail(&format!("pkg-config --static {package}: {error}")));
        for path in &found.link_paths {
            println!("cargo::rustc-link-search=native={}", path.display());
        }
        // Only what NVMe uses of DPDK.
        for name in found.libs {
            match name.split_once('_') {
                Some(("spdk", _)) => archives.insert(name),
                Some(("rte", _)) => DPDK.contains(&name.as_str()) && archives.insert(name),
                _ => package != "libdpdk" && system.insert(name),
            };
        }
    }
    for name in archives {
        println!("cargo::rustc-link-lib=static:+whole-archive,-bundle={name}");
    }
    for name in system {
        println!("cargo::rustc-link-lib=dylib={name}");
    }
    publish(&[]);
}

/// For programs: those of this package, and by their build scripts those of others.
fn publish(args: &[String]) {
    for arg in args {
        println!("cargo::rustc-link-arg={arg}");
    }
    println!("cargo::metadata=LINK_ARGS={}", args.join(" "));
}
