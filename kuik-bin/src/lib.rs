//! The configuration and the commands of kuik's binaries.
//!
//! - [`command`]: the command line, a module per subcommand;
//! - [`config`]: settings from flags, environment and file, turned into valid types;
//! - [`cache`], [`registry`]: assemble the libraries into a pull-through cache, and into a complete registry;
//! - [`proxy`], [`replica`]: assemble a node's proxy, over the replicas of such a cache;
//! - [`origins`]: assembles the client of the registries outside;
//! - [`otlp`]: sends traces to an OpenTelemetry collector;
//! - [`webhook`]: assembles the admission webhook, and the certificate that it is served with;
//! - [`copier`], [`controller_metrics`]: what the controllers put images into the cache with, and what they count;
//! - [`milestone`]: what has to have happened before a process is ready;
//! - [`process`]: serves what was assembled until the process is asked to stop.

pub mod authorities;
pub mod cache;
pub mod command;
pub mod config;
pub mod controller_metrics;
pub mod copier;
pub mod frontend;
pub mod keeping;
pub mod milestone;
pub mod origins;
pub mod otlp;
pub mod process;
pub mod proxy;
pub mod registry;
pub mod replica;
pub mod shutdown;
mod upstream_metrics;
pub mod webhook;
