//! Every order in which the parts of a fill can take turns (up to a bound on how often one interrupts another): upstream
//! pushes into the window and waits for room, the spool takes and evicts, readers read along, and the end comes, good or
//! bad. The parts are the real ones, by their files; `loom` runs them. `make model` looks further than `make test`.
//!
//! Whatever the order: a reader of a fill that succeeds has every byte, one of a fill that fails has an error and not
//! the last bytes, nobody waits for ever, and the window holds no more than it may.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail"
)]

mod fill;
