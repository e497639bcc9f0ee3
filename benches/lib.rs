//! Benchmarks of the hot paths; see the bench targets in this directory.
