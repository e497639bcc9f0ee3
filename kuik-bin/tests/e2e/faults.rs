//! What a cluster goes through when a part of kuik is away: pods start.

use super::{
    Image, NAMESPACE, Scenario, Upstream, apply, json, kubectl,
    pod::{image_of, rewritten},
    promise::{cached_image, kept, object_name, start_again, start_and_keep},
    scenario::{CACHE, CONTROLLERS, PROXY, rolled_out},
    until,
};

/// How many pods a workload is to have; returns when it has them.
async fn scale(workload: &str, replicas: u32) {
    let replicas_flag = format!("--replicas={replicas}");
    kubectl(&["scale", "--namespace", NAMESPACE, workload, &replicas_flag]).await.unwrap();
    if replicas > 0 {
        return rolled_out(workload).await;
    }
    let component = workload.rsplit('-').next().unwrap();
    let selector = format!("--selector=app.kubernetes.io/component={component}");
    until(&format!("{workload} has no pod"), || async {
        let pods = json(&["pods", "--namespace", NAMESPACE, &selector]).await?;
        if pods["items"].as_array().unwrap().is_empty() { Ok(()) } else { Err(pods["items"].to_string()) }
    })
    .await;
}

/// Has the controllers look at every image again, as people are told to.
async fn look_again(at: &str) {
    let mark = format!("timestamp={at}");
    kubectl(&["annotate", "cachedimages", "--all", "--overwrite", &mark]).await.unwrap();
}

#[tokio::test]
async fn pods_start_while_the_cache_is_down() {
    let scenario = Scenario::begin("cache-down").await;
    let upstream = Upstream::open(&scenario.place).await;
    let image = Image::marked(&scenario.place.busybox, "cache-down");
    let name = upstream.push(&image, "cache-down/app:1").await;
    scale(CACHE, 0).await;
    let pod = scenario.start(&scenario.pod("meanwhile", &name)).await;
    assert_eq!(image_of(&pod, "main"), rewritten(&name));
    scale(CACHE, 1).await;
    kept(&name).await;
}

#[tokio::test]
async fn a_cache_that_lost_everything_says_so_and_is_filled_again() {
    let scenario = Scenario::begin("cache-wiped").await;
    let mut upstream = Upstream::open(&scenario.place).await;
    let name = start_and_keep(&scenario, &upstream, "cache-wiped").await;

    // Without persistence, what the cache has is its pod's.
    upstream.stop().await;
    scale(CACHE, 0).await;
    scale(CACHE, 1).await;
    look_again("1").await;
    let object = object_name(&name);
    until("its status tells that the image is lost", || async {
        let status = cached_image(&object).await?["status"].take();
        if status["isCached"] == false { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    upstream.resume().await;
    look_again("2").await;
    kept(&name).await;

    upstream.stop().await;
    start_again(&scenario, &name, "cache-wiped").await;
}

#[tokio::test]
async fn pods_start_as_they_are_while_the_webhook_is_down() {
    let scenario = Scenario::begin("webhook-down").await;
    let upstream = Upstream::open(&scenario.place).await;
    let image = Image::marked(&scenario.place.busybox, "webhook-down");
    let name = upstream.push(&image, "webhook-down/app:1").await;
    scale(CONTROLLERS, 0).await;
    let pod = scenario.start(&scenario.pod("meanwhile", &name)).await;
    assert_eq!(image_of(&pod, "main"), name);
    scale(CONTROLLERS, 2).await;
    scenario.settled().await;
    let pod = scenario.start(&scenario.pod("afterwards", &name)).await;
    assert_eq!(image_of(&pod, "main"), rewritten(&name));
    kept(&name).await;
    until("the pod that was never rewritten is known to use it as well", || async {
        let used = cached_image(&object_name(&name)).await?["status"]["usedBy"].take();
        if used["count"] == 2 { Ok(()) } else { Err(used.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn pods_start_though_the_proxy_goes_while_they_are_pulled() {
    let scenario = Scenario::begin("proxy-gone").await;
    let upstream = Upstream::open(&scenario.place).await;
    for (way, flags) in [("deleted", &["--wait=false"][..]), ("killed", &["--grace-period=0", "--force"])] {
        let mut pods = Vec::new();
        for number in 0..4 {
            // Large enough that most are still on their way when the proxy goes.
            let mark = format!("{way} {number}").repeat(4_000_000);
            let image = Image::marked(&scenario.place.busybox, &mark);
            let name = upstream.push(&image, &format!("proxy-gone/{way}:{number}")).await;
            pods.push(scenario.pod(&format!("{way}-{number}"), &name));
        }
        apply(&pods).await.unwrap();
        let selector = "--selector=app.kubernetes.io/component=proxy";
        let delete = ["delete", "pod", "--namespace", NAMESPACE, selector];
        kubectl(&[&delete[..], flags].concat()).await.unwrap();
        for pod in &pods {
            scenario.ready(pod["metadata"]["name"].as_str().unwrap()).await;
        }
        rolled_out(PROXY).await;
    }
}
