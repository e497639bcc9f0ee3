//! Certificate storage: what a [`Rotator`](super::Rotator) needs of a cluster.

use std::{collections::BTreeMap, error::Error};

use async_trait::async_trait;

/// Resource version of an object, for optimistic concurrency.
pub type Version = String;

/// The observed state of the cluster.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Data and version of the Secret, if it exists.
    pub secret: Option<(BTreeMap<String, Vec<u8>>, Version)>,
    /// The `caBundle` of each webhook, and the version of their configuration, if it exists.
    pub trust: Option<(Vec<Vec<u8>>, Version)>,
}

/// The result of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Written.
    Done,
    /// The object changed since it was observed: nothing was written.
    Conflict,
}

/// A failed request to the cluster.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action}")]
pub struct StoreError {
    action: String,
    source: Box<dyn Error + Send + Sync>,
}

/// Stores certificates, and publishes the CA bundle to API servers.
#[async_trait]
pub trait CertificateStore: Send + Sync {
    /// Returns the current state.
    ///
    /// # Errors
    /// If it cannot be read.
    async fn observe(&self) -> Result<Observed, StoreError>;

    /// Writes the Secret if it still has this version (`None`: if it does not exist).
    ///
    /// # Errors
    /// If the request fails.
    async fn write(
        &self,
        data: BTreeMap<String, Vec<u8>>,
        version: Option<&Version>,
    ) -> Result<Written, StoreError>;

    /// Sets the `caBundle` of every webhook if their configuration still has this version.
    ///
    /// # Errors
    /// If the request fails.
    async fn publish(&self, bundle: &str, version: &Version) -> Result<Written, StoreError>;
}

impl StoreError {
    /// Wraps the cause of a failed `action`, such as `read the Secret NAME`.
    pub fn new(action: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { action: action.into(), source: source.into() }
    }
}
