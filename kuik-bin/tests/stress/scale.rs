//! Scale test: `kuik-controller` caches the images of pods that are created at once, in `kuik-registry`, from a registry of
//! this process, with a real API server that records every write. Then nothing changes, and nothing is written except the
//! Lease; another process takes over, and writes nothing either.
//!
//! 200 pods over 20 images, and a few seconds in which nothing changes; or as many as `KUIK_SCALE_PODS`,
//! `KUIK_SCALE_IMAGES` and `KUIK_SCALE_QUIET` specify (`make scale`: 5,000 over 500, and five minutes). The figures are printed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::support::{Kuik, api_server_with, but_for_the_lease, get, pod, writes, writes_in_the_end};
use http::Request;
use kube_client::Client;
use kuik_testkit::{
    SampleImage, ScriptedRegistry,
    real::{ApiServer, KubeUser},
};
use serde_json::Value;
use tokio::task::JoinSet;

/// How many clients make pods.
const WORKERS: usize = 4;
/// How many images each repository has.
const TAGS: usize = 5;
/// As the binary is run, by the user whose writes are counted.
const CONTROLLERS: &str = "controllers";

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The image of pod `number`.
fn image(host: &str, number: usize) -> String {
    format!("{host}/team/app{}:v{}", number / TAGS, number % TAGS)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn many_pods_settle_and_then_nothing_is_written() {
    let (pods, images) = (number("KUIK_SCALE_PODS", 200), number("KUIK_SCALE_IMAGES", 20));
    let quiet = Duration::from_secs(number("KUIK_SCALE_QUIET", 5) as u64);
    let upstream = ScriptedRegistry::start().await.unwrap();
    for number in 0..images {
        let repository = format!("team/app{}", number / TAGS);
        upstream.add_image(&repository, &format!("v{}", number % TAGS), &SampleImage::small(number as u64));
    }
    let server = api_server_with(ApiServer::start_audited().await.unwrap()).await;
    let data = tempfile::tempdir().unwrap();
    let host = upstream.host();
    let registry = Kuik::open_cache("127.0.0.1:0", data.path(), &host).await;
    let user = server.user(CONTROLLERS, None).unwrap();
    let controller = controller(&user, &registry).await;

    let begun = Instant::now();
    make_pods(server.admin(), &host, pods, images).await;
    let made = begun.elapsed();
    settled(&controller, server.admin(), pods, images).await;
    let settled_after = begun.elapsed();
    println!(
        "{pods} pods over {images} images: made in {made:.1?}, settled {settled_after:.1?} after the first"
    );
    report(&controller, "until then");
    // Events are sent one after the other, and come last.
    let written = writes_in_the_end(&server, CONTROLLERS, Duration::from_secs(3)).await;
    println!("all events are recorded {:.1?} after the first pod", begun.elapsed());
    let per_image = but_for_the_lease(&written) as f64 / images as f64;
    println!("writes, {per_image:.1} for each image without the Lease: {written:?}");
    assert!(written.keys().all(|key| !key.ends_with(" 403")), "it may do all that it does");
    // Which pods use an image is written every 30 s at most, while they come.
    let most = images * (8 + settled_after.as_secs() as usize / 30);
    assert!(but_for_the_lease(&written) <= most, "not one for each pod: {written:?}");

    // Each image is looked at again, and nothing is found to be different.
    let cpu = Kuik::cpu(controller.pid());
    tokio::time::sleep(quiet).await;
    let after = writes(&server, CONTROLLERS);
    let used = Kuik::cpu(controller.pid()) - cpu;
    println!("in {quiet:.0?} in which nothing changed: {:?}, {used:.2?} of CPU", less(&after, &written));
    report(&controller, "at their end");
    assert_eq!(
        but_for_the_lease(&after),
        but_for_the_lease(&written),
        "nothing changed: {:?}",
        less(&after, &written)
    );

    // Another process leads.
    let mut controller = controller;
    controller.terminate();
    assert!(controller.ended().await.success(), "{}", controller.log());
    let begun = Instant::now();
    let next = self::controller(&user, &registry).await;
    settled(&next, server.admin(), pods, images).await;
    println!("another process has the lead, and knows everything after {:.1?}", begun.elapsed());
    tokio::time::sleep(quiet.min(Duration::from_secs(60))).await;
    let taken_over = writes(&server, CONTROLLERS);
    println!("it wrote {:?}", less(&taken_over, &after));
    report(&next, "of the second process");
    assert_eq!(
        but_for_the_lease(&taken_over),
        but_for_the_lease(&after),
        "{}\nthe cache:\n{}",
        next.log(),
        registry.log()
    );
}

async fn controller(user: &KubeUser, registry: &Kuik) -> Kuik {
    let arguments = ["--leader-elect", "--registry-token-secret=", "--ignore-pull-policy-always=false"];
    Kuik::controllers(user, &registry.host(), &arguments).await
}

/// Makes the pods, each of them as fast as the API server takes them.
async fn make_pods(admin: &KubeUser, host: &str, pods: usize, images: usize) {
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (client, host) = (admin.client().await.unwrap(), host.to_owned());
        workers.spawn(async move {
            for number in (worker..pods).step_by(WORKERS) {
                let pod = pod(&format!("pod-{number}"), &image(&host, number % images));
                let request = Request::post("/api/v1/namespaces/shop/pods")
                    .header("content-type", "application/json")
                    .body(pod.to_string().into_bytes())
                    .unwrap();
                client.request::<Value>(request).await.unwrap();
            }
        });
    }
    workers.join_all().await;
}

/// Waits until the objects show that the leader has cached all images and counted all pods.
async fn settled(controller: &Kuik, admin: &KubeUser, pods: usize, images: usize) {
    let client = admin.client().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60) + Duration::from_millis(200) * pods as u32;
    let ready =
        r#"kube_image_keeper_controller_cached_images{status="Ready",cached="true",expiring="false"} "#;
    loop {
        let metrics = String::from_utf8(get(controller.address(), "/metrics").await.body).unwrap();
        let known = metrics.lines().find_map(|line| line.strip_prefix(ready)?.parse().ok()).unwrap_or(0);
        if known == images && counted(&client).await == [images, pods, images] {
            return;
        }
        assert!(Instant::now() < deadline, "{known} of {images} images are ready:\n{}", controller.log());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// How many images are in the cache, how many pods use one, and how many images repositories have: by their status.
async fn counted(client: &Client) -> [usize; 3] {
    let list = async |kind: &str| -> Vec<Value> {
        let path = format!("/apis/kuik.enix.io/v1alpha1/{kind}");
        let list: Value = client.request(Request::get(path).body(Vec::new()).unwrap()).await.unwrap();
        list["items"].as_array().unwrap().clone()
    };
    let (images, repositories) = (list("cachedimages").await, list("repositories").await);
    let cached = images.iter().filter(|image| image["status"]["isCached"] == true).count();
    let sum = |numbers: Vec<Option<u64>>| numbers.into_iter().flatten().sum::<u64>() as usize;
    let used = sum(images.iter().map(|image| image["status"]["usedBy"]["count"].as_u64()).collect());
    let ready = repositories.iter().filter(|repository| repository["status"]["phase"] == "Ready");
    [cached, used, sum(ready.map(|repository| repository["status"]["images"].as_u64()).collect())]
}

fn less(after: &BTreeMap<String, usize>, before: &BTreeMap<String, usize>) -> BTreeMap<String, usize> {
    let more = |key: &String, count: usize| count - before.get(key).copied().unwrap_or_default();
    after
        .iter()
        .map(|(key, count)| (key.clone(), more(key, *count)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn report(controller: &Kuik, when: &str) {
    let peak = Kuik::peak_rss(controller.pid()) >> 10;
    let anonymous = Kuik::rss_anon(controller.pid()) >> 10;
    let cpu = Kuik::cpu(controller.pid());
    println!("{when}: {cpu:.2?} of CPU, at most {peak} KiB resident, {anonymous} KiB of its own now");
}
