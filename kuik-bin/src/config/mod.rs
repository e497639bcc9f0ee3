//! Configuration: raw texts from flags, environment and a file, turned once into a valid type that the rest trusts.
//!
//! Every setting is a list of texts under one key. A flag wins over the environment (clap sees to that), and both
//! over the file. Whatever is wrong is collected and reported at once, each with the key's name.

mod file;
mod problems;
pub mod serve;

pub use self::{
    file::{ConfigFile, UnusableFile},
    problems::{InvalidConfig, Problems},
};
