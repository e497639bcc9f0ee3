//! One replica leads: it has the Lease, renews it, and hands it over when it stops.
//!
//! The Lease (`coordination.k8s.io`) is what everybody agrees on; each change of it states the version that it is made
//! from, so that of two candidates one is refused. A leader that cannot renew stops [`Timing::renew_deadline`] after it
//! last could, which is before others may take over; its [`Fence`] holds even where it has been stopped itself.

mod fence;
mod turn;

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

use self::turn::{Turn, Watched};
use super::{ApiError, ApiErrorKind};

/// How patient candidates and leaders are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// How long others wait for a leader that says nothing: 15 s.
    pub lease: Duration,
    /// How long a leader goes on that cannot renew; less than the lease: 10 s.
    pub renew_deadline: Duration,
    /// How often the lease is renewed, and candidates look at it: 3 s.
    pub retry: Duration,
}

/// A candidate for the lead.
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
    /// The candidate `identity`, another one for every process, for the Lease `lease` in `namespace`.
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

    /// Whether this candidate leads.
    #[must_use]
    pub fn leading(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    /// Leads whenever it can, until `shutdown` ends; then the lease is let go of, and the next one takes over at once.
    ///
    /// `lead` is called with a client that writes only as long as the lease is ours. What it returns is dropped where
    /// the lease is lost; it is not expected to end.
    pub async fn run<F, L>(&self, shutdown: impl Future<Output = ()>, lead: F)
    where
        F: Fn(Client) -> L,
        L: Future<Output = ()>,
    {
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                until = self.acquired() => self.fence.set(Some(until)),
            }
            tracing::info!(identity = %self.identity, "this replica leads");
            self.leading.send_replace(true);
            let stopped = tokio::select! {
                () = &mut shutdown => true,
                () = self.renewed() => false,
                () = lead(self.fence.client(&self.client)) => false,
            };
            // What was being done is dropped by now.
            self.fence.set(None);
            self.leading.send_replace(false);
            if stopped {
                return self.release().await;
            }
            tracing::warn!(identity = %self.identity, "this replica does not lead any more");
        }
    }

    /// Waits for the lease, and takes it; until when it is ours.
    async fn acquired(&self) -> Instant {
        let mut watched = Watched::default();
        loop {
            match self.attempt(&mut watched).await {
                Ok(Some(until)) => return until,
                Ok(None) => {}
                // Somebody was quicker.
                Err(error) if error.kind() == ApiErrorKind::Conflict => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "no leader can be elected");
                }
            }
            sleep(self.timing.retry).await;
        }
    }

    /// Renews for as long as the lease stays ours.
    async fn renewed(&self) {
        let mut watched = Watched::default();
        loop {
            let Some(until) = self.fence.until() else { return };
            sleep(self.timing.retry).await;
            let renewed = tokio::select! {
                renewed = self.attempt(&mut watched) => renewed,
                () = sleep_until(until) => return,
            };
            match renewed {
                Ok(Some(until)) => self.fence.set(Some(until)),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the lease is not renewed");
                }
            }
        }
    }

    /// Takes or renews the lease where it is our turn; until when it is ours then, counted from before the request.
    async fn attempt(&self, watched: &mut Watched<Instant>) -> Result<Option<Instant>, ApiError> {
        let asked = Instant::now();
        let lease = self.get().await?;
        if watched.turn(lease.as_ref().and_then(|lease| lease.spec.as_ref()), &self.identity, asked)
            == Turn::Wait
        {
            return Ok(None);
        }
        let asked = Instant::now();
        self.put(lease, &self.identity, self.timing.lease).await?;
        Ok(Some(asked + self.timing.renew_deadline))
    }

    /// Lets go of the lease, where it is ours.
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
            Ok(Ok(())) => tracing::info!(identity = %self.identity, "the lead is handed over"),
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the lead is not handed over");
            }
            Err(_) => tracing::warn!("the lead is not handed over: the API server does not answer"),
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

    /// Makes `holder` the one who has it; fails where the lease was changed since it was read.
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

/// What the lease says when `holder` has it from `now` on, or still has it.
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
