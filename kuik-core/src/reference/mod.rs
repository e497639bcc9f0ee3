//! Image references: parse, normalise, print, encode into a proxy path and back.

mod name;

pub use name::{InvalidName, RepositoryName, Tag};
