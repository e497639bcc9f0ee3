//! Admission reviews: every body gets a response, a pod is never denied, and every patch applies to its object.
#![no_main]

use std::sync::LazyLock;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::FutureExt as _;
use http::StatusCode;
use http_body_util::BodyExt as _;
use kuik_core::{
    reference::ProxyAuthority,
    rewrite::{ImagePatterns, Rewriter, StandardPolicy},
};
use kuik_webhook::admission::{AdmissionOptions, AdmissionService, CACHED_IMAGE_PATH, POD_PATH};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static SERVICE: LazyLock<AdmissionService> = LazyLock::new(|| {
    let patterns = ImagePatterns::new(&["ignored"], &[] as &[&str]).expect("a valid pattern");
    let policy = StandardPolicy::new().with_patterns(patterns);
    let rewriter = Rewriter::new(ProxyAuthority::localhost(7439), policy);
    AdmissionService::new(AdmissionOptions::new(rewriter).with_ignored_namespaces(["kuik"]))
});

fuzz_target!(|body: &[u8]| {
    for path in [POD_PATH, CACHED_IMAGE_PATH] {
        let response = SERVICE.review(path, body);
        if response.status() != StatusCode::OK {
            assert_eq!(response.status(), StatusCode::BAD_REQUEST);
            continue;
        }
        let answer = response.into_body().collect().now_or_never().expect("it is there").expect("it is whole");
        let answer: Value = serde_json::from_slice(&answer.to_bytes()).expect("an answer is JSON");
        let allowed = answer.pointer("/response/allowed").and_then(Value::as_bool).expect("there is a verdict");
        assert!(allowed || path == CACHED_IMAGE_PATH, "a pod is denied");
        let Some(patch) = answer.pointer("/response/patch").and_then(Value::as_str) else { continue };
        let patch = BASE64_STANDARD.decode(patch).expect("a patch is base64");
        let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a patch is one");
        // A number of unbounded size in an ignored field is parsed here only; other parsers cannot apply the patch.
        let Ok(review) = serde_json::from_slice::<Value>(body) else { continue };
        let mut object = review.pointer("/request/object").cloned().unwrap_or_default();
        json_patch::patch(&mut object, &patch).expect("the patch can be applied");
    }
});
