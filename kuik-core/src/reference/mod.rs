//! Image references: parsing, normalization, printing, and proxy encoding.
//!
//! A reference names an image: `nginx`, `quay.io/org/app:1.2`, `registry:5000/app@sha256:…`.
//! [`ImageReference::parse`] parses it as container runtimes do; the module `grammar` has one function per production.
//! Docker Hub's defaults apply (`nginx` is `docker.io/library/nginx:latest`): the accessors, `Display` and `==` use the
//! normalized form.
//!
//! [`encode`] and [`decode`] convert a whole reference to its proxy form and back; [`RepositoryName::encoded`] and
//! [`decode_path`] do so for a repository's name, as used in the proxy's URLs and in a cache.
//!
//! This is the hottest and the most exposed code of the project: it reads a text once, parses without allocation, and
//! does not panic on any input.

mod encode;
mod error;
mod grammar;
mod name;
mod normalized;
mod owned;
mod parse;
mod print;

pub use encode::{CannotEncode, PortForms, ProxyAuthority, decode, decode_path, encode};
pub use error::{ReferenceError, ReferenceErrorKind};
pub use grammar::{MAX_PATH_BYTES, MAX_TAG_BYTES, MIN_HEX_DIGITS};
pub use name::{InvalidName, RepositoryName, Tag};
pub use owned::OwnedImageReference;
pub use parse::ImageReference;
