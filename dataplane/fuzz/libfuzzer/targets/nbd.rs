//! See `ogee_fuzz::nbd`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ogee_fuzz::nbd::run(input));
