//! What an image is made of, and the two traits that move it.
//!
//! An image is a graph of content-addressed things: blobs and manifests, each named by its [`Digest`]. A manifest
//! is kept byte for byte as its registry sent it, because its digest, its signatures and everything that refers to
//! it depend on the bytes ([`Manifest`]).
//!
//! - [`ContentSource`]: something that content can be read from: a registry, a cache, a store, a chain of these.
//! - [`ContentStore`]: a source that also keeps content. Its writes take a [`Verified`] witness, which only hashing
//!   the bytes can make: nothing unverified is ever complete.
//! - [`ManagedStore`]: a store that is a registry of its own, which can be pushed to, deleted from and walked.

mod cache_names;
mod descriptor;
mod digest;
mod error;
#[doc(hidden)]
pub mod forward;
mod location;
mod managed;
mod manifest;
mod note;
mod range;
mod referrers;
mod source;
mod store;
mod verify;

pub use cache_names::CacheNames;
pub use descriptor::{Descriptor, Platform};
pub use digest::{Algorithm, Digest, InvalidDigest};
pub use error::{SourceError, SourceErrorKind};
pub use location::{BlobLocation, InvalidLocation};
pub use managed::{InvalidUploadId, ManagedStore, StoredBlob, Upload, UploadId};
pub use manifest::{
    DecodedManifest, ImageIndex, ImageManifest, InvalidManifest, MAX_MANIFEST_BYTES, Manifest, MediaType,
};
pub use note::{InvalidNoteName, MAX_NOTE_BYTES, NoteName};
pub use range::{ByteRange, InvalidRange};
pub use referrers::fallback_tag;
pub use source::{
    Blob, BlobStream, ContentSource, Freshness, Origin, Referrers, Served, TagList, TagOrDigest, TagPage,
};
pub use store::{BlobSpool, BlobWriter, ContentStore};
pub use verify::{DigestMismatch, Hashing, Verified, Verifier};
