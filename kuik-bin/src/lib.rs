//! The configuration and the commands of kuik's binaries.
//!
//! - [`command`]: command lines, a module per subcommand; [`cli_error`]: their error, with its exit code;
//! - [`config`]: settings from flags, environment and file, validated into types;
//! - [`maintenance`]: opens the store in a directory, and runs its background tasks;
//! - [`origins`]: assembles the client of the upstream registries;
//! - [`otlp`]: sends traces to an OpenTelemetry collector;
//! - `webhook`: assembles the admission webhook and its certificate;
//! - `copier`, `controller_metrics`: the controllers' image copier and metrics;
//! - [`readiness`]: readiness checks; [`shutdown`]: signal handling;
//! - [`process`]: logging, serving and graceful shutdown of a process.

pub mod ca_reload;
pub mod cli_error;
pub mod command;
pub mod config;
#[cfg(feature = "kubernetes")]
pub mod controller_metrics;
#[cfg(feature = "kubernetes")]
pub mod copier;
pub mod maintenance;
pub mod origins;
pub mod otlp;
pub mod process;
#[cfg(feature = "kubernetes")]
pub mod rbac;
pub mod readiness;
pub mod shutdown;
#[cfg(feature = "kubernetes")]
pub mod webhook;
