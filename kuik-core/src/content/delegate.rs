//! Delegation macro for store and source decorators.
//!
//! [`forward!`](crate::forward) generates the methods that a decorator delegates, in one place for all decorators. The
//! generated code is the same as that of `async_trait`, and returns the inner future: delegation costs nothing.

use std::{pin::Pin, sync::Arc};

use async_trait::async_trait;
pub use bytes::Bytes;
use futures::stream::BoxStream;

use super::{ContentSource, ContentStore, RegistryStore, SourceError};

/// Delegates methods of [`ContentSource`], [`ContentStore`] and [`RegistryStore`] to an inner value, inside an
/// `#[async_trait] impl`. `this` stands for `self`; the expression after the arrow is a reference to the inner value.
///
/// ```
/// use async_trait::async_trait;
/// use kuik_core::{
///     content::{Blob, ByteRange, Cached, ContentSource, Digest, SourceError, SourceErrorKind},
///     forward,
///     reference::RepositoryName,
/// };
///
/// /// A source that never has a blob.
/// #[derive(Debug)]
/// struct WithoutBlobs<S>(S);
///
/// #[async_trait]
/// #[deny(clippy::missing_trait_methods)] // a decorator that forgets a method would silently drop it
/// impl<S: ContentSource> ContentSource for WithoutBlobs<S> {
///     async fn blob(
///         &self,
///         _: &RepositoryName,
///         digest: &Digest,
///         _: ByteRange,
///     ) -> Result<Cached<Blob>, SourceError> {
///         Err(SourceError::new(SourceErrorKind::NotFound, format!("find {digest}")))
///     }
///
///     forward!(this => &this.0; resolve, manifest, blob_size, blob_location, tags, referrers, report_corrupt);
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
        ) -> $crate::content::Cached<$crate::content::Descriptor>
    } };
    (@manifest $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentSource::manifest<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, at: &'b $crate::content::TagOrDigest,
            freshness: $crate::content::Freshness
        ) -> $crate::content::Cached<$crate::content::Manifest>
    } };
    (@blob_size $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentSource::blob_size<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, digest: &'b $crate::content::Digest
        ) -> $crate::content::Cached<u64>
    } };
    (@blob $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentSource::blob<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, digest: &'b $crate::content::Digest,
            range: $crate::content::ByteRange
        ) -> $crate::content::Cached<$crate::content::Blob>
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

    (@report_corrupt $this:ident $to:expr) => {
        fn report_corrupt(
            &self,
            repository: &$crate::reference::RepositoryName,
            digest: &$crate::content::Digest,
        ) {
            let $this = self;
            $crate::content::ContentSource::report_corrupt($to, repository, digest);
        }
    };

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
    (@read_stored $this:ident $to:expr) => { $crate::forward! { async $this $to;
        ContentStore::read_stored<'a>(
            digest: &'a $crate::content::Digest, bytes: ::core::ops::Range<u64>
        ) -> $crate::content::delegate::Bytes
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

    // RegistryStore
    (@delete_tag $this:ident $to:expr) => { $crate::forward! { async $this $to;
        RegistryStore::delete_tag<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, tag: &'b $crate::reference::Tag
        ) -> ()
    } };
    (@delete_manifest $this:ident $to:expr) => { $crate::forward! { async $this $to;
        RegistryStore::delete_manifest<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, digest: &'b $crate::content::Digest
        ) -> ()
    } };
    (@unlink_blob $this:ident $to:expr) => { $crate::forward! { async $this $to;
        RegistryStore::unlink_blob<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, digest: &'b $crate::content::Digest
        ) -> ()
    } };
    (@start_upload $this:ident $to:expr) => { $crate::forward! { async $this $to;
        RegistryStore::start_upload<'a>(
            repository: &'a $crate::reference::RepositoryName
        ) -> $crate::content::UploadId
    } };
    (@upload $this:ident $to:expr) => { $crate::forward! { async $this $to;
        RegistryStore::upload<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, id: &'b $crate::content::UploadId
        ) -> ::std::boxed::Box<dyn $crate::content::Upload>
    } };
    (@purge_uploads $this:ident $to:expr) => { $crate::forward! { async $this $to;
        RegistryStore::purge_uploads<>(idle_since: ::std::time::SystemTime) -> u64
    } };
    (@remove_blob $this:ident $to:expr) => { $crate::forward! { async $this $to;
        RegistryStore::remove_blob<'a>(digest: &'a $crate::content::Digest) -> ()
    } };
    (@quarantine_blob $this:ident $to:expr) => { $crate::forward! { async $this $to;
        RegistryStore::quarantine_blob<'a>(digest: &'a $crate::content::Digest) -> ()
    } };
    (@metadata $this:ident $to:expr) => { $crate::forward! { async $this $to;
        RegistryStore::metadata<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, name: &'b $crate::content::MetadataName
        ) -> ::core::option::Option<$crate::content::delegate::Bytes>
    } };
    (@put_metadata $this:ident $to:expr) => { $crate::forward! { async $this $to;
        RegistryStore::put_metadata<'a, 'b>(
            repository: &'a $crate::reference::RepositoryName, name: &'b $crate::content::MetadataName,
            text: ::core::option::Option<$crate::content::delegate::Bytes>
        ) -> ()
    } };
    (@free_bytes $this:ident $to:expr) => { $crate::forward! { async $this $to;
        RegistryStore::free_bytes<>() -> ::core::option::Option<u64>
    } };
    (@all_metadata $this:ident $to:expr) => { $crate::forward! { walk $this $to;
        all_metadata<>() -> ($crate::reference::RepositoryName, $crate::content::MetadataName)
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
        ) -> $crate::content::delegate::Answer<'f, $answer>
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
        fn $method(&self) -> $crate::content::delegate::Walk<'_, $item> {
            let $this = self;
            $crate::content::RegistryStore::$method($to)
        }
    };
    (walk $this:ident $to:expr; $method:ident<$life:lifetime>($argument:ident: $type:ty) -> $item:ty) => {
        fn $method<$life>(&$life self, $argument: $type) -> $crate::content::delegate::Walk<$life, $item> {
            let $this = self;
            $crate::content::RegistryStore::$method($to, $argument)
        }
    };
}

/// Boxed future of an `async` method of a source or store.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send + 'a>>;

/// Stream of a store's enumeration method.
pub type Walk<'a, T> = BoxStream<'a, Result<T, SourceError>>;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: ContentSource + ?Sized> ContentSource for Arc<T> {
    forward!(this => this.as_ref();
        resolve, manifest, blob_size, blob, blob_location, tags, referrers, report_corrupt);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: ContentStore + ?Sized> ContentStore for Arc<T> {
    forward!(this => this.as_ref(); write_blob, link_blob, has_blob, read_stored, put_manifest, check_writable);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: RegistryStore + ?Sized> RegistryStore for Arc<T> {
    forward!(this => this.as_ref();
        delete_tag, delete_manifest, unlink_blob, start_upload, upload, purge_uploads,
        repositories, manifests, linked_blobs, blobs, remove_blob,
        quarantine_blob, metadata, put_metadata, all_metadata, free_bytes);
}
