#![no_main]

#[path = "../../tests/parsers/sqlite.rs"]
mod parser;

libfuzzer_sys::fuzz_target!(|input: &[u8]| parser::examine(input));
