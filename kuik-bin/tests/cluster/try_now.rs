//! Annotations that ask the controllers to try now: they verify every hour only, and an image that failed waits longer than
//! this test does.

use std::{fs, time::Duration};

use crate::support::{Kuik, api_server, eventually, is_cached, name_of_app, object, pod, within};
use http::StatusCode;
use kuik_testkit::{
    Behavior, Rule, SampleImage, ScriptedRegistry, Target,
    real::{KubeUser, free_address},
};

/// Annotates all images, as the documentation says.
async fn annotate(admin: &KubeUser, annotation: &str) {
    admin.kubectl(["annotate", "cachedimages", "--all", "--overwrite", annotation]).await.unwrap();
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn changed_annotation_verifies_every_image_and_pulls_the_missing_ones() {
    let upstream = ScriptedRegistry::start().await.unwrap();
    let host = upstream.host();
    upstream.add_image("team/app", "v1", &SampleImage::small(901));
    let server = api_server().await;
    let admin = server.admin();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let cache = free_address().await.unwrap().to_string();
    let registry = Kuik::open_cache(&cache, &data, &host).await;
    let user = server.user("controllers", None).unwrap();
    let arguments = ["--registry-token-secret=", "--verify-interval=1h"];
    let _controller = Kuik::controllers(&user, &cache, &arguments).await;

    let [first, second] = ["v1", "v2"].map(|tag| name_of_app(&host, tag));
    admin.apply(&pod("first", &format!("{host}/team/app:v1")).to_string()).await.unwrap();
    eventually("the first image is cached", async || is_cached(admin, &first).await).await;

    // The second image is missing upstream, is tried at growing intervals, and is added between two attempts.
    let missing =
        Rule::on(Target::Manifest).path("/manifests/v2").does(Behavior::status(StatusCode::NOT_FOUND));
    upstream.script(missing);
    admin.apply(&pod("second", &format!("{host}/team/app:v2")).to_string()).await.unwrap();
    let attempts = || upstream.log().iter().filter(|asked| asked.path.ends_with("/manifests/v2")).count();
    within(Duration::from_secs(150), "the third retry fails", async || {
        let events = object(admin, &["cachedimages", &second]).await;
        attempts() >= 4 && events.is_some_and(|image| image["status"]["phase"] == "ErrImagePull")
    })
    .await;
    upstream.clear_script();
    upstream.add_image("team/app", "v2", &SampleImage::small(902));
    // The cache is lost, and the next verification is in an hour.
    registry.kill().await;
    fs::remove_dir_all(&data).unwrap();
    let _registry = Kuik::open_cache(&cache, &data, &host).await;
    assert!(is_cached(admin, &first).await);

    annotate(admin, "timestamp=1").await;
    within(Duration::from_secs(15), "the second image is cached without waiting", async || {
        is_cached(admin, &second).await
    })
    .await;
    let pulls = || {
        let log = upstream.log();
        log.iter().filter(|asked| asked.path.contains("/blobs/") && asked.method == "GET").count()
    };
    let layers = SampleImage::small(901).blobs().len();
    within(Duration::from_secs(15), "the first image is in the cache again", async || {
        is_cached(admin, &first).await && data_has_blobs(&data, layers)
    })
    .await;

    // Both are there: asked again, nothing is pulled.
    let before = pulls();
    annotate(admin, "timestamp=2").await;
    annotate(admin, "cachedimage.kuik.enix.io/forceUpdate=true").await;
    eventually("the refresh is done, which clears the annotation", async || {
        let list = object(admin, &["cachedimages"]).await.unwrap();
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|image| image["metadata"]["annotations"]["cachedimage.kuik.enix.io/forceUpdate"].is_null())
    })
    .await;
    assert_eq!(pulls(), before, "no blob is fetched again");
}

/// Whether a store has at least this many blobs.
fn data_has_blobs(data: &std::path::Path, count: usize) -> bool {
    let blobs = data.join("docker/registry/v2/blobs/sha256");
    let folders = fs::read_dir(blobs).into_iter().flatten().flatten();
    folders.filter_map(|folder| fs::read_dir(folder.path()).ok()).flatten().count() >= count
}
