//! Image references: parse, normalise, print, encode into a proxy path and back.
//!
//! A reference is what people write where an image is wanted: `nginx`, `quay.io/org/app:1.2`,
//! `registry:5000/app@sha256:…`. [`ImageReference::parse`] reads it as every container runtime does; the rules are in
//! the module `grammar`, one function per production. What is written can mean more than it says (`nginx` is
//! `docker.io/library/nginx:latest`): the accessors and `Display` give the full meaning, and so does `==`.
//!
//! [`encode`] and [`decode`] move a whole reference behind the proxy and back; [`RepositoryName::encoded`] and
//! [`decode_path`] do so for a repository's name alone, as it stands in the proxy's URLs and in a cache.
//!
//! This is the hottest and the most exposed code of the project: it reads a text once, allocates nothing to parse
//! it, and no input makes it panic.

mod encode;
mod error;
mod grammar;
mod name;
mod parse;
mod print;

pub use encode::{CannotEncode, PortForms, ProxyAuthority, decode, decode_path, encode};
pub use error::{ReferenceError, ReferenceErrorKind};
pub use grammar::{MAX_PATH_BYTES, MAX_TAG_BYTES, MIN_HEX_DIGITS};
pub use name::{InvalidName, RepositoryName, Tag};
pub use parse::ImageReference;
