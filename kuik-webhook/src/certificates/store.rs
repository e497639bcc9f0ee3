//! Where certificates are kept, and who trusts them: what a [`Keeper`](super::Keeper) needs of a cluster.

use std::{collections::BTreeMap, error::Error};

use async_trait::async_trait;

/// The version of an object that a write is decided on.
pub type Version = String;

/// What there was when it was looked.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// What the Secret holds, and its version; `None` where there is none.
    pub secret: Option<(BTreeMap<String, Vec<u8>>, Version)>,
    /// What each of the webhooks has as its `caBundle`, and the version of their configuration; `None` where there is none.
    pub trust: Option<(Vec<Vec<u8>>, Version)>,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was done.
    Done,
    /// Somebody else has written since it was looked: nothing was done.
    Conflict,
}

/// A look or a write that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub struct StoreError {
    action: String,
    source: Box<dyn Error + Send + Sync>,
}

/// Keeps certificates, and tells API servers what to trust.
#[async_trait]
pub trait CertificateStore: Send + Sync {
    /// What there is now.
    ///
    /// # Errors
    /// Where that cannot be seen.
    async fn observe(&self) -> Result<Observed, StoreError>;

    /// Writes the Secret, if it still has this version (`None`: is not there).
    ///
    /// # Errors
    /// Where that cannot be done.
    async fn write(
        &self,
        data: BTreeMap<String, Vec<u8>>,
        version: Option<&Version>,
    ) -> Result<Written, StoreError>;

    /// Gives every webhook this `caBundle`, if their configuration still has this version.
    ///
    /// # Errors
    /// Where that cannot be done.
    async fn trust(&self, bundle: &str, version: &Version) -> Result<Written, StoreError>;
}

impl StoreError {
    /// What was attempted, on what; and why it failed.
    pub fn new(action: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { action: action.into(), source: source.into() }
    }
}
