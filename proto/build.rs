//! Compiles the `.proto` services in pure Rust: no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=services/ogee.proto");
    if std::env::var_os("CARGO_FEATURE_SERVICES").is_none() {
        return Ok(());
    }
    let files = protox::compile(["services/ogee.proto"], ["services"])?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
