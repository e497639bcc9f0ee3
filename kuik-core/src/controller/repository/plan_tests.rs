//! Tests of the Repository plan.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde_json::json;

use super::plan::{CHECKS_PAUSE, Finalizer, Happened, Observed, Plan, plan};
use crate::crd::{CachedImage, PullSecret, REPOSITORY_FINALIZER, Repository, RepositoryPhase};

const NOW: &str = "2026-01-01T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn repository(json: serde_json::Value) -> Repository {
    let mut whole = json!({
        "apiVersion": "kuik.enix.io/v1alpha1", "kind": "Repository",
        "metadata": { "name": "r", "finalizers": [REPOSITORY_FINALIZER], "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "name": "docker.io/library/nginx" }
    });
    let serde_json::Value::Object(parts) = json else { panic!("an object is expected") };
    for (part, fields) in parts {
        for (key, value) in fields.as_object().unwrap() {
            whole[&part][key] = value.clone();
        }
    }
    serde_json::from_value(whole).unwrap()
}

fn image(phase: Option<&str>, last_sync: Option<&str>) -> CachedImage {
    serde_json::from_value(json!({
        "apiVersion": "kuik.enix.io/v1alpha1", "kind": "CachedImage",
        "metadata": { "name": "i" }, "spec": { "sourceImage": "nginx:1" },
        "status": { "phase": phase, "lastSync": last_sync, "isCached": phase == Some("Ready") }
    }))
    .unwrap()
}

fn planned(repository: &Repository, images: &[CachedImage]) -> Plan {
    let images: Vec<_> = images.iter().collect();
    plan(&Observed { repository, images: &images, pull_secrets: None }, now())
}

#[test]
fn phase_is_that_of_the_worst_image() {
    let fresh = repository(json!({}));
    for (phases, phase, ready, reason) in [
        (&[][..], RepositoryPhase::Ready, "True", "UpToDate"),
        (&[Some("Ready"), Some("Synchronizing")], RepositoryPhase::Pulling, "False", "Pulling"),
        (&[Some("Ready"), Some("Terminating")], RepositoryPhase::Ready, "True", "UpToDate"),
        (&[Some("Ready"), None], RepositoryPhase::Pulling, "False", "Pulling"),
        (&[Some("Ready"), Some("Pulling")], RepositoryPhase::Pulling, "False", "Pulling"),
        (&[Some("ErrImagePull"), Some("Pulling")], RepositoryPhase::ErrImagePull, "False", "ErrImagePull"),
    ] {
        let images: Vec<_> = phases.iter().map(|phase| image(*phase, None)).collect();
        let status = planned(&fresh, &images).status.unwrap();
        assert_eq!((status.images, status.phase), (Some(i64::try_from(images.len()).unwrap()), Some(phase)));
        let condition = &status.conditions.unwrap()[0];
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), (ready, reason), "{phases:?}");
    }
}

#[test]
fn unchanged_status_is_not_written() {
    let mut repository = repository(json!({}));
    let images = [image(Some("Ready"), None)];
    repository.status = planned(&repository, &images).status;
    assert_eq!(planned(&repository, &images), Plan::default());
}

#[test]
fn foreign_conditions_and_own_transition_time_are_preserved() {
    let before = "2025-01-01T00:00:00Z";
    let condition = |type_: &str| json!({ "type": type_, "status": "True", "reason": "r", "message": "m", "lastTransitionTime": before });
    let repository =
        repository(json!({ "status": { "conditions": [condition("Ready"), condition("Other")] } }));
    let conditions = planned(&repository, &[]).status.unwrap().conditions.unwrap();
    assert_eq!(conditions.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(), ["Other", "Ready"]);
    assert_eq!(conditions[1].last_transition_time.0.to_string(), before);
    assert_eq!(conditions[1].reason, "UpToDate");
}

#[test]
fn deletion_deletes_images_and_waits_for_them() {
    let deleted = json!({ "metadata": { "deletionTimestamp": NOW } });
    let plan = planned(&repository(deleted.clone()), &[image(Some("Ready"), None)]);
    assert_eq!((plan.finalizer, plan.delete.as_slice()), (None, &["i".to_owned()][..]));
    assert_eq!(plan.event, Some(Happened::Terminating));
    assert_eq!(plan.status.as_ref().unwrap().phase, Some(RepositoryPhase::Terminating));

    let mut going = image(Some("Terminating"), None);
    going.metadata.deletion_timestamp = Some(Time(now()));
    let mut repository = repository(deleted);
    repository.status = plan.status;
    assert_eq!(planned(&repository, &[going]), Plan::default());
    assert_eq!(planned(&repository, &[]).finalizer, Some(Finalizer::Remove));
    repository.metadata.finalizers = None;
    assert_eq!(planned(&repository, &[]), Plan::default());
}

#[test]
fn manually_created_object_gets_the_finalizer() {
    let plan = planned(&repository(json!({ "metadata": { "finalizers": null } })), &[]);
    assert_eq!(plan.finalizer, Some(Finalizer::Add));
}

#[test]
fn interval_ends_when_all_matching_images_are_checked() {
    let spec = |filters: serde_json::Value| {
        json!({ "spec": { "updateInterval": "1h", "updateFilters": filters },
                "status": { "lastUpdate": "2026-01-01T10:30:00Z" } })
    };
    let (stale, checked) = ("2026-01-01T11:29:59Z", "2026-01-01T11:30:00Z");
    for (filters, syncs, done) in [
        (json!(null), vec![Some(stale)], false),
        (json!(null), vec![Some(checked)], true),
        (json!(null), vec![Some(checked), Some(stale)], false),
        (json!(null), vec![Some(checked), None], false),
        (json!(["redis", "ngin.:1$"]), vec![Some(stale)], false),
    ] {
        let images: Vec<_> = syncs.iter().map(|sync| image(Some("Ready"), *sync)).collect();
        let plan = planned(&repository(spec(filters.clone())), &images);
        let updated = plan.status.unwrap().last_update.unwrap().0;
        assert_eq!(updated == now(), done, "{filters} {syncs:?}");
        assert_eq!(plan.event == Some(Happened::UpToDate), done);
        let again = if done { Duration::from_secs(3600) } else { CHECKS_PAUSE };
        assert_eq!(plan.again, Some(again));
    }
}

#[test]
fn no_event_if_there_is_nothing_to_check() {
    let mut by_digest = image(Some("Ready"), None);
    by_digest.spec.source_image = format!("nginx@sha256:{}", "a".repeat(64));
    let by_tag = || image(Some("Ready"), None);
    for (filters, images) in [
        (json!(["redis"]), vec![]),
        (json!(["redis"]), vec![by_tag()]),
        // One invalid filter disables all of them.
        (json!(["(", "nginx"]), vec![by_tag()]),
        (json!(null), vec![by_digest]),
    ] {
        let spec = json!({ "spec": { "updateInterval": "10m", "updateFilters": filters } });
        let plan = planned(&repository(spec), &images);
        assert_eq!(plan.status.unwrap().last_update, None);
        assert_eq!((plan.event, plan.again), (None, Some(Duration::from_secs(600))), "{filters}");
    }
}

#[test]
fn future_last_update_does_not_delay_checks() {
    let future =
        json!({ "spec": { "updateInterval": "1h" }, "status": { "lastUpdate": "2027-01-01T00:00:00Z" } });
    let plan = planned(&repository(future), &[image(Some("Ready"), None)]);
    assert_eq!(plan.again, Some(CHECKS_PAUSE), "checks are due and one is not done");
}

#[test]
fn no_check_is_due_before_the_interval_or_without_one() {
    let waiting =
        json!({ "spec": { "updateInterval": "1h" }, "status": { "lastUpdate": "2026-01-01T11:30:00Z" } });
    let plan = planned(&repository(waiting), &[image(Some("Ready"), None)]);
    assert_eq!((plan.again, plan.event), (Some(Duration::from_secs(1800)), None));
    // Counted from its creation.
    let first = planned(&repository(json!({ "spec": { "updateInterval": "13h" } })), &[]);
    assert_eq!(first.again, Some(Duration::from_secs(3600)));
    for interval in ["0s", "often", "-1h"] {
        let plan = planned(&repository(json!({ "spec": { "updateInterval": interval } })), &[]);
        assert_eq!(plan.again, None, "{interval}");
    }
}

#[test]
fn secrets_are_kept_while_usage_is_unknown() {
    let secret = |name: &str| PullSecret { namespace: "shop".to_owned(), name: name.to_owned() };
    let repository = repository(json!({ "status": { "pullSecrets": [secret("old")] } }));
    let of = |pull_secrets| {
        let plan = plan(&Observed { repository: &repository, images: &[], pull_secrets }, now());
        plan.status.unwrap().pull_secrets
    };
    assert_eq!(of(None), Some(vec![secret("old")]));
    assert_eq!(of(Some(vec![secret("new")])), Some(vec![secret("new")]));
    assert_eq!(of(Some(Vec::new())), None);
}
