//! Certificate rotation: observe, plan and execute until nothing is left to do.

use super::{
    issue::{CertificateSpec, IssueError, issue},
    plan::plan,
    secret::{CertificateSecret, KeyPair},
    store::{CertificateStore, Observed, StoreError, Written},
};

/// Maximum number of steps in one call. A new installation takes two, and each replica that writes at the same time can cost
/// one more.
const MAX_ROUNDS: usize = 16;

/// Issues and rotates the serving certificate. Any number of replicas can run one at the same time.
#[derive(Debug)]
pub struct Rotator<S> {
    store: S,
    spec: CertificateSpec,
}

/// The rotation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// A request to the cluster failed.
    #[error("failed to rotate the webhook's certificate")]
    Store(#[from] StoreError),
    /// A certificate could not be issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// Other writers change the Secret all the time.
    #[error("persistent write conflicts on the webhook's certificate: check for other writers of its Secret")]
    WriteConflict,
}

impl<S: CertificateStore> Rotator<S> {
    /// Rotates the certificate of `spec` in `store`.
    #[must_use]
    pub fn new(store: S, spec: CertificateSpec) -> Self {
        Self { store, spec }
    }

    /// Takes all steps due at Unix time `now`, and returns the key pair to serve from now on.
    ///
    /// Also returns a key pair if the webhook configuration does not exist yet: its CA bundle can be set by other means.
    ///
    /// # Errors
    /// If a step fails. The key pair served until now can stay in use.
    pub async fn rotate(&self, now: i64) -> Result<KeyPair, RotationError> {
        for _ in 0..MAX_ROUNDS {
            let Observed { secret, trust } = self.store.observe().await?;
            let current = secret.as_ref().and_then(|(data, _)| CertificateSecret::parse(data));
            let (bundles, trust_version) = trust.unzip();
            let bundles = bundles.as_deref().unwrap_or_default();
            let plan = plan(current.as_ref(), bundles, &self.spec.names, now);
            if plan.issues() {
                let issued = issue(current, plan, &self.spec, now)?;
                let version = secret.as_ref().map(|(_, version)| version);
                if self.store.write(issued.to_data(), version).await? == Written::Done {
                    let (authority, serving) = (plan.authority, plan.serving);
                    tracing::info!(authority, serving, "issued new webhook certificates");
                }
                continue;
            }
            let Some(current) = current else { continue };
            if let (true, Some(version)) = (plan.trust, &trust_version) {
                if self.store.publish(&current.ca_bundle(now), version).await? == Written::Done {
                    tracing::info!("published the CA bundle of the webhook to API servers");
                }
                continue;
            }
            if let Some(serving) = current.serving {
                return Ok(serving);
            }
        }
        Err(RotationError::WriteConflict)
    }
}
