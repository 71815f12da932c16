//! How the shared library is linked.

/// Changes when programs that were built against an older library would not run with the new one.
const SONAME: &str = "libogee.so.0";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,{SONAME}");
    // Its threads run on after dlclose, so that must not unmap it.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
