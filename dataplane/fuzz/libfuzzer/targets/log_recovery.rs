//! See `ogee_fuzz::log_recovery`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ogee_fuzz::log_recovery::run(input));
