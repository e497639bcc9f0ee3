//! Deserialization of an `AdmissionReview`: the request, and the fields of its objects that decisions depend on.
//!
//! One pass over the text, in which unused fields are discarded. Only `admission.k8s.io/v1` is supported, which API servers
//! send since 1.16.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::DeserializeSeed as _};
use serde_json::Value;

use super::projection::Projection;

/// The supported API version of reviews.
pub(super) const API_VERSION: &str = "admission.k8s.io/v1";

/// The kind of a review.
pub(super) const KIND: &str = "AdmissionReview";

const CONTAINERS: Projection = Projection::Items(&Projection::Fields(&[
    ("name", Projection::Whole),
    ("image", Projection::Whole),
    ("imagePullPolicy", Projection::Whole),
    ("restartPolicy", Projection::Whole),
]));

const VOLUMES: Projection = Projection::Items(&Projection::Fields(&[
    ("name", Projection::Whole),
    ("image", Projection::Fields(&[("reference", Projection::Whole), ("pullPolicy", Projection::Whole)])),
]));

/// The fields of a pod or a CachedImage in use.
const OBJECT: Projection = Projection::Fields(&[
    ("kind", Projection::Whole),
    (
        "metadata",
        Projection::Fields(&[
            ("labels", Projection::Whole),
            ("annotations", Projection::Whole),
            ("deletionTimestamp", Projection::Whole),
        ]),
    ),
    (
        "spec",
        Projection::Fields(&[
            ("initContainers", CONTAINERS),
            ("containers", CONTAINERS),
            ("ephemeralContainers", CONTAINERS),
            ("volumes", VOLUMES),
            ("serviceAccountName", Projection::Whole),
            ("priorityClassName", Projection::Whole),
            ("hostNetwork", Projection::Whole),
            ("os", Projection::Whole),
            ("nodeSelector", Projection::Whole),
            ("tolerations", Projection::Whole),
            ("sourceImage", Projection::Whole),
        ]),
    ),
]);

/// The body of a review.
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

/// The request of a review.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request<'a> {
    #[serde(borrow)]
    pub(super) uid: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) kind: Kind<'a>,
    /// Such as `ephemeralcontainers` or `status`; empty for the object itself.
    #[serde(borrow, default)]
    pub(super) sub_resource: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) name: Cow<'a, str>,
    pub(super) operation: Operation,
    #[serde(default)]
    pub(super) dry_run: Option<bool>,
    #[serde(default, deserialize_with = "projected")]
    pub(super) object: Value,
    #[serde(default, deserialize_with = "projected")]
    pub(super) old_object: Value,
}

/// The group, version and kind of an object.
#[derive(Debug, Deserialize)]
pub(super) struct Kind<'a> {
    #[serde(borrow, default)]
    pub(super) group: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) version: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) kind: Cow<'a, str>,
}

/// The operation on an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum Operation {
    /// Create.
    Create,
    /// Update.
    Update,
    /// Delete, connect, or an operation of a later version.
    #[serde(other)]
    Other,
}

/// Why a body is not a supported review.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the body is not an {KIND}: {0}")]
    NotAReview(serde_json::Error),
    #[error("the body is a {kind:?} of {version:?}, expected an {KIND} of {API_VERSION}")]
    WrongType { kind: String, version: String },
    #[error("the review has no request")]
    NoRequest,
}

impl<'a> Request<'a> {
    /// Parses the body of a review.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let review: Review<'_> = serde_json::from_slice(body).map_err(Malformed::NotAReview)?;
        if review.api_version != API_VERSION || review.kind != KIND {
            let (kind, version) = (short(&review.kind), short(&review.api_version));
            return Err(Malformed::WrongType { kind, version });
        }
        review.request.ok_or(Malformed::NoRequest)
    }
}

/// Truncates text of the client for an error message.
fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

fn projected<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    OBJECT.deserialize(deserializer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parse_reads_known_fields_and_ignores_others() {
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
        let request = Request::parse(text.as_bytes()).unwrap();
        assert_eq!((&*request.uid, &*request.kind.kind, request.operation), ("1", "Pod", Operation::Create));
        assert_eq!((&*request.namespace, request.dry_run), ("shop", Some(true)));
        let expected = json!({
            "metadata": { "labels": { "a": "b" } },
            "spec": { "containers": [{ "name": "c", "image": "nginx" }] },
        });
        assert_eq!(request.object, expected);
        assert_eq!(request.old_object, Value::Null);
    }

    #[test]
    fn parse_rejects_other_kinds_and_versions() {
        let wrong = |version: &str, kind: &str| json!({ "apiVersion": version, "kind": kind }).to_string();
        let error = |text: &str| Request::parse(text.as_bytes()).unwrap_err();
        assert!(matches!(error(&wrong("admission.k8s.io/v1beta1", KIND)), Malformed::WrongType { .. }));
        assert!(matches!(error(&wrong("v1", "Pod")), Malformed::WrongType { .. }));
        assert!(matches!(error("{}"), Malformed::WrongType { .. }));
        assert!(matches!(error(&wrong(API_VERSION, KIND)), Malformed::NoRequest));
        for text in ["", "[]", "7", "{", r#"{"apiVersion": 1}"#, "\u{0}"] {
            assert!(matches!(error(text), Malformed::NotAReview(_)), "{text}");
        }
        let deep = format!(r#"{{"request": {{"object": {{"metadata": {{"labels": {}"#, "[".repeat(100_000));
        assert!(matches!(error(&deep), Malformed::NotAReview(_)));
    }

    #[test]
    fn unknown_operation_is_other() {
        for text in ["\"DELETE\"", "\"CONNECT\"", "\"REPLACE\""] {
            assert_eq!(serde_json::from_str::<Operation>(text).unwrap(), Operation::Other);
        }
    }
}
