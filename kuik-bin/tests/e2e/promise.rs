//! Main scenario: a pod is rewritten, its image cached, and pods still start when the registry is down.

use std::time::Instant;

use super::{
    Image, Scenario, Upstream, json, kubectl,
    pod::{image_of, rewritten},
    until,
};

/// Returns a field of a CachedImage, such as `/status/phase`, if it exists.
pub(crate) async fn cached_image(name: &str) -> Result<serde_json::Value, String> {
    json(&["cachedimage", name]).await
}

/// The object of an image of an upstream.
pub(crate) fn object_name(image: &str) -> String {
    let (repository, tag) = match image.split_once('@') {
        Some((repository, digest)) => (repository, digest),
        None => image.rsplit_once(':').unwrap(),
    };
    format!("{repository}-{tag}").replace([':', '/'], "-")
}

/// Waits until an image is kept, with all its content.
pub(crate) async fn kept(image: &str) -> serde_json::Value {
    let name = object_name(image);
    until(&format!("{image} is kept"), || async {
        let object = cached_image(&name).await?;
        let status = &object["status"];
        if status["isCached"] == true && status["phase"] == "Ready" {
            Ok(object)
        } else {
            Err(format!("{object:#}"))
        }
    })
    .await
}

/// Starts the pod `first` with an image of its own, `SUBJECT/app:1`, and waits until that is kept; returns its name.
pub(crate) async fn start_and_keep(scenario: &Scenario, upstream: &Upstream, subject: &str) -> String {
    let image = Image::marked(&scenario.place.busybox, subject);
    let name = upstream.push(&image, &format!("{subject}/app:1")).await;
    let pod = scenario.start(&scenario.pod("first", &name)).await;
    assert_eq!(image_of(&pod, "main"), rewritten(&name));
    kept(&name).await;
    name
}

/// Deletes the pod `first`, takes its image from the node, and starts the pod `again` with it.
pub(crate) async fn start_again(scenario: &Scenario, name: &str, subject: &str) {
    scenario.delete("first").await;
    scenario.place.forget(&format!("{subject}/app")).await;
    scenario.start(&scenario.pod("again", name)).await;
    assert_eq!(scenario.mark("again", "main").await, subject);
}

#[tokio::test]
async fn pods_start_again_when_their_registry_is_gone() {
    let mut scenario = Scenario::without_kuik("promise").await;
    scenario.uninstall().await;
    let mut table = Vec::new();
    let mut since = Instant::now();
    let mut took = |step: &'static str| {
        table.push((step, since.elapsed()));
        since = Instant::now();
    };
    scenario.install(&[]).await;
    took("helm install, until every part is ready");
    let mut upstream = Upstream::open(&scenario.place).await;
    let image = Image::marked(&scenario.place.busybox, "promise");
    let name = upstream.push(&image, "team/app:1.0").await;
    took("an image pushed to a registry");

    let pod = scenario.start(&scenario.pod("first", &name)).await;
    took("the first pod created, rewritten, its image pulled, ready");
    assert_eq!(image_of(&pod, "main"), rewritten(&name));
    assert_eq!(pod["metadata"]["labels"]["kuik.enix.io/managed"], "true");
    assert_eq!(pod["metadata"]["annotations"]["original-image-main"], name.as_str());
    assert_eq!(scenario.mark("first", "main").await, "promise");
    took("a command run in it");

    let object = kept(&name).await;
    took("its image seen to be kept");
    assert_eq!(object["spec"]["sourceImage"], name.as_str());
    assert_eq!(format!("sha256:{}", object["status"]["digest"].as_str().unwrap()), image.digest);
    assert_eq!(
        object["status"]["usedBy"]["pods"][0]["namespacedName"],
        format!("{}/first", scenario.namespace)
    );
    let repository = object["metadata"]["labels"]["kuik.enix.io/repository"].as_str().unwrap();
    until("the repository is ready", || async {
        let repository = json(&["repository", repository]).await?;
        let status = &repository["status"];
        if status["phase"] == "Ready" && status["images"] == 1 { Ok(()) } else { Err(repository.to_string()) }
    })
    .await;
    took("its repository seen to be ready");
    let listed = kubectl(&["get", "cachedimages"]).await.unwrap();
    let columns: Vec<_> =
        listed.lines().next().unwrap().split("  ").map(str::trim).filter(|it| !it.is_empty()).collect();
    assert_eq!(columns, ["NAME", "STATUS", "CACHED", "RETAIN", "EXPIRES AT", "PODS COUNT", "AGE"]);
    let row = listed.lines().find(|line| line.starts_with(&object_name(&name))).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells[1..4], ["Ready", "true", "1"], "{row}");

    upstream.stop().await;
    scenario.delete("first").await;
    scenario.place.forget("team/app").await;
    took("its registry stopped, the pod deleted, the image removed from the node");
    let pod = scenario.start(&scenario.pod("again", &name)).await;
    took("a pod started again, from the cache");
    assert_eq!(image_of(&pod, "main"), rewritten(&name));
    assert_eq!(scenario.mark("again", "main").await, "promise");

    println!("\n| step | seconds |\n|---|---|");
    for (step, time) in table {
        println!("| {step} | {:.1} |", time.as_secs_f64());
    }
}
