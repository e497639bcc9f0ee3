//! JSON merge patches that contain only the changed fields.
//!
//! Invariant: a patch carries the `resourceVersion` it was made for. If that is no longer current, the API server
//! rejects the patch, so that no concurrent write is lost.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube_core::Resource as _;
use serde_json::{Map, Value, json};

use super::convert::{to_api, to_status};
use crate::{
    controller::cached_image::plan::Status,
    crd::{
        CACHED_IMAGE_FINALIZER, CachedImage, CachedImageStatus, FORCE_UPDATE_ANNOTATION, GROUP,
        REPOSITORY_LABEL, VERSION,
    },
};

/// Returns a patch of `metadata` for this version of the object.
fn metadata(version: &str, mut fields: Map<String, Value>) -> Value {
    fields.insert("resourceVersion".to_owned(), json!(version));
    json!({"metadata": fields})
}

/// Adds the missing finalizer, label and owner reference.
pub(super) fn adopt(
    object: &CachedImage,
    version: &str,
    finalizer: bool,
    label: Option<&str>,
    owner: Option<(&str, &str)>,
) -> Value {
    let mut fields = Map::new();
    if finalizer {
        let mut finalizers = object.meta().finalizers.clone().unwrap_or_default();
        finalizers.push(CACHED_IMAGE_FINALIZER.to_owned());
        fields.insert("finalizers".to_owned(), json!(finalizers));
    }
    if let Some(label) = label {
        fields.insert("labels".to_owned(), json!({REPOSITORY_LABEL: label}));
    }
    if let Some((name, uid)) = owner {
        let owners = object.meta().owner_references.iter().flatten();
        let ours = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "Repository",
            "name": name,
            "uid": uid,
        });
        let others = owners.filter(|owner| !is_repository(owner)).map(|owner| json!(owner));
        fields.insert("ownerReferences".to_owned(), others.chain([ours]).collect());
    }
    metadata(version, fields)
}

/// Returns whether an owner is a Repository of our API group.
pub(super) fn is_repository(owner: &OwnerReference) -> bool {
    owner.kind == "Repository" && owner.api_version.split('/').next() == Some(GROUP)
}

/// Removes our finalizer.
pub(super) fn release(object: &CachedImage, version: &str) -> Value {
    let finalizers = object.meta().finalizers.iter().flatten();
    let others: Vec<&String> = finalizers.filter(|finalizer| *finalizer != CACHED_IMAGE_FINALIZER).collect();
    metadata(version, Map::from_iter([("finalizers".to_owned(), json!(others))]))
}

/// Removes the annotation that requests a refresh.
pub(super) fn clear_force_update(version: &str) -> Value {
    metadata(version, Map::from_iter([("annotations".to_owned(), json!({FORCE_UPDATE_ANNOTATION: null}))]))
}

/// Sets or clears `spec.expiresAt`.
pub(super) fn expiry(version: &str, date: Option<Timestamp>) -> Value {
    json!({"metadata": {"resourceVersion": version}, "spec": {"expiresAt": date.map(to_api)}})
}

/// Returns the patch that sets the status of `object` to `plain`; `None` if nothing differs.
pub(super) fn status(
    object: &CachedImage,
    version: &str,
    plain: &Status,
    now: Timestamp,
) -> Result<Option<Value>, serde_json::Error> {
    let before = object.status.clone().unwrap_or_default();
    let after = to_status(plain, &before, now);
    let fields = difference(&before, &after)?;
    Ok((!fields.is_empty()).then(|| json!({"metadata": {"resourceVersion": version}, "status": fields})))
}

/// Returns the differing fields as a merge patch; removed fields are null.
fn difference(
    before: &CachedImageStatus,
    after: &CachedImageStatus,
) -> Result<Map<String, Value>, serde_json::Error> {
    let fields = |status: &CachedImageStatus| {
        serde_json::to_value(status).map(|value| match value {
            Value::Object(fields) => fields,
            _ => Map::new(),
        })
    };
    let (before, mut after) = (fields(before)?, fields(after)?);
    for (name, value) in &before {
        if after.get(name) == Some(value) {
            after.remove(name);
        } else if !after.contains_key(name) {
            after.insert(name.clone(), Value::Null);
        } else if name == "usedBy"
            && let Some(Value::Object(used)) = after.get_mut(name)
        {
            // An empty list is not serialized, but has to replace the previous one.
            used.entry("pods").or_insert_with(|| json!([]));
        }
    }
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        controller::cached_image::plan::PodUsage,
        crd::{CachedImagePhase, CachedImageSpec},
    };

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn status_patch_contains_only_changed_fields() {
        let mut object = CachedImage::new("x", CachedImageSpec::default());
        let mut plain = Status::default();
        assert_eq!(status(&object, "7", &plain, now()).unwrap(), None);

        plain.is_cached = Some(true);
        plain.phase = Some(CachedImagePhase::Ready);
        plain.used_by = Some(PodUsage { pods: vec!["a/b".to_owned()], count: 1 });
        plain.last_sync = Some(now());
        let patch = status(&object, "7", &plain, now()).unwrap().unwrap();
        assert_eq!(patch["metadata"], json!({"resourceVersion": "7"}));
        assert_eq!(
            patch["status"],
            json!({
                "isCached": true, "phase": "Ready", "lastSync": "2027-01-15T08:00:00Z",
                "usedBy": {"count": 1, "pods": [{"namespacedName": "a/b"}]},
            })
        );
        object.status = Some(to_status(&plain, &CachedImageStatus::default(), now()));
        assert_eq!(status(&object, "8", &plain, now()).unwrap(), None, "a written status needs no patch");

        plain.used_by = Some(PodUsage::default());
        plain.last_sync = None;
        let patch = status(&object, "8", &plain, now()).unwrap().unwrap();
        assert_eq!(patch["status"], json!({"lastSync": null, "usedBy": {"count": 0, "pods": []}}));
    }

    #[test]
    fn patches_preserve_foreign_finalizers() {
        let mut object = CachedImage::new("x", CachedImageSpec::default());
        object.metadata.finalizers = Some(vec!["another/finalizer".to_owned()]);
        let patch = adopt(&object, "7", true, None, Some(("r", "u")));
        assert_eq!(patch["metadata"]["finalizers"], json!(["another/finalizer", CACHED_IMAGE_FINALIZER]));
        assert_eq!(patch["metadata"]["ownerReferences"][0]["uid"], json!("u"));
        object.metadata.finalizers.as_mut().unwrap().push(CACHED_IMAGE_FINALIZER.to_owned());
        assert_eq!(release(&object, "8")["metadata"]["finalizers"], json!(["another/finalizer"]));
    }
}
