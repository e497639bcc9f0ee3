//! Observes, plans and does, until nothing has to be done.

use super::{
    issue::{CannotIssue, Lifetimes, issue},
    material::{KeyPair, Material},
    plan::plan,
    store::{CertificateStore, Observed, StoreError, Written},
};

/// How often something is done before the next look is left to the next call. From nothing at all it takes two steps, and
/// each replica that writes at the same time can cost one more.
const MAX_ROUNDS: usize = 16;

/// Keeps the certificate for the names of a service.
#[derive(Debug)]
pub struct Keeper<S> {
    store: S,
    names: Vec<String>,
    lifetimes: Lifetimes,
}

/// There is no certificate to serve, or it could not be looked after.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// The cluster could not be asked, or told.
    #[error("the webhook's certificate cannot be looked after")]
    Store(#[from] StoreError),
    /// A certificate could not be made.
    #[error(transparent)]
    Issue(#[from] CannotIssue),
    /// Others write all the time.
    #[error("the webhook's certificate changes again and again: something else writes the same Secret")]
    Restless,
}

impl<S: CertificateStore> Keeper<S> {
    /// Keeps certificates for these `names` in `store`.
    #[must_use]
    pub fn new(store: S, names: Vec<String>, lifetimes: Lifetimes) -> Self {
        Self { store, names, lifetimes }
    }

    /// Does what has to be done at second `now` since the Unix epoch; the pair to serve from now on.
    ///
    /// Where there is no configuration of webhooks yet, the pair is served all the same: somebody else may tell API servers
    /// what to trust.
    ///
    /// # Errors
    /// Where that cannot be done. What was served until now may be served on.
    pub async fn settle(&self, now: i64) -> Result<KeyPair, KeepError> {
        for _ in 0..MAX_ROUNDS {
            let Observed { secret, trust } = self.store.observe().await?;
            let material = secret.as_ref().and_then(|(data, _)| Material::read(data));
            let (bundles, trust_version) = trust.unzip();
            let needs = plan(material.as_ref(), bundles.as_deref().unwrap_or_default(), &self.names, now);
            if needs.issues() {
                let made = issue(material, needs, &self.names, now, self.lifetimes)?;
                let written =
                    self.store.write(made.write(), secret.as_ref().map(|(_, version)| version)).await?;
                if written == Written::Done {
                    let (authority, serving) = (needs.authority, needs.serving);
                    tracing::info!(authority, serving, "the webhook has new certificates");
                }
                continue;
            }
            let Some(material) = material else { continue };
            if let (true, Some(version)) = (needs.trust, &trust_version) {
                if self.store.trust(&material.bundle(now), version).await? == Written::Done {
                    tracing::info!("API servers are told which authority the webhook has");
                }
                continue;
            }
            if let Some(serving) = material.serving {
                return Ok(serving);
            }
        }
        Err(KeepError::Restless)
    }
}
