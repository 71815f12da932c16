//! See `ogee_fuzz::store_open`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ogee_fuzz::store_open::run(input));
