//! See `ogee_fuzz::mds_commands`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ogee_fuzz::mds_commands::run(input));
