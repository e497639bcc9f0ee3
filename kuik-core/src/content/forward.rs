//! Stores and sources that are others, but for what they do themselves.
//!
//! [`forward!`](crate::forward) writes the methods that a wrapper passes on, in one place for all wrappers. It writes
//! them as `async_trait` does, and returns what the wrapped one returns: passing on costs nothing.

use std::{pin::Pin, sync::Arc};

use async_trait::async_trait;
pub use bytes::Bytes;
use futures::stream::BoxStream;

use super::{ContentSource, ContentStore, ManagedStore, SourceError};

/// Passes methods of [`ContentSource`], [`ContentStore`] and [`ManagedStore`] on to another one, inside an
/// `#[async_trait] impl`. `this` stands for `self`, and what follows the arrow for a reference to the other one.
///
/// ```
/// use async_trait::async_trait;
/// use kuik_core::{
///     content::{Blob, ByteRange, ContentSource, Digest, Served, SourceError, SourceErrorKind},
///     forward,
///     reference::RepositoryName,
/// };
///
/// /// A source that never has a blob.
/// #[derive(Debug)]
/// struct WithoutBlobs<S>(S);
///
/// #[async_trait]
/// impl<S: ContentSource> ContentSource for WithoutBlobs<S> {
///     async fn blob(
///         &self,
///         _: &RepositoryName,
///         digest: &Digest,
///         _: ByteRange,
///     ) -> Result<Served<Blob>, SourceError> {
///         Err(SourceError::new(SourceErrorKind::NotFound, format!("find {digest}")))
///     }
///
///     forward!(this => &this.0; resolve, manifest, blob_size, tags, referrers);
/// }
/// ```
#[macro_export]
macro_rules! forward {
    ($this:ident => $to:expr; $($method:ident),+ $(,)?) => { $($crate::forward!(@$method $this $to);)+ };

    // ContentSource
    (@resolve $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentSource::resolve<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, at: &'b $crate::content::TagOrDigest,
            freshness: $crate::content::Freshness
        ) -> $crate::content::Served<$crate::content::Descriptor>
    } };
    (@manifest $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentSource::manifest<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, at: &'b $crate::content::TagOrDigest,
            freshness: $crate::content::Freshness
        ) -> $crate::content::Served<$crate::content::Manifest>
    } };
    (@blob_size $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentSource::blob_size<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, digest: &'b $crate::content::Digest
        ) -> $crate::content::Served<u64>
    } };
    (@blob $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentSource::blob<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, digest: &'b $crate::content::Digest,
            range: $crate::content::ByteRange
        ) -> $crate::content::Served<$crate::content::Blob>
    } };
    (@blob_location $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentSource::blob_location<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, digest: &'b $crate::content::Digest,
            valid_for: ::core::time::Duration
        ) -> ::core::option::Option<$crate::content::BlobLocation>
    } };
    (@tags $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentSource::tags<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, page: &'b $crate::content::TagPage
        ) -> $crate::content::TagList
    } };
    (@referrers $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentSource::referrers<'a, 'b, 'c>(
            repository: &'a $crate::reference::RepositoryName, digest: &'b $crate::content::Digest,
            artifact_type: ::core::option::Option<&'c str>
        ) -> $crate::content::Referrers
    } };

    // ContentStore
    (@write_blob $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentStore::write_blob<>() -> ::std::boxed::Box<dyn $crate::content::BlobWriter>
    } };
    (@link_blob $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentStore::link_blob<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, digest: &'b $crate::content::Digest
        ) -> ()
    } };
    (@has_blob $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentStore::has_blob<'a>(digest: &'a $crate::content::Digest) -> ::core::option::Option<u64>
    } };
    (@peek_blob $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentStore::peek_blob<'a>(
            digest: &'a $crate::content::Digest, bytes: ::core::ops::Range<u64>
        ) -> $crate::content::forward::Bytes
    } };
    (@put_manifest $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentStore::put_manifest<'a, 'b, 'c>(
            repository: &'a $crate::reference::RepositoryName, manifest: &'b $crate::content::Manifest,
            tag: ::core::option::Option<&'c $crate::reference::Tag>
        ) -> ()
    } };
    (@check_writable $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentStore::check_writable<>() -> ()
    } };

    // ManagedStore
    (@delete_tag $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ManagedStore::delete_tag<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, tag: &'b $crate::reference::Tag
        ) -> ()
    } };
    (@delete_manifest $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ManagedStore::delete_manifest<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, digest: &'b $crate::content::Digest
        ) -> ()
    } };
    (@unlink_blob $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ManagedStore::unlink_blob<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, digest: &'b $crate::content::Digest
        ) -> ()
    } };
    (@start_upload $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ManagedStore::start_upload<'a>(
            repository: &'a $crate::reference::RepositoryName
        ) -> $crate::content::UploadId
    } };
    (@upload $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ManagedStore::upload<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, id: &'b $crate::content::UploadId
        ) -> ::std::boxed::Box<dyn $crate::content::Upload>
    } };
    (@purge_uploads $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ManagedStore::purge_uploads<>(idle_since: ::std::time::SystemTime) -> u64
    } };
    (@remove_blob $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ManagedStore::remove_blob<'a>(digest: &'a $crate::content::Digest) -> ()
    } };
    (@quarantine_blob $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ManagedStore::quarantine_blob<'a>(digest: &'a $crate::content::Digest) -> ()
    } };
    (@note $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ManagedStore::note<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, name: &'b $crate::content::NoteName
        ) -> ::core::option::Option<$crate::content::forward::Bytes>
    } };
    (@put_note $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ManagedStore::put_note<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, name: &'b $crate::content::NoteName,
            text: ::core::option::Option<$crate::content::forward::Bytes>
        ) -> ()
    } };
    (@free_bytes $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ManagedStore::free_bytes<>() -> ::core::option::Option<u64>
    } };
    (@notes $this:ident $to:expr) => { $crate::forward! { walk $this $to;
        notes<>() -> ($crate::reference::RepositoryName, $crate::content::NoteName)
    } };
    (@repositories $this:ident $to:expr) => { $crate::forward! { walk $this $to;
        repositories<>() -> $crate::reference::RepositoryName
    } };
    (@manifests $this:ident $to:expr) => { $crate::forward! { walk $this $to;
        manifests<'s>(repository: &'s $crate::reference::RepositoryName) -> $crate::content::Digest
    } };
    (@linked_blobs $this:ident $to:expr) => { $crate::forward! { walk $this $to;
        linked_blobs<'s>(repository: &'s $crate::reference::RepositoryName) -> $crate::content::Digest
    } };
    (@blobs $this:ident $to:expr) => { $crate::forward! { walk $this $to;
        blobs<>() -> $crate::content::StoredBlob
    } };

    (async $this:ident $to:expr;
        $trait:ident::$method:ident<$($life:lifetime),*>($($argument:ident: $type:ty),*) -> $answer:ty
    ) => {
        fn $method<'s, $($life,)* 'f>(
            &'s self,
            $($argument: $type),*
        ) -> $crate::content::forward::Answer<'f, $answer>
        where
            's: 'f,
            $($life: 'f,)*
            Self: 'f,
        {
            let $this = self;
            $crate::content::$trait::$method($to, $($argument),*)
        }
    };
    (walk $this:ident $to:expr; $method:ident<>() -> $item:ty) => {
        fn $method(&self) -> $crate::content::forward::Walk<'_, $item> {
            let $this = self;
            $crate::content::ManagedStore::$method($to)
        }
    };
    (walk $this:ident $to:expr; $method:ident<$life:lifetime>($argument:ident: $type:ty) -> $item:ty) => {
        fn $method<$life>(&$life self, $argument: $type) -> $crate::content::forward::Walk<$life, $item> {
            let $this = self;
            $crate::content::ManagedStore::$method($to, $argument)
        }
    };
}

/// What an `async` method of a source or store returns, with its future in a box.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send + 'a>>;

/// What a walk of a store returns.
pub type Walk<'a, T> = BoxStream<'a, Result<T, SourceError>>;

#[async_trait]
impl<T: ContentSource + ?Sized> ContentSource for Arc<T> {
    forward!(this => this.as_ref(); resolve, manifest, blob_size, blob, blob_location, tags, referrers);
}

#[async_trait]
impl<T: ContentStore + ?Sized> ContentStore for Arc<T> {
    forward!(this => this.as_ref(); write_blob, link_blob, has_blob, peek_blob, put_manifest, check_writable);
}

#[async_trait]
impl<T: ManagedStore + ?Sized> ManagedStore for Arc<T> {
    forward!(this => this.as_ref();
        delete_tag, delete_manifest, unlink_blob, start_upload, upload, purge_uploads,
        repositories, manifests, linked_blobs, blobs, remove_blob,
        quarantine_blob, note, put_note, notes, free_bytes);
}
