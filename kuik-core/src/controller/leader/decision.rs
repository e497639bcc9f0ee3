//! Lease decision: a pure function of the lease record and of how long it has been unchanged.
//!
//! Clocks of different machines are never compared: a lease has expired if its record has not changed for its duration,
//! by the observer's clock.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;

/// Decision of a candidate about the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseDecision {
    /// It is free, expired or already ours: take it.
    Take,
    /// Another candidate holds it.
    Wait,
}

/// The lease record last observed, and when it was first observed.
#[derive(Debug)]
pub(super) struct LeaseObservation<T> {
    seen: Option<(LeaseSpec, T)>,
}

impl<T> Default for LeaseObservation<T> {
    fn default() -> Self {
        Self { seen: None }
    }
}

impl<T: Copy + std::ops::Sub<Output = Duration>> LeaseObservation<T> {
    /// Returns what `identity` may do with a lease observed as `lease` at `now`.
    pub(super) fn decide(&mut self, lease: Option<&LeaseSpec>, identity: &str, now: T) -> LeaseDecision {
        let Some(spec) = lease else { return LeaseDecision::Take };
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == identity {
            return LeaseDecision::Take;
        }
        match &self.seen {
            Some((seen, since)) if seen == spec => {
                let good_for =
                    u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
                if now - *since > Duration::from_secs(good_for) {
                    LeaseDecision::Take
                } else {
                    LeaseDecision::Wait
                }
            }
            _ => {
                self.seen = Some((spec.clone(), now));
                LeaseDecision::Wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

    use super::*;

    fn held(by: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(by.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn free_or_own_lease_is_taken_at_once() {
        for lease in [None, Some(LeaseSpec::default()), Some(held("", 0)), Some(held("me", 0))] {
            assert_eq!(LeaseObservation::default().decide(lease.as_ref(), "me", at(0)), LeaseDecision::Take);
        }
    }

    #[test]
    fn lease_expires_by_the_observers_clock_only() {
        // The holder's clock may be centuries off.
        for renewed in [0, 1 << 33] {
            let mut observation = LeaseObservation::default();
            let lease = held("other", renewed);
            assert_eq!(observation.decide(Some(&lease), "me", at(100)), LeaseDecision::Wait);
            assert_eq!(observation.decide(Some(&lease), "me", at(115)), LeaseDecision::Wait);
            assert_eq!(observation.decide(Some(&lease), "me", at(116)), LeaseDecision::Take);
        }
    }

    #[test]
    fn renewed_lease_does_not_expire() {
        let mut observation = LeaseObservation::default();
        for step in 0..10 {
            let lease = held("other", i64::try_from(step).unwrap());
            assert_eq!(observation.decide(Some(&lease), "me", at(step * 14)), LeaseDecision::Wait);
        }
    }
}
