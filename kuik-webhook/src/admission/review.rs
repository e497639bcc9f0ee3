//! What is read of an `AdmissionReview`: who asks about what, and of the objects what decisions are made from.
//!
//! One pass over the text; what nobody looks at is not kept. Only `admission.k8s.io/v1` is understood, which every API
//! server since 1.16 speaks.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::DeserializeSeed as _};
use serde_json::Value;

use super::mask::Mask;

/// The version of reviews that is understood, and answered in.
pub(super) const API_VERSION: &str = "admission.k8s.io/v1";

/// The kind of a review.
pub(super) const KIND: &str = "AdmissionReview";

const CONTAINERS: Mask = Mask::Items(&Mask::Fields(&[
    ("name", Mask::Whole),
    ("image", Mask::Whole),
    ("imagePullPolicy", Mask::Whole),
    ("restartPolicy", Mask::Whole),
]));

const VOLUMES: Mask = Mask::Items(&Mask::Fields(&[
    ("name", Mask::Whole),
    ("image", Mask::Fields(&[("reference", Mask::Whole), ("pullPolicy", Mask::Whole)])),
]));

/// All that is looked at in a pod or a CachedImage.
const OBJECT: Mask = Mask::Fields(&[
    ("kind", Mask::Whole),
    (
        "metadata",
        Mask::Fields(&[
            ("labels", Mask::Whole),
            ("annotations", Mask::Whole),
            ("deletionTimestamp", Mask::Whole),
        ]),
    ),
    (
        "spec",
        Mask::Fields(&[
            ("initContainers", CONTAINERS),
            ("containers", CONTAINERS),
            ("ephemeralContainers", CONTAINERS),
            ("volumes", VOLUMES),
            ("sourceImage", Mask::Whole),
        ]),
    ),
]);

/// A question of the API server.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request: Option<Request<'a>>,
}

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request<'a> {
    #[serde(borrow)]
    pub(super) uid: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) kind: Kind<'a>,
    /// `ephemeralcontainers`, `status`; empty where the object itself is written.
    #[serde(borrow, default)]
    pub(super) sub_resource: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) name: Cow<'a, str>,
    pub(super) operation: Operation,
    #[serde(default)]
    pub(super) dry_run: Option<bool>,
    #[serde(default, deserialize_with = "seen")]
    pub(super) object: Value,
    #[serde(default, deserialize_with = "seen")]
    pub(super) old_object: Value,
}

/// The type of an object.
#[derive(Debug, Deserialize)]
pub(super) struct Kind<'a> {
    #[serde(borrow, default)]
    pub(super) group: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) version: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) kind: Cow<'a, str>,
}

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum Operation {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is removed, connected to, or what a later version knows.
    #[serde(other)]
    Other,
}

/// Why a text is no review that can be answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the body is no {KIND}: {0}")]
    NotAReview(serde_json::Error),
    #[error("the body is {kind:?} of {version:?}: {KIND} of {API_VERSION} is answered")]
    WrongType { kind: String, version: String },
    #[error("the review has no request")]
    NoRequest,
}

impl<'a> Request<'a> {
    /// Reads a review.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let review: Review<'_> = serde_json::from_slice(body).map_err(Malformed::NotAReview)?;
        if review.api_version != API_VERSION || review.kind != KIND {
            let (kind, version) = (short(&review.kind), short(&review.api_version));
            return Err(Malformed::WrongType { kind, version });
        }
        review.request.ok_or(Malformed::NoRequest)
    }
}

/// As much of a stranger's text as is repeated to it.
fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

fn seen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    OBJECT.deserialize(deserializer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_looked_at_is_read_whatever_else_there_is() {
        let body = json!({
            "kind": KIND, "apiVersion": API_VERSION, "new": { "field": [] },
            "request": {
                "uid": "1", "kind": { "group": "", "version": "v1", "kind": "Pod" }, "operation": "CREATE",
                "userInfo": { "username": "x", "groups": ["y"] }, "namespace": "shop", "dryRun": true,
                "object": {
                    "metadata": { "labels": { "a": "b" }, "managedFields": [{}], "name": "web" },
                    "spec": { "containers": [{ "name": "c", "image": "nginx", "env": [{}] }], "nodeName": "n" },
                },
                "oldObject": null,
            },
        });
        let text = body.to_string();
        let request = Request::read(text.as_bytes()).unwrap();
        assert_eq!((&*request.uid, &*request.kind.kind, request.operation), ("1", "Pod", Operation::Create));
        assert_eq!((&*request.namespace, request.dry_run), ("shop", Some(true)));
        let seen = json!({
            "metadata": { "labels": { "a": "b" } },
            "spec": { "containers": [{ "name": "c", "image": "nginx" }] },
        });
        assert_eq!(request.object, seen);
        assert_eq!(request.old_object, Value::Null);
    }

    #[test]
    fn what_is_no_review_of_this_version_is_told_apart() {
        let wrong = |version: &str, kind: &str| json!({ "apiVersion": version, "kind": kind }).to_string();
        let of = |text: &str| Request::read(text.as_bytes()).unwrap_err();
        assert!(matches!(of(&wrong("admission.k8s.io/v1beta1", KIND)), Malformed::WrongType { .. }));
        assert!(matches!(of(&wrong("v1", "Pod")), Malformed::WrongType { .. }));
        assert!(matches!(of("{}"), Malformed::WrongType { .. }));
        assert!(matches!(of(&wrong(API_VERSION, KIND)), Malformed::NoRequest));
        for text in ["", "[]", "7", "{", r#"{"apiVersion": 1}"#, "\u{0}"] {
            assert!(matches!(of(text), Malformed::NotAReview(_)), "{text}");
        }
        let deep = format!(r#"{{"request": {{"object": {{"metadata": {{"labels": {}"#, "[".repeat(100_000));
        assert!(matches!(of(&deep), Malformed::NotAReview(_)));
    }

    #[test]
    fn an_operation_of_tomorrow_is_some_other_one() {
        for text in ["\"DELETE\"", "\"CONNECT\"", "\"REPLACE\""] {
            assert_eq!(serde_json::from_str::<Operation>(text).unwrap(), Operation::Other);
        }
    }
}
