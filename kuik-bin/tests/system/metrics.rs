//! docs/metrics.md and the registry say the same: each metric that one has, the other has, and it moves.

use std::collections::BTreeMap;

use crate::support::{
    Kuik, Transfer, ask, blob_data, documented, eventually, get, proxied, pull_with_skopeo, push,
    sample_name, types,
};
use kuik_core::content::Digest;
use kuik_testkit::SampleImage;
use kuik_testkit::real::{DockerRegistry, RegistryOptions};

/// Metrics that only faults outside of this test change, or that have returned to zero.
const UNMOVED: [&str; 14] = [
    "kube_image_keeper_upstream_breaker_open",
    "kube_image_keeper_upstream_held_seconds",
    "kube_image_keeper_upstream_quota_limit",
    "kube_image_keeper_upstream_quota_remaining",
    "kube_image_keeper_upstream_requests_in_flight",
    "kube_image_keeper_registry_gc_failed_runs_total",
    "kube_image_keeper_registry_gc_purged_uploads_total",
    "kube_image_keeper_registry_gc_reclaimed_bytes_total",
    "kube_image_keeper_registry_scrub_interrupted_passes_total",
    "kube_image_keeper_registry_scrub_unreadable_total",
    "kube_image_keeper_registry_quota_failed_total",
    "kube_image_keeper_registry_retention_failed_total",
    "kube_image_keeper_registry_unmanaged_expired_images_total",
    "kube_image_keeper_registry_uploads_in_flight",
];

/// Whether a metric is of the registry: the webhook and the controllers have processes and tests of their own.
fn is_of_registry(name: &str) -> bool {
    let others = ["kube_image_keeper_controller_", "kube_image_keeper_webhook_", "kube_image_keeper_tls_"];
    !others.iter().any(|other| name.starts_with(other))
}

/// The metrics that are exposed, with the sum of their samples.
async fn exposed(registry: &Kuik) -> BTreeMap<String, f64> {
    let text = String::from_utf8(get(registry.address(), "/metrics").await.body).unwrap();
    let mut sums = BTreeMap::new();
    for (name, kind) in types(&text) {
        let name = sample_name(name, kind);
        let samples = if kind == "histogram" { format!("{name}_count") } else { name.clone() };
        let of_it = |line: &&str| line.split(['{', ' ']).next() == Some(samples.as_str());
        let value = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
        sums.insert(name, text.lines().filter(of_it).map(value).sum());
    }
    sums
}

async fn post(registry: &Kuik, target: &str, body: &[u8]) -> u16 {
    let length = body.len();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    Transfer::raw(registry.address(), &[head.as_bytes(), body].concat()).await.status
}

#[tokio::test]
async fn every_metric_is_documented_and_moves() {
    let mut upstream = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let image = |seed| SampleImage::builder().seed(seed).platform("linux", "amd64").layer(1 << 20).build();
    let (one, other) = (image(31), image(32));
    for (name, image) in [("one", &one), ("other", &other)] {
        push(image, &format!("{}/{name}:v1", upstream.host()), &[]).await;
    }
    let data = tempfile::tempdir().unwrap();
    let host = upstream.host();
    let registry = Kuik::registry(
        data.path(),
        &[
            "--pull-through",
            "--insecure-registries",
            &host,
            "--allow-anonymous-push",
            "--max-size",
            "2M",
            "--scrub-interval",
            "1s",
            "--scrub-rate",
            "1Gi",
        ],
    )
    .await;
    let (first, second) = (proxied(&host, "one"), proxied(&host, "other"));
    let reference = format!("{}/{first}:v1", registry.host());
    pull_with_skopeo(&reference, &one).await;
    pull_with_skopeo(&reference, &one).await;

    // Uploads: one that is finished, one with another digest, one that is given up, and one for which is no room.
    let upload = |bytes: &[u8]| format!("/v2/pushed/blobs/uploads/?digest={}", Digest::sha256(bytes));
    let upload = |bytes: &[u8]| upload(bytes).replace("pushed", &first);
    assert_eq!(post(&registry, &upload(b"right"), b"right").await, 201);
    assert_eq!(post(&registry, &upload(b"right"), b"wrong").await, 400);
    let begun = ask(registry.address(), "POST", &format!("/v2/{first}/blobs/uploads/")).await;
    let location = begun.header("location");
    let path = location.find("/v2/").map(|start| &location[start..]).unwrap();
    assert_eq!(ask(registry.address(), "DELETE", path).await.status, 204);
    let large = vec![0; 3_000_000];
    assert_eq!(post(&registry, &upload(&large), &large).await, 507);

    // One cluster says that an image has expired, which makes room; another one that the image is in use there, and
    // so the first may not delete its tag.
    let send = async |head: &str, body: &str| {
        let request = format!(
            "{head} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nKuik-Cluster: one\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Transfer::raw(registry.address(), request.as_bytes()).await.status
    };
    let used = format!(r#"{{"repositories":{{"{first}":{{"v1":{{"state":"inUse"}}}}}}}}"#);
    assert_eq!(send("PUT /kuik/v1/retention/other", &used).await, 204);
    assert_eq!(send(&format!("DELETE /v2/{first}/manifests/v1"), "").await, 409);
    assert_eq!(send("DELETE /kuik/v1/retention/other", "").await, 204);
    let expired = format!(r#"{{"repositories":{{"{first}":{{"v1":{{"state":"unused","expiresAt":1}}}}}}}}"#);
    assert_eq!(send("PUT /kuik/v1/retention/one", &expired).await, 204);
    eventually("an image is evicted", async || {
        pull_with_skopeo(&format!("{}/{second}:v1", registry.host()), &other).await;
        exposed(&registry).await.get("kube_image_keeper_registry_quota_evicted_bytes_total") > Some(&0.0)
    })
    .await;

    // Something is damaged, and found.
    let present = [&one, &other].into_iter().flat_map(|image| image.blobs().keys());
    let damaged = present.map(|digest| blob_data(data.path(), digest)).find(|path| path.exists()).unwrap();
    std::fs::write(&damaged, "damaged").unwrap();
    eventually("a scrub finds it", async || {
        exposed(&registry).await.get("kube_image_keeper_registry_scrub_damaged_total") > Some(&0.0)
    })
    .await;
    eventually("a pass ends", async || {
        exposed(&registry).await.get("kube_image_keeper_registry_scrub_passes_total") > Some(&0.0)
    })
    .await;

    assert_eq!(post(&registry, "/kuik/v1/gc", b"").await, 200);

    upstream.stop().await.unwrap();
    let stale = format!("/v2/{second}/manifests/v1");
    let stale = Transfer::begin(registry.address(), "GET", &stale, "Cache-Control: no-cache\r\n").await;
    assert_eq!(stale.status, 200);

    let exposed = exposed(&registry).await;
    let names: Vec<_> = exposed.keys().cloned().collect();
    assert_eq!(names, documented(is_of_registry), "what is exposed, and what docs/metrics.md says");
    for (name, sum) in &exposed {
        assert!(*sum > 0.0 || UNMOVED.contains(&name.as_str()), "{name} has not moved");
    }
}
