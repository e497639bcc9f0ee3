//! Registry endpoints beyond pulls: pushes, deletes, and access control.

pub mod access;
pub mod push;
