//! Conversions between API objects and the plain types of plans.
//!
//! API times are whole seconds, of another version of the same library; plans use one time type.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::{
    controller::cached_image::plan::{PodUsage, Readiness, Status, Transfer},
    crd::{CachedImageStatus, PodReference, PullProgress, UsedBy},
};

/// Type of the condition that reports whether the image is in the cache.
pub(super) const READY: &str = "Ready";

pub(super) fn from_api(time: &Time) -> Timestamp {
    Timestamp::from_second(time.0.as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(super) fn to_api(time: Timestamp) -> Time {
    let time = k8s_openapi::jiff::Timestamp::from_second(time.as_second());
    Time(time.unwrap_or(k8s_openapi::jiff::Timestamp::UNIX_EPOCH))
}

/// Converts the status of an object.
pub(super) fn status(status: &CachedImageStatus) -> Status {
    let used = |used: &UsedBy| PodUsage {
        pods: used.pods.iter().map(|pod| pod.namespaced_name.clone()).collect(),
        count: used.count,
    };
    Status {
        is_cached: status.is_cached,
        phase: status.phase,
        used_by: status.used_by.as_ref().map(used),
        size: status.size.and_then(|size| u64::try_from(size).ok()),
        progress: status.progress.as_ref().map(|progress| Transfer {
            done: u64::try_from(progress.done_bytes).unwrap_or_default(),
            total: u64::try_from(progress.total_bytes).unwrap_or_default(),
        }),
        digest: status.digest.clone(),
        upstream_digest: status.upstream_digest.clone(),
        up_to_date: status.up_to_date,
        last_sync: status.last_sync.as_ref().map(from_api),
        last_successful_pull: status.last_successful_pull.as_ref().map(from_api),
        available_upstream: status.available_upstream,
        last_seen_upstream: status.last_seen_upstream.as_ref().map(from_api),
        observed_generation: status.observed_generation,
        ready: condition(status).map(|ready| Readiness {
            is: ready.status == "True",
            reason: ready.reason.clone(),
            message: ready.message.clone(),
        }),
    }
}

fn number(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn condition(status: &CachedImageStatus) -> Option<&Condition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == READY)
}

/// Returns the status of an object for `plain`. Foreign conditions are preserved, and so is the transition time of ours
/// if its status is unchanged.
pub(super) fn to_status(plain: &Status, before: &CachedImageStatus, now: Timestamp) -> CachedImageStatus {
    let used = |used: &PodUsage| UsedBy {
        pods: used.pods.iter().map(|pod| PodReference { namespaced_name: pod.clone() }).collect(),
        count: used.count,
    };
    let others = before.conditions.iter().flatten().filter(|condition| condition.type_ != READY).cloned();
    let ready = plain.ready.as_ref().map(|ready| {
        let is = if ready.is { "True" } else { "False" };
        let since = condition(before).filter(|before| before.status == is);
        Condition {
            type_: READY.to_owned(),
            status: is.to_owned(),
            reason: ready.reason.clone(),
            message: ready.message.clone(),
            last_transition_time: since
                .map_or_else(|| to_api(now), |before| before.last_transition_time.clone()),
            observed_generation: None,
        }
    });
    let conditions: Vec<Condition> = others.chain(ready).collect();
    CachedImageStatus {
        is_cached: plain.is_cached,
        phase: plain.phase,
        used_by: plain.used_by.as_ref().map(used),
        size: plain.size.map(number),
        progress: plain.progress.map(|transfer| PullProgress {
            done_bytes: number(transfer.done),
            total_bytes: number(transfer.total),
            percent: format!("{}%", transfer.done.saturating_mul(100) / transfer.total.max(1)),
        }),
        digest: plain.digest.clone(),
        upstream_digest: plain.upstream_digest.clone(),
        up_to_date: plain.up_to_date,
        last_sync: plain.last_sync.map(to_api),
        last_successful_pull: plain.last_successful_pull.map(to_api),
        available_upstream: plain.available_upstream,
        last_seen_upstream: plain.last_seen_upstream.map(to_api),
        observed_generation: plain.observed_generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}
