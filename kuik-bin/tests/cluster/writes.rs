//! Writes to the API server, counted by its audit log: from the creation of a CachedImage until it is ready, and progress
//! while a pull takes long.

use std::{collections::BTreeMap, time::Duration};

use crate::support::{Kuik, api_server_with, eventually, name_of_app, object, pod};
use kuik_testkit::{Behavior, Rule, SampleImage, ScriptedRegistry, Target, real::ApiServer};
use serde_json::json;

/// How many writes an image may cost from its creation until it is ready, the creation included.
const BUDGET: usize = 4;
const IMAGES: usize = 10;
const PODS: usize = 60;

/// How often the user `controllers` wrote each CachedImage.
fn writes_of_images(server: &ApiServer) -> BTreeMap<String, usize> {
    let mut writes = BTreeMap::new();
    for write in server.writes().unwrap() {
        if write.user == "controllers" && write.resource.starts_with("cachedimages") {
            *writes.entry(write.name).or_default() += 1;
        }
    }
    writes
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn image_costs_at_most_four_writes_until_it_is_ready() {
    let upstream = ScriptedRegistry::start().await.unwrap();
    let host = upstream.host();
    for number in 0..IMAGES {
        upstream.add_image("team/app", &format!("v{number}"), &SampleImage::small(800 + number as u64));
    }
    // Slow enough that each pull is shown while it is queued and while it runs.
    upstream.script(Rule::on(Target::Blob).does(Behavior::Delay(Duration::from_secs(1))));
    let server = api_server_with(ApiServer::start_audited().await.unwrap()).await;
    let admin = server.admin();
    let data = tempfile::tempdir().unwrap();
    let registry = Kuik::open_cache("127.0.0.1:0", data.path(), &host).await;
    let user = server.user("controllers", None).unwrap();
    let _controller = Kuik::controllers(&user, &registry.host(), &["--registry-token-secret="]).await;

    // Pods come one after the other while the images are pulled.
    let pods = (0..PODS)
        .map(|number| pod(&format!("pod-{number}"), &format!("{host}/team/app:v{}", number % IMAGES)));
    let pods = json!({ "apiVersion": "v1", "kind": "List", "items": pods.collect::<Vec<_>>() });
    admin.apply(&pods.to_string()).await.unwrap();
    let names: Vec<String> = (0..IMAGES).map(|number| name_of_app(&host, &format!("v{number}"))).collect();
    for name in &names {
        let cached = ["wait", "--for=condition=Ready", "--timeout=120s", "cachedimage", name];
        eventually("the object exists", async || object(admin, &["cachedimages", name]).await.is_some())
            .await;
        admin.kubectl(cached).await.unwrap();
    }
    let writes = writes_of_images(&server);
    println!("writes of each image until all are ready: {writes:?}");
    assert_eq!(writes.keys().cloned().collect::<Vec<_>>(), names);
    assert!(writes.values().all(|count| *count <= BUDGET), "{writes:?}");
}
