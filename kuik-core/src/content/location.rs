//! Pre-signed URL of a blob.

use std::fmt;

/// A URL that serves a blob for a limited time, without its source. Any client that knows the URL can read the blob, so
/// neither `Debug` nor an error shows its query.
///
/// ```
/// use kuik_core::content::BlobLocation;
///
/// let location = BlobLocation::new("https://bucket.example/key?Signature=s3cret", 5)?;
/// assert_eq!(location.url(), "https://bucket.example/key?Signature=s3cret");
/// assert!(!format!("{location:?}").contains("s3cret"));
/// assert!(BlobLocation::new("bucket/key", 5).is_err());
/// # Ok::<(), kuik_core::content::InvalidLocation>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct BlobLocation {
    url: String,
    size: u64,
}

/// A text is not a URL of a blob. The error does not contain the text, which may include a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an http or https URL of visible ASCII characters")]
pub struct InvalidLocation;

impl BlobLocation {
    /// Creates the location of a blob of `size` bytes.
    ///
    /// # Errors
    /// Returns an error if `url` is not an `http://` or `https://` URL, or not a valid header value.
    pub fn new(url: impl Into<String>, size: u64) -> Result<Self, InvalidLocation> {
        let url = url.into();
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let named = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#']));
        let visible = url.bytes().all(|byte| byte.is_ascii_graphic());
        if named && visible { Ok(Self { url, size }) } else { Err(InvalidLocation) }
    }

    /// The full URL to request. It is a secret.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The size of the blob in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl fmt::Debug for BlobLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.url.split('?').next().unwrap_or_default();
        f.debug_struct("BlobLocation").field("path", &path).field("size", &self.size).finish_non_exhaustive()
    }
}
