//! Whose turn it is: pure, from what the lease says and since when it has said so.
//!
//! Clocks of several machines are not compared: a lease has run out where its record has not changed for as long as it
//! is good for, by the clock of the one who looks at it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;

/// What a candidate may do about the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nobody has it, or it is ours already: take it.
    Take,
    /// Somebody has it.
    Wait,
}

/// What was seen of somebody else's lease, and when first.
#[derive(Debug)]
pub(super) struct Watched<T> {
    seen: Option<(LeaseSpec, T)>,
}

impl<T> Default for Watched<T> {
    fn default() -> Self {
        Self { seen: None }
    }
}

impl<T: Copy + std::ops::Sub<Output = Duration>> Watched<T> {
    /// What `identity` may do about a lease that says this `now`.
    pub(super) fn turn(&mut self, lease: Option<&LeaseSpec>, identity: &str, now: T) -> Turn {
        let Some(spec) = lease else { return Turn::Take };
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == identity {
            return Turn::Take;
        }
        match &self.seen {
            Some((seen, since)) if seen == spec => {
                let good_for =
                    u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
                if now - *since > Duration::from_secs(good_for) { Turn::Take } else { Turn::Wait }
            }
            _ => {
                self.seen = Some((spec.clone(), now));
                Turn::Wait
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
    fn what_nobody_has_is_taken_at_once() {
        for lease in [None, Some(LeaseSpec::default()), Some(held("", 0)), Some(held("me", 0))] {
            assert_eq!(Watched::default().turn(lease.as_ref(), "me", at(0)), Turn::Take);
        }
    }

    #[test]
    fn a_lease_runs_out_by_our_clock_alone() {
        // The holder's clock is a year ahead, or behind: it does not matter.
        for renewed in [0, 1 << 33] {
            let mut watched = Watched::default();
            let lease = held("other", renewed);
            assert_eq!(watched.turn(Some(&lease), "me", at(100)), Turn::Wait);
            assert_eq!(watched.turn(Some(&lease), "me", at(115)), Turn::Wait);
            assert_eq!(watched.turn(Some(&lease), "me", at(116)), Turn::Take);
        }
    }

    #[test]
    fn a_lease_that_is_renewed_does_not_run_out() {
        let mut watched = Watched::default();
        for step in 0..10 {
            let lease = held("other", i64::try_from(step).unwrap());
            assert_eq!(watched.turn(Some(&lease), "me", at(step * 14)), Turn::Wait);
        }
    }
}
