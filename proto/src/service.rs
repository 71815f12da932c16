//! The control plane's gRPC services, generated from `services/ogee.proto`.

#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    unused_qualifications
)]
#![allow(clippy::default_trait_access, clippy::too_many_lines)]

tonic::include_proto!("ogee.v1");
