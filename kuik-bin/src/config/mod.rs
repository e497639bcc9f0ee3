//! Configuration: strings from flags, environment and a file, validated once into types that the rest trusts.
//!
//! Every setting is a list of strings under one key. Flags take precedence over the environment (done by clap), and both
//! over the file. All mistakes are reported together, each with the key's name.
//!
//! Settings that several commands share are groups ([`process`], [`origins`] with its [`credentials`], [`cache_access`],
//! [`location`], [`maintenance`] with [`quota`], [`retention`], [`scrub`] and [`gc`]), and so are those that belong
//! together ([`pushes`]). A command's configuration consists of groups and of its own settings.

pub mod cache_access;
#[cfg(feature = "kubernetes")]
pub mod certificates;
#[cfg(feature = "kubernetes")]
pub mod controller;
pub mod credentials;
mod file;
pub mod gc;
pub mod location;
pub mod maintenance;
pub mod origins;
mod problems;
pub mod process;
pub mod proxy;
pub mod pushes;
mod quantity;
pub mod quota;
pub mod registry;
pub mod retention;
#[cfg(feature = "kubernetes")]
pub mod rewriting;
pub mod scrub;
#[cfg(feature = "kubernetes")]
mod selector;
pub mod serve;
pub mod storage;
pub mod tls;
pub mod traces;
pub mod upstreams;
mod value;
#[cfg(feature = "kubernetes")]
pub mod webhook;

pub use self::{
    file::{ConfigFile, UnusableFile},
    problems::{InvalidConfig, Problems},
};
