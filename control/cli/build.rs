//! With the feature `spdk`, links the program as SPDK wants it: cargo passes the arguments on to nobody but us.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let args = std::env::var("DEP_OGEE_SPDK_LINK_ARGS").unwrap_or_default();
    for arg in args.split_whitespace() {
        println!("cargo::rustc-link-arg-bins={arg}");
    }
}
