//! See `ogee_fuzz::mds_records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ogee_fuzz::mds_records::run(input));
