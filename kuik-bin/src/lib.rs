//! The configuration and the commands of kuik's binaries.
//!
//! - [`command`]: the command line, a module per subcommand;
//! - [`config`]: settings from flags, environment and file, turned into valid types;
//! - [`cache`]: assembles the libraries into a pull-through cache.

pub mod cache;
pub mod command;
pub mod config;
pub mod frontend;
pub mod shutdown;
