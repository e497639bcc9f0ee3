//! The `kuik` binary.
fn main() {}
