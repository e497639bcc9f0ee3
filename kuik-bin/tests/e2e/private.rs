//! A private image is opened with the pull secret of the pod that uses it, and starts again without its registry.

use serde_json::json;

use super::{
    Image, Scenario, Upstream, kubectl,
    pod::{image_of, rewritten},
    promise::kept,
};

#[tokio::test]
async fn a_private_image_is_kept_with_the_secret_of_its_pod() {
    let scenario = Scenario::begin("private").await;
    let (user, password) = ("somebody", "only-for-this-test");
    let mut upstream = Upstream::private(&scenario.place, user, password).await;
    let image = Image::marked(&scenario.place.busybox, "private");
    let name = upstream.push(&image, "private/app:1").await;
    let [host, user, password] = [("server", &*upstream.host()), ("username", user), ("password", password)]
        .map(|(key, value)| format!("--docker-{key}={value}"));
    let secret = ["create", "secret", "docker-registry", "opens-it", "--namespace", &scenario.namespace];
    kubectl(&[&secret[..], &[&host, &user, &password]].concat()).await.unwrap();

    let mut pod = scenario.pod("first", &name);
    pod["spec"]["imagePullSecrets"] = json!([{"name": "opens-it"}]);
    let started = scenario.start(&pod).await;
    assert_eq!(image_of(&started, "main"), rewritten(&name));
    kept(&name).await;

    upstream.stop().await;
    scenario.delete("first").await;
    scenario.place.forget("private/app").await;
    pod["metadata"]["name"] = json!("again");
    scenario.start(&pod).await;
    assert_eq!(scenario.mark("again", "main").await, "private");
}
