//! Leader election: one replica holds a Lease, renews it, and releases it on shutdown.
//!
//! The Lease (`coordination.k8s.io`) is written with optimistic concurrency, so that of two candidates one is rejected.
//! A leader that cannot renew stops [`Timing::renew_deadline`] after its last renewal, before another candidate may
//! take over. Its [`Fence`] holds even if the process was suspended.

mod decision;
mod fence;

use std::{fmt, time::Duration};

pub use fence::{Fence, NotLeading};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube_client::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use self::decision::{LeaseDecision, LeaseObservation};
use super::{ApiError, ApiErrorKind};

/// Lease timing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// Lease duration: candidates take over a lease not renewed for this long: 15 s.
    pub lease: Duration,
    /// How long a leader continues without renewing; shorter than the lease duration: 10 s.
    pub renew_deadline: Duration,
    /// Interval at which the leader renews the lease and candidates check it: 3 s.
    pub retry: Duration,
}

/// A candidate in a leader election.
pub struct Election {
    client: Client,
    namespace: String,
    lease: String,
    identity: String,
    timing: Timing,
    fence: Fence,
    leading: watch::Sender<bool>,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { lease: seconds(15), renew_deadline: seconds(10), retry: seconds(3) }
    }
}

impl Election {
    /// Creates the candidate `identity`, unique per process, for the Lease `lease` in `namespace`.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: impl Into<String>,
        lease: impl Into<String>,
        identity: impl Into<String>,
        timing: Timing,
    ) -> Self {
        let (namespace, lease, identity) = (namespace.into(), lease.into(), identity.into());
        let (leading, _) = watch::channel(false);
        Self { client, namespace, lease, identity, timing, fence: Fence::default(), leading }
    }

    /// Returns a receiver of whether this candidate is the leader.
    #[must_use]
    pub fn leading(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    /// Runs `lead` while this candidate is the leader, until `shutdown` completes. Then the lease is released, so that
    /// the next candidate takes over at once.
    ///
    /// `lead` is called with a client that writes only while the lease is held. The future it returns is dropped if the
    /// lease is lost; it is not expected to end.
    pub async fn run<F, L>(&self, shutdown: impl Future<Output = ()>, lead: F)
    where
        F: Fn(Client) -> L,
        L: Future<Output = ()>,
    {
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                until = self.acquire() => self.fence.set(Some(until)),
            }
            tracing::info!(identity = %self.identity, "acquired leadership");
            self.leading.send_replace(true);
            let stopped = tokio::select! {
                () = &mut shutdown => true,
                () = self.keep_renewing() => false,
                () = lead(self.fence.client(&self.client)) => false,
            };
            // The future of `lead` has been dropped.
            self.fence.set(None);
            self.leading.send_replace(false);
            if stopped {
                return self.release().await;
            }
            tracing::warn!(identity = %self.identity, "lost leadership");
        }
    }

    /// Waits until the lease can be acquired. Returns until when it is held.
    async fn acquire(&self) -> Instant {
        let mut observation = LeaseObservation::default();
        loop {
            match self.attempt(&mut observation).await {
                Ok(Some(until)) => return until,
                Ok(None) => {}
                // Another candidate took it first.
                Err(error) if error.kind() == ApiErrorKind::Conflict => {}
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to acquire the lease, retrying"
                    );
                }
            }
            sleep(self.timing.retry).await;
        }
    }

    /// Renews the lease until it is lost.
    async fn keep_renewing(&self) {
        let mut observation = LeaseObservation::default();
        loop {
            let Some(until) = self.fence.until() else { return };
            sleep(self.timing.retry).await;
            let renewed = tokio::select! {
                renewed = self.attempt(&mut observation) => renewed,
                () = sleep_until(until) => return,
            };
            match renewed {
                Ok(Some(until)) => self.fence.set(Some(until)),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to renew the lease, retrying"
                    );
                }
            }
        }
    }

    /// Acquires or renews the lease if allowed. Returns until when it is held, counted from before the request.
    async fn attempt(
        &self,
        observation: &mut LeaseObservation<Instant>,
    ) -> Result<Option<Instant>, ApiError> {
        let asked = Instant::now();
        let lease = self.get().await?;
        if observation.decide(lease.as_ref().and_then(|lease| lease.spec.as_ref()), &self.identity, asked)
            == LeaseDecision::Wait
        {
            return Ok(None);
        }
        let asked = Instant::now();
        self.put(lease, &self.identity, self.timing.lease).await?;
        Ok(Some(asked + self.timing.renew_deadline))
    }

    /// Releases the lease if it is held.
    async fn release(&self) {
        let release = async {
            let lease = self.get().await?;
            let holder = lease.as_ref().and_then(|lease| lease.spec.as_ref()?.holder_identity.as_deref());
            if holder == Some(&*self.identity) {
                self.put(lease, "", Duration::from_secs(1)).await?;
            }
            Ok::<_, ApiError>(())
        };
        match timeout(self.timing.retry, release).await {
            Ok(Ok(())) => tracing::info!(identity = %self.identity, "released leadership"),
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "failed to release the lease");
            }
            Err(_) => tracing::warn!("failed to release the lease: API server timed out"),
        }
    }

    async fn get(&self) -> Result<Option<Lease>, ApiError> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let lease = timeout(self.timing.retry, leases.get_opt(&self.lease)).await;
        let attempted = || format!("read the Lease {}/{}", self.namespace, self.lease);
        lease
            .map_err(|_| ApiError::timed_out(attempted()))?
            .map_err(|error| ApiError::new(attempted(), error))
    }

    /// Sets the holder. Fails if the lease was changed since it was read.
    async fn put(&self, lease: Option<Lease>, holder: &str, good_for: Duration) -> Result<(), ApiError> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let existing = lease.is_some();
        let mut lease = lease.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.lease.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        lease.spec = Some(next(lease.spec.take().unwrap_or_default(), holder, good_for, Timestamp::now()));
        let params = PostParams::default();
        let write = async {
            if existing {
                leases.replace(&self.lease, &params, &lease).await
            } else {
                leases.create(&params, &lease).await
            }
        };
        let written = timeout(self.timing.retry, write).await;
        let attempted = || format!("write the Lease {}/{}", self.namespace, self.lease);
        written
            .map_err(|_| ApiError::timed_out(attempted()))?
            .map_err(|error| ApiError::new(attempted(), error))?;
        Ok(())
    }
}

/// Returns the lease spec after `holder` acquires or renews it at `now`.
fn next(spec: LeaseSpec, holder: &str, good_for: Duration, now: Timestamp) -> LeaseSpec {
    let stays = spec.holder_identity.as_deref() == Some(holder);
    let transitions = spec.lease_transitions.unwrap_or_default();
    LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: Some(i32::try_from(good_for.as_secs()).unwrap_or(i32::MAX).max(1)),
        acquire_time: if stays { spec.acquire_time } else { Some(MicroTime(now)) },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if stays { transitions } else { transitions.saturating_add(1) }),
        ..spec
    }
}

impl fmt::Debug for Election {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Election")
            .field("lease", &self.lease)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
