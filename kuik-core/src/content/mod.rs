//! Image content (digests, descriptors, manifests, blobs) and the traits that read and store it.
//!
//! An image is a graph of content-addressed blobs and manifests, each named by its [`Digest`]. A manifest is stored
//! byte for byte as received, because its digest, its signatures and everything that refers to it depend on the bytes
//! ([`Manifest`]).
//!
//! - [`ContentSource`]: reads content from a registry, a cache, a store or a chain of these.
//! - [`ContentStore`]: a source that also stores content. Its writes take a [`Verified`] witness, which only hashing
//!   the bytes can create: unverified content is never published.
//! - [`RegistryStore`]: a store that supports push, delete and enumeration, as a registry does.

#[doc(hidden)]
pub mod delegate;
mod descriptor;
mod encoded_names;
mod error;
mod location;
mod manifest;
mod metadata;
mod range;
mod referrers;
mod registry_store;
mod source;
mod store;
mod verify;

pub use crate::digest::{Algorithm, Digest, InvalidDigest};
pub use descriptor::{Descriptor, Platform};
pub use encoded_names::EncodedNames;
pub use error::{SourceError, SourceErrorKind};
pub use location::{BlobLocation, InvalidLocation};
pub use manifest::{
    DecodedManifest, ImageIndex, ImageManifest, InvalidManifest, MAX_MANIFEST_BYTES, Manifest, MediaType,
};
pub use metadata::{InvalidMetadataName, MAX_METADATA_BYTES, MetadataName};
pub use range::{ByteRange, InvalidRange};
pub use referrers::fallback_tag;
pub use registry_store::{InvalidUploadId, RegistryStore, StoredBlob, Upload, UploadId};
pub use source::{
    Blob, BlobStream, CacheStatus, Cached, ContentSource, Freshness, Referrers, TagList, TagOrDigest, TagPage,
};
pub use store::{BlobSpool, BlobWriter, ContentStore};
pub use verify::{DigestMismatch, Hashing, Verified, Verifier};
