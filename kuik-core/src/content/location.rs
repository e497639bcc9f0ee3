//! An address that hands out a blob's bytes by itself.

use std::fmt;

/// Where anybody can get a blob for a while, without asking its source. Whoever knows the URL can read the blob, so
/// neither `Debug` nor an error here shows what follows its path.
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

/// A text that is no address of a blob. What it was is not said: it may hold a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no http or https URL of visible ASCII characters")]
pub struct InvalidLocation;

impl BlobLocation {
    /// A blob of `size` bytes is at `url`.
    ///
    /// # Errors
    /// Where that is no `http://` or `https://` URL, or no value of a header.
    pub fn new(url: impl Into<String>, size: u64) -> Result<Self, InvalidLocation> {
        let url = url.into();
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let named = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#']));
        let visible = url.bytes().all(|byte| byte.is_ascii_graphic());
        if named && visible { Ok(Self { url, size }) } else { Err(InvalidLocation) }
    }

    /// The whole URL, as a client is to ask for it. A secret.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many bytes are there.
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
