//! Every order in which the parts of a fill can take turns (up to a bound on how often one interrupts another): upstream
//! pushes into the window and waits for room, the spool takes and evicts, readers read along or leave, and the end comes,
//! good or bad. The parts are the real ones, by their files; [`schedule`] runs them, one poll at a time. `make model`
//! looks further than `make test`.
//!
//! Whatever the order: a reader of a fill that succeeds has every byte, one of a fill that fails has an error and not
//! the last bytes, nobody waits for ever, and the window holds no more than it may. What two threads do in the middle of
//! one poll is not explored: between two awaits a part only takes locks for as long as it looks or writes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, and says what it did"
)]

mod fill;
mod schedule;
