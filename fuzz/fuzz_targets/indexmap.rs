#![no_main]

#[path = "../../tests/parsers/indexmap.rs"]
mod parser;

libfuzzer_sys::fuzz_target!(|input: &[u8]| parser::examine(input));
