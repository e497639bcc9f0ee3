//! Component failures: pods start while a part of kuik is down.

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

/// Has the controllers verify every image now, as the documentation says.
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
async fn wiped_cache_is_reported_and_refilled() {
    // Without the annotations, nothing would be verified while the test waits.
    let rarely = ["controllers.env[0].name=KUIK_VERIFY_INTERVAL", "controllers.env[0].value=1h"];
    let scenario = Scenario::with("cache-wiped", &rarely).await;
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
    // A layer takes several seconds, so that the proxy goes while it is pulled.
    let slow = upstream.throttled(&scenario.place, 4_000_000).await;
    for (way, flags) in [("deleted", &["--wait=false"][..]), ("killed", &["--grace-period=0", "--force"])] {
        let mut pods = Vec::new();
        for number in 0..4 {
            let mark = format!("{way} {number}").repeat(4_000_000);
            let image = Image::marked(&scenario.place.busybox, &mark);
            let name = upstream.push(&image, &format!("proxy-gone/{way}:{number}")).await;
            let name = name.replace(&upstream.host(), &slow.host());
            pods.push(scenario.pod(&format!("{way}-{number}"), &name));
        }
        apply(&pods).await.unwrap();
        until("a layer is being pulled", || async {
            match scenario.place.pulls().await {
                0 => Err("nothing is being pulled".to_owned()),
                count => Ok(count),
            }
        })
        .await;
        let selector = "--selector=app.kubernetes.io/component=proxy";
        let delete = ["delete", "pod", "--namespace", NAMESPACE, selector];
        kubectl(&[&delete[..], flags].concat()).await.unwrap();
        let names = pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap());
        for name in names {
            let pod = json(&["--namespace", &scenario.namespace, &format!("pod/{name}")]).await.unwrap();
            assert_ne!(pod["status"]["phase"], "Running", "{name} was pulled before the proxy went");
        }
        for pod in &pods {
            scenario.ready(pod["metadata"]["name"].as_str().unwrap()).await;
        }
        rolled_out(PROXY).await;
    }
}
