//! Exhaustive interleaving test of blob fills, up to a bound on preemptions: upstream pushes into the window and
//! waits for room, the spool takes and evicts, readers read or disconnect, and the fill succeeds or fails. The
//! modules are the real ones, included by path; [`schedule`] runs them, one poll at a time. `make model` explores
//! further than `make test`.
//!
//! In every order: a reader of a successful fill gets every byte, a reader of a failed one gets an error and not the
//! last bytes, no task waits forever, and the window stays within its limit. Two threads interleaved within one poll
//! are not explored: between two awaits, a task only takes locks for short reads and writes.

mod fill;
mod schedule;
