//! With the feature `spdk`, links the tests as SPDK wants it: cargo passes the arguments on to nobody but us.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for arg in std::env::var("DEP_OGEE_SPDK_LINK_ARGS")
        .unwrap_or_default()
        .split_whitespace()
    {
        println!("cargo::rustc-link-arg-tests={arg}");
    }
}
