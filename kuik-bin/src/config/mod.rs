//! Configuration: raw texts from flags, environment and a file, turned once into a valid type that the rest trusts.
//!
//! Every setting is a list of texts under one key. A flag wins over the environment (clap sees to that), and both
//! over the file. Whatever is wrong is collected and reported at once, each with the key's name.
//!
//! Settings that several commands have are groups of their own ([`process`], [`origins`] with its [`credentials`], [`location`]), and so are those
//! that belong together ([`pushes`], [`quota`], [`scrub`], [`gc`]); a command's configuration is made of groups and of
//! what is its alone.

pub mod certificates;
pub mod controller;
pub mod credentials;
mod file;
pub mod gc;
pub mod location;
pub mod origins;
mod problems;
pub mod process;
pub mod proxy;
pub mod pushes;
mod quantity;
pub mod quota;
pub mod registry;
pub mod rewriting;
pub mod scrub;
mod selector;
pub mod serve;
pub mod storage;
pub mod tls;
pub mod traces;
pub mod upstreams;
mod value;
pub mod webhook;

pub use self::{
    file::{ConfigFile, UnusableFile},
    problems::{InvalidConfig, Problems},
};
