//! Admission reviews: whatever arrives, there is an answer; a pod is never refused; and a patch can be applied to the
//! object that it is for.
#![no_main]

use std::sync::{Arc, LazyLock};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::FutureExt as _;
use http::StatusCode;
use http_body_util::BodyExt as _;
use kuik_core::{
    reference::ProxyAuthority,
    rewrite::{ImagePatterns, StandardPolicy},
};
use kuik_webhook::admission::{
    Admission, AdmissionMetrics, AdmissionService, CACHED_IMAGE_PATH, IgnoredNamespaces, POD_PATH,
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static SERVICE: LazyLock<AdmissionService> = LazyLock::new(|| {
    let proxy = ProxyAuthority::localhost(7439);
    let patterns = ImagePatterns::new(&["ignored"], &[] as &[&str]).expect("it is a pattern");
    let policy = Arc::new(StandardPolicy::new(proxy.clone()).with_patterns(patterns));
    let ignored = IgnoredNamespaces::new(["kuik".to_owned()]);
    AdmissionService::new(Admission::new(policy, proxy, ignored), AdmissionMetrics::default())
});

fuzz_target!(|body: &[u8]| {
    for path in [POD_PATH, CACHED_IMAGE_PATH] {
        let response = SERVICE.answer(path, body);
        if response.status() != StatusCode::OK {
            assert_eq!(response.status(), StatusCode::BAD_REQUEST);
            continue;
        }
        let answer = response.into_body().collect().now_or_never().expect("it is there").expect("it is whole");
        let answer: Value = serde_json::from_slice(&answer.to_bytes()).expect("an answer is JSON");
        let allowed = answer.pointer("/response/allowed").and_then(Value::as_bool).expect("there is a verdict");
        assert!(allowed || path == CACHED_IMAGE_PATH, "a pod is refused");
        let Some(patch) = answer.pointer("/response/patch").and_then(Value::as_str) else { continue };
        let patch = BASE64_STANDARD.decode(patch).expect("a patch is base64");
        let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a patch is one");
        // What only we can read (a number without end in a field that nobody looks at) cannot be patched by others.
        let Ok(review) = serde_json::from_slice::<Value>(body) else { continue };
        let mut object = review.pointer("/request/object").cloned().unwrap_or_default();
        json_patch::patch(&mut object, &patch).expect("the patch can be applied");
    }
});
