//! Fault tests of `kuik-controller`: the cache loses its content, the leader is killed or paused, the API server is killed,
//! throttles, or compacts its history. No process is restarted to recover.

use std::{fs, time::Duration};

use crate::support::{
    Kuik, api_server, api_server_with, controllers_user, eventually, get, is_cached, name_of_app, object,
    pod, proxied, pull_with_skopeo, push, writes, writes_in_the_end,
};
use kuik_testkit::SampleImage;
use kuik_testkit::real::{ApiServer, DockerRegistry, KubeUser, RegistryOptions, free_address};

/// Docker's registry with one image under these tags of `team/app`.
async fn source(image: &SampleImage, tags: &[String]) -> DockerRegistry {
    let docker = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    for tag in tags {
        push(image, &format!("{}/team/app:{tag}", docker.host()), &[]).await;
    }
    docker
}

/// The pod `of-TAG`, which runs that image.
fn pod_of(docker: &DockerRegistry, tag: &str) -> String {
    pod(&format!("of-{tag}"), &format!("{}/team/app:{tag}", docker.host())).to_string()
}

/// Deletes it at once, as a node does that has stopped it.
async fn delete_pod(admin: &KubeUser, tag: &str) {
    let pod = format!("of-{tag}");
    admin.kubectl(["delete", "pod", &pod, "--namespace=shop", "--grace-period=0", "--force"]).await.unwrap();
}

/// The controllers over a cache that allows anonymous pushes.
async fn controller(user: &KubeUser, cache: &str, arguments: &[&str]) -> Kuik {
    Kuik::controllers(user, cache, &[&["--registry-token-secret="], arguments].concat()).await
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn controller_reports_and_refills_a_wiped_cache() {
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

    admin.apply(&pod_of(&docker, "v1")).await.unwrap();
    let name = name_of_app(&docker.host(), "v1");
    eventually("the image is cached", async || is_cached(admin, &name).await).await;

    // The volume is lost while the source is down: nothing can repair it, so the status has to report it.
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

/// Whether a replica says that it leads.
async fn leads(replica: &Kuik) -> bool {
    let metrics = String::from_utf8(get(replica.address(), "/metrics").await.body).unwrap();
    metrics.contains("kube_image_keeper_controller_is_leader 1\n")
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn another_replica_takes_over_from_a_killed_leader() {
    let server = api_server().await;
    let admin = server.admin();
    let image = SampleImage::small(82);
    let docker = source(&image, &["v1".to_owned(), "v2".to_owned()]).await;
    let folder = tempfile::tempdir().unwrap();
    let cache = free_address().await.unwrap().to_string();
    let _registry = Kuik::open_cache(&cache, &folder.path().join("data"), &docker.host()).await;
    let user = server.user("controllers", None).unwrap();

    let first = controller(&user, &cache, &["--leader-elect"]).await;
    eventually("the first one leads", async || leads(&first).await).await;
    let second = controller(&user, &cache, &["--leader-elect"]).await;
    admin.apply(&pod_of(&docker, "v1")).await.unwrap();
    eventually("an image is cached", async || is_cached(admin, &name_of_app(&docker.host(), "v1")).await)
        .await;
    assert!(!leads(&second).await);

    first.kill().await;
    admin.apply(&pod_of(&docker, "v2")).await.unwrap();
    eventually("the next image is cached", async || {
        is_cached(admin, &name_of_app(&docker.host(), "v2")).await
    })
    .await;
    assert!(leads(&second).await, "{}", second.log());
    assert!(is_cached(admin, &name_of_app(&docker.host(), "v1")).await, "what the first one did stays");
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn leader_paused_past_its_lease_writes_nothing_when_it_resumes() {
    let server = api_server_with(ApiServer::start_audited().await.unwrap()).await;
    let admin = server.admin();
    let image = SampleImage::small(84);
    let docker = source(&image, &["v1".to_owned(), "v2".to_owned()]).await;
    let folder = tempfile::tempdir().unwrap();
    let registry = Kuik::open_cache("127.0.0.1:0", folder.path(), &docker.host()).await;
    let (one, two) = (controllers_user(&server, "one").await, controllers_user(&server, "two").await);
    let first = controller(&one, &registry.host(), &["--leader-elect"]).await;
    eventually("the first one leads", async || leads(&first).await).await;
    let second = controller(&two, &registry.host(), &["--leader-elect"]).await;
    let cached = async |tag: &str| is_cached(admin, &name_of_app(&docker.host(), tag)).await;
    admin.apply(&pod_of(&docker, "v1")).await.unwrap();
    eventually("an image is cached", async || cached("v1").await).await;

    // After it resumes, it first receives the events of the pause.
    first.freeze();
    // Requests sent before are still answered.
    let before = writes_in_the_end(&server, "one", Duration::from_secs(1)).await;
    admin.apply(&pod_of(&docker, "v2")).await.unwrap();
    delete_pod(admin, "v1").await;
    eventually("the second one continues", async || cached("v2").await && leads(&second).await).await;
    first.thaw();
    first.logs("lost leadership").await;
    eventually("it knows that it does not lead", async || !leads(&first).await).await;

    let mut after = writes(&server, "one");
    after.retain(|write, count| !write.contains(" leases ") && before.get(write) != Some(count));
    assert!(after.is_empty(), "{after:?}\n{}", first.log());
    assert!(leads(&second).await, "{}", second.log());
}

/// Priority level with one seat: a request of one user gets 429 while one of the other user is running. An unanswered
/// review of config maps makes that long.
const TAKE_TURNS: &str = "
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: turns}
spec:
  type: Limited
  limited: {nominalConcurrencyShares: 0, borrowingLimitPercent: 0, limitResponse: {type: Reject}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: turns}
spec:
  priorityLevelConfiguration: {name: turns}
  matchingPrecedence: 2
  rules:
  - subjects: [{kind: User, user: {name: controllers}}, {kind: User, user: {name: slow}}]
    resourceRules: [{verbs: ['*'], apiGroups: ['*'], resources: ['*'], clusterScope: true, namespaces: ['*']}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: slow}
rules: [{apiGroups: [''], resources: [configmaps], verbs: [create]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: slow}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: slow}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: slow}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: slow}
webhooks:
- name: slow.test.example
  admissionReviewVersions: [v1]
  sideEffects: None
  timeoutSeconds: 30
  failurePolicy: Ignore
  clientConfig: {url: 'https://SILENT/'}
  rules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
";

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn an_api_server_that_throttles_costs_the_lead_and_no_image() {
    let server = api_server_with(ApiServer::start_audited().await.unwrap()).await;
    let admin = server.admin();
    if admin.kubectl(["get", "--raw", "/apis/flowcontrol.apiserver.k8s.io/v1"]).await.is_err() {
        println!("not run, because this Kubernetes is throttled otherwise");
        return;
    }
    let image = SampleImage::small(85);
    let docker = source(&image, &["v1".to_owned(), "v2".to_owned()]).await;
    let folder = tempfile::tempdir().unwrap();
    let registry = Kuik::open_cache("127.0.0.1:0", folder.path(), &docker.host()).await;
    let user = server.user("controllers", None).unwrap();
    let mut controller = controller(&user, &registry.host(), &["--leader-elect"]).await;
    let cached = async |tag: &str| is_cached(admin, &name_of_app(&docker.host(), tag)).await;
    admin.apply(&pod_of(&docker, "v1")).await.unwrap();
    eventually("an image is cached", async || cached("v1").await).await;

    // Its kernel accepts connections, and no process answers them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let turns = TAKE_TURNS.replace("SILENT", &silent.local_addr().unwrap().to_string());
    admin.apply(&turns).await.unwrap();
    let slow = server.user("slow", None).unwrap();
    let turn =
        tokio::spawn(async move { slow.kubectl(["create", "configmap", "slow", "--namespace=shop"]).await });
    eventually("it is throttled", async || {
        writes(&server, "controllers").keys().any(|write| write.ends_with(" 429"))
    })
    .await;
    // Its watches continue: it receives this event, and cannot write anything about it.
    admin.apply(&pod_of(&docker, "v2")).await.unwrap();
    controller.logs("lost leadership").await;
    turn.abort();
    eventually("it leads again", async || leads(&controller).await).await;
    eventually("the next image is cached", async || cached("v2").await).await;
    assert!(cached("v1").await);
    println!("what it wrote: {:?}", writes(&server, "controllers"));
    controller.terminate();
    assert!(controller.ended().await.success(), "{}", controller.log());
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn a_watch_that_has_expired_is_begun_again_and_misses_nothing() {
    let mut server = api_server().await;
    let image = SampleImage::small(86);
    let docker = source(&image, &["v1".to_owned(), "v2".to_owned()]).await;
    let folder = tempfile::tempdir().unwrap();
    let registry = Kuik::open_cache("127.0.0.1:0", folder.path(), &docker.host()).await;
    let user = server.user("controllers", None).unwrap();
    let controller = controller(&user, &registry.host(), &[]).await;
    let status = async |admin: &KubeUser, tag: &str| {
        object(admin, &["cachedimages", &name_of_app(&docker.host(), tag)])
            .await
            .map(|image| image["status"].clone())
    };
    server.admin().apply(&pod_of(&docker, "v1")).await.unwrap();
    eventually("an image is cached", async || {
        status(server.admin(), "v1").await.is_some_and(|status| status["isCached"] == true)
    })
    .await;

    // It is paused while pods are created and deleted, and the API server compacts its history.
    controller.freeze();
    server.stop().await.unwrap();
    server.resume().await.unwrap();
    server.admin().apply(&pod_of(&docker, "v2")).await.unwrap();
    delete_pod(server.admin(), "v1").await;
    server.stop().await.unwrap();
    server.resume().await.unwrap();
    controller.thaw();

    controller.logs("too old resource version").await;
    let admin = server.admin();
    eventually("the new pod's image is cached", async || {
        status(admin, "v2").await.is_some_and(|status| status["isCached"] == true)
    })
    .await;
    eventually("the other image is unused", async || {
        status(admin, "v1").await.is_some_and(|status| status["usedBy"]["count"] == 0)
    })
    .await;
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

    let pods: Vec<_> = tags[..11].iter().map(|tag| pod_of(&docker, tag)).collect();
    server.admin().apply(&pods.join("\n---\n")).await.unwrap();
    let cached = async |admin: &KubeUser| {
        let images = object(admin, &["cachedimages"]).await.unwrap();
        let images = images["items"].as_array().unwrap();
        images.iter().filter(|image| image["status"]["isCached"] == true).count()
    };
    eventually("some images are cached", async || cached(server.admin()).await > 0).await;
    server.stop().await.unwrap();
    // Longer than a lead lasts that cannot be renewed.
    controller.logs("lost leadership").await;
    server.resume().await.unwrap();

    server.admin().apply(&pod_of(&docker, &tags[11])).await.unwrap();
    eventually("all images are cached", async || cached(server.admin()).await == tags.len()).await;
    controller.terminate();
    assert!(controller.ended().await.success(), "{}", controller.log());
}
