//! See `ogee_fuzz::virtqueue`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ogee_fuzz::virtqueue::run(input));
