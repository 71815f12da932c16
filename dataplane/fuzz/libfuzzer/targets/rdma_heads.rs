//! See `ogee_fuzz::rdma_heads`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ogee_fuzz::rdma_heads::run(input));
