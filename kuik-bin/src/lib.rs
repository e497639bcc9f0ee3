//! The configuration and the commands of kuik's binaries.

pub mod command;
