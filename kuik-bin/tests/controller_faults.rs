//! `kuik-controller` as it is run while things go wrong around it: the cache loses all that it has, the leader is killed,
//! the API server is. No process is started again to mend it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod support;

use std::fs;

use kuik_core::testkit::{
    SampleImage,
    real::{DockerRegistry, KubeUser, RegistryOptions, free_address},
};
use support::{
    Kuik, api_server, eventually, get, is_cached, name_of_app, object, pod, proxied, pull_with_skopeo, push,
};

/// Docker's registry with one image under these tags of `team/app`.
async fn source(image: &SampleImage, tags: &[String]) -> DockerRegistry {
    let docker = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    for tag in tags {
        push(image, &format!("{}/team/app:{tag}", docker.host()), &[]).await;
    }
    docker
}

/// The controllers over a cache that anybody may write to.
async fn controller(user: &KubeUser, cache: &str, arguments: &[&str]) -> Kuik {
    Kuik::controllers(user, cache, &[&["--registry-token-secret="], arguments].concat()).await
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn a_wiped_cache_is_told_and_filled_again() {
    let server = api_server().await;
    let admin = server.admin();
    let image = SampleImage::small(81);
    let mut docker = source(&image, &["v1".to_owned()]).await;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let cache = free_address().await.unwrap().to_string();
    let registry = Kuik::open_cache(&cache, &data, &docker.host()).await;
    let user = server.user("controllers", None).unwrap();
    let _controller = controller(&user, &cache, &["--verify-interval=2s"]).await;

    admin.apply(&pod("web", &format!("{}/team/app:v1", docker.host())).to_string()).await.unwrap();
    let name = name_of_app(&docker.host(), "v1");
    eventually("the image is cached", async || is_cached(admin, &name).await).await;

    // The volume is lost while the source is away: nobody can repair it, so status has to say what is so.
    docker.stop().await.unwrap();
    registry.kill().await;
    fs::remove_dir_all(&data).unwrap();
    let _registry = Kuik::open_cache(&cache, &data, &docker.host()).await;
    eventually("status tells that the image is gone", async || {
        object(admin, &["cachedimages", &name]).await.unwrap()["status"]["isCached"] == false
    })
    .await;

    docker.resume().await.unwrap();
    eventually("the image is there again", async || is_cached(admin, &name).await).await;
    docker.stop().await.unwrap();
    pull_with_skopeo(&format!("{cache}/{}:v1", proxied(&docker.host(), "team/app")), &image).await;
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn another_replica_goes_on_where_the_leader_is_killed() {
    let server = api_server().await;
    let admin = server.admin();
    let image = SampleImage::small(82);
    let docker = source(&image, &["v1".to_owned(), "v2".to_owned()]).await;
    let folder = tempfile::tempdir().unwrap();
    let cache = free_address().await.unwrap().to_string();
    let _registry = Kuik::open_cache(&cache, &folder.path().join("data"), &docker.host()).await;
    let user = server.user("controllers", None).unwrap();

    let leads = async |replica: &Kuik| {
        let metrics = String::from_utf8(get(replica.address(), "/metrics").await.body).unwrap();
        metrics.contains("kube_image_keeper_controller_is_leader 1\n")
    };
    let first = controller(&user, &cache, &["--leader-elect"]).await;
    eventually("the first one leads", async || leads(&first).await).await;
    let second = controller(&user, &cache, &["--leader-elect"]).await;
    admin.apply(&pod("one", &format!("{}/team/app:v1", docker.host())).to_string()).await.unwrap();
    eventually("an image is cached", async || is_cached(admin, &name_of_app(&docker.host(), "v1")).await)
        .await;
    assert!(!leads(&second).await);

    first.kill().await;
    admin.apply(&pod("two", &format!("{}/team/app:v2", docker.host())).to_string()).await.unwrap();
    eventually("the next image is cached", async || {
        is_cached(admin, &name_of_app(&docker.host(), "v2")).await
    })
    .await;
    assert!(leads(&second).await, "{}", second.log());
    assert!(is_cached(admin, &name_of_app(&docker.host(), "v1")).await, "what the first one did stays");
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn an_api_server_that_is_killed_in_the_middle_costs_no_image() {
    let mut server = api_server().await;
    let image = SampleImage::small(83);
    let tags: Vec<_> = (0..12).map(|number| format!("v{number}")).collect();
    let docker = source(&image, &tags).await;
    let folder = tempfile::tempdir().unwrap();
    let cache = free_address().await.unwrap().to_string();
    let _registry = Kuik::open_cache(&cache, &folder.path().join("data"), &docker.host()).await;
    let user = server.user("controllers", None).unwrap();
    let arguments = ["--leader-elect", "--max-concurrent-cached-image-reconciles=1"];
    let mut controller = controller(&user, &cache, &arguments).await;

    let pods: Vec<_> = tags[..11]
        .iter()
        .map(|tag| pod(&format!("of-{tag}"), &format!("{}/team/app:{tag}", docker.host())).to_string())
        .collect();
    server.admin().apply(&pods.join("\n---\n")).await.unwrap();
    let cached = async |admin: &KubeUser| {
        let images = object(admin, &["cachedimages"]).await.unwrap();
        let images = images["items"].as_array().unwrap();
        images.iter().filter(|image| image["status"]["isCached"] == true).count()
    };
    eventually("some images are cached", async || cached(server.admin()).await > 0).await;
    server.stop().await.unwrap();
    // Longer than a lead lasts that cannot be renewed.
    controller.logs("this replica does not lead any more").await;
    server.resume().await.unwrap();

    let last = pod("last", &format!("{}/team/app:{}", docker.host(), tags[11])).to_string();
    server.admin().apply(&last).await.unwrap();
    eventually("all images are cached", async || cached(server.admin()).await == tags.len()).await;
    controller.terminate();
    assert!(controller.ended().await.success(), "{}", controller.log());
}
