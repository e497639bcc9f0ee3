//! Registry failures: deleted images and rate limits.

use serde_json::Value;

use super::{
    Scenario, Upstream, kubectl,
    promise::{cached_image, object_name, start_again, start_and_keep},
    until,
};

/// Has the controllers ask an image's registry for it, as people are told to; returns what status says once they have.
async fn refreshed(image: &str, told: impl Fn(&Value) -> bool) -> Value {
    let name = object_name(image);
    let mark = "cachedimage.kuik.enix.io/forceUpdate=true";
    kubectl(&["annotate", "cachedimage", &name, "--overwrite", mark]).await.unwrap();
    until("its status tells what became of the refresh", || async {
        let status = cached_image(&name).await?["status"].take();
        if told(&status) { Ok(status) } else { Err(status.to_string()) }
    })
    .await
}

#[tokio::test]
async fn pods_start_again_when_their_registry_has_lost_the_image() {
    let scenario = Scenario::begin("lost").await;
    let upstream = Upstream::open(&scenario.place).await;
    let name = start_and_keep(&scenario, &upstream, "lost").await;
    upstream.delete(&name).await;
    let status = refreshed(&name, |status| status["availableUpstream"] == false).await;
    assert_eq!((&status["isCached"], &status["phase"]), (&true.into(), &"Ready".into()), "{status:#}");
    start_again(&scenario, &name, "lost").await;
}

#[tokio::test]
async fn pods_start_again_when_their_registry_says_that_it_was_asked_too_often() {
    let scenario = Scenario::begin("quota").await;
    let mut upstream = Upstream::open(&scenario.place).await;
    let name = start_and_keep(&scenario, &upstream, "quota").await;
    let refusing = upstream.out_of_quota().await;
    let ready = |status: &Value| {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.filter(|it| it["type"] == "Ready").map(|it| it["message"].to_string()).next()
    };
    let status =
        refreshed(&name, |status| ready(status).is_some_and(|message| message.contains("429"))).await;
    assert_eq!((&status["isCached"], &status["phase"]), (&true.into(), &"Ready".into()), "{status:#}");
    start_again(&scenario, &name, "quota").await;
    drop(refusing);
}
