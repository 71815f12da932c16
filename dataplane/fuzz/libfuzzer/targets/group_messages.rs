//! See `ogee_fuzz::group_messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ogee_fuzz::group_messages::run(input));
