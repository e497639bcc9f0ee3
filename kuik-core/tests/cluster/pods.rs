//! Pod image and Repository controller tests with a real API server.

#![cfg(feature = "controller")]

use std::sync::Arc;

use crate::support::{Writes, cached_images, cluster, create, delete_pod, eventually, pod, rules};
use futures::join;
use kube_client::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use kube_runtime::watcher;
use kuik_core::{
    controller::{
        ApiEvents, Informer, NodePlatforms, PodImageController, SlimAccount, Usage as _,
        pods::{PodImages, PodTracker},
        repository::RepositoryController,
    },
    copy::{Platforms, WantedPlatforms as _},
    crd::{CachedImage, PullSecret, Repository, RepositoryPhase, cached_image_name},
    reference::ImageReference,
};
use serde_json::json;

/// The controllers that need no cache.
struct Running {
    pods: PodTracker,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(client: Client) -> Self {
        let config = watcher::Config::default;
        let (images, a) = Informer::<CachedImage>::new(Api::all(client.clone()), config());
        let (repositories, b) = Informer::<Repository>::new(Api::all(client.clone()), config());
        let (accounts, c) = Informer::<SlimAccount>::new(Api::all(client.clone()), config());
        let (events, d) = ApiEvents::new(client.clone(), "test");
        let pods = PodTracker::new(rules());
        let kept = PodImageController::new(
            client.clone(),
            Arc::new(PodImages::new(pods.clone(), accounts.clone())),
            images.clone(),
            repositories.clone(),
        );
        let of_repositories = RepositoryController::new(
            client.clone(),
            repositories,
            images,
            accounts,
            pods.clone(),
            Arc::new(events),
        );
        let watched = pods.clone();
        let task = tokio::spawn(async move {
            join!(a, b, c, d, watched.watch(client), kept.run(), of_repositories.run());
        });
        Self { pods, task }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn original(image: &str) -> serde_json::Value {
    json!({ "metadata": { "annotations": { "original-image-c0": image } } })
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn used_images_get_objects_and_a_restart_writes_nothing() {
    let (_server, client) = cluster().await;
    create(
        &client,
        json!({ "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "namespace": "shop", "name": "robot" }, "imagePullSecrets": [{ "name": "of-robot" }] }),
    )
    .await;
    for pod in [
        // Rewritten by the webhook, and by kuik 1.x with a dash before the port.
        pod("shop", "rewritten", &["localhost:7439/nginx:1.25"], original("nginx:1.25")),
        pod(
            "shop",
            "dash",
            &["localhost:7439/registry.test-5000/app:1"],
            original("registry.test:5000/app:1"),
        ),
        // Older than the webhook: the same image twice, and one by digest.
        pod("shop", "old", &["docker.io/library/nginx:1.25", "nginx:1.25", "redis:7"], json!({})),
        pod("bank", "digest", &[&format!("quay.io/a/b@sha256:{}", "1".repeat(64))], json!({})),
        // Two images with one name.
        pod("shop", "one", &["foo/bar-baz:1"], json!({})),
        pod("shop", "two", &["foo-bar/baz:1"], json!({})),
        // Excluded.
        pod(
            "shop",
            "out",
            &["out:1"],
            json!({ "metadata": { "labels": {
            "kube-image-keeper.enix.io/image-caching-policy": "ignore" } } }),
        ),
        // Private: secrets of two namespaces and of a ServiceAccount.
        pod(
            "shop",
            "private",
            &["quay.io/private/app:1"],
            json!({ "spec": {
            "imagePullSecrets": [{ "name": "of-shop" }], "serviceAccountName": "robot" } }),
        ),
        pod(
            "bank",
            "private",
            &["quay.io/private/app:2"],
            json!({ "spec": {
            "imagePullSecrets": [{ "name": "of-bank" }] } }),
        ),
        // 200 containers.
        pod("shop", "large", &(0..200).map(|_| "large:1").collect::<Vec<_>>(), json!({})),
    ] {
        create(&client, pod).await;
    }
    let running = Running::start(client.clone());

    let expected = 9;
    eventually("all CachedImages exist", async || {
        (cached_images(&client).await.len() == expected).then_some(())
    })
    .await;
    let images: Api<CachedImage> = Api::all(client.clone());
    let nginx = images.get("docker.io-library-nginx-1.25").await.unwrap();
    assert_eq!(nginx.metadata.labels.unwrap()["kuik.enix.io/repository"], "docker.io-library-nginx");
    assert_eq!(nginx.metadata.owner_references.unwrap()[0].name, "docker.io-library-nginx");
    assert_eq!(nginx.metadata.finalizers.unwrap(), ["cachedimage.kuik.enix.io/finalizer"]);
    let app = images.get("registry.test-5000-app-1").await.unwrap();
    assert_eq!(app.spec.source_image, "registry.test:5000/app:1");
    // Counted exactly: two pods, three containers.
    assert_eq!(running.pods.of("docker.io/library/nginx:1.25").unwrap().count, 2);
    assert_eq!(running.pods.read(|index| index.containers("docker.io/library/nginx:1.25")), Some(3));
    assert_eq!(running.pods.of("docker.io/library/large:1").unwrap().count, 1);
    // Two images of one name have one object each.
    let names = cached_images(&client).await;
    let bar: Vec<_> = names.iter().filter(|name| name.starts_with("docker.io-foo-bar-baz-1")).collect();
    assert_eq!(bar.len(), 2, "{names:?}");

    let repositories: Api<Repository> = Api::all(client.clone());
    let secret = |namespace: &str, name: &str| PullSecret { namespace: namespace.into(), name: name.into() };
    let private = eventually("the private repository has all its secrets", async || {
        let private = repositories.get("quay.io-private-app").await.ok()?;
        let secrets: Vec<_> = private.pull_secrets().collect();
        (secrets == [secret("bank", "of-bank"), secret("shop", "of-shop"), secret("shop", "of-robot")])
            .then_some(private)
    })
    .await;
    // Manually set secrets belong to the user.
    assert!(private.spec.pull_secret_names.is_none());

    let settled = eventually("the repositories report that their images are pending", async || {
        let all = repositories.list(&Default::default()).await.ok()?;
        let said: Vec<_> = all.iter().filter_map(|repository| repository.status.as_ref()).collect();
        let pulling = said.iter().filter(|status| status.phase == Some(RepositoryPhase::Pulling));
        // Wait for all of them: a later status change of the last image would be a write of the next leader.
        let counted: i64 = said.iter().filter_map(|status| status.images).sum();
        (pulling.count() == all.items.len() && counted == expected as i64).then_some(all.items.len())
    })
    .await;
    assert_eq!(settled, 8);

    // Another leader: everything exists, so nothing is written.
    drop(running);
    let writes = Writes::default();
    let running = Running::start(writes.of(&client));
    eventually("the pods are known again", async || running.pods.of("x")).await;
    // A pod with an existing image causes no write either, one with another image does.
    create(&client, pod("shop", "again", &["nginx:1.25"], json!({}))).await;
    create(&client, pod("shop", "last", &["last:1"], json!({}))).await;
    eventually("the last image has its object", async || {
        images.get_opt("docker.io-library-last-1").await.ok()?
    })
    .await;
    let created =
        ["POST /apis/kuik.enix.io/v1alpha1/repositories", "POST /apis/kuik.enix.io/v1alpha1/cachedimages"];
    let written = writes.list();
    let others: Vec<_> = written.iter().filter(|line| !line.contains("docker.io-library-last")).collect();
    assert_eq!(others, created);
    assert_eq!(running.pods.of("docker.io/library/nginx:1.25").unwrap().count, 3);
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn api_server_kill_and_expired_watch_lose_no_changes() {
    let (mut server, client) = cluster().await;
    let running = Running::start(client.clone());
    create(&client, pod("shop", "a", &["one:1"], json!({}))).await;
    eventually("the first image has its object", async || {
        (cached_images(&client).await.len() == 1).then_some(())
    })
    .await;
    server.stop().await.unwrap();
    // It has lost its watch history: old watches get 410, and everything is listed again.
    server.resume().await.unwrap();
    create(&client, pod("shop", "b", &["two:1"], json!({}))).await;
    delete_pod(&client, "shop", "a").await;
    eventually("the second image has its object", async || {
        (cached_images(&client).await.len() == 2).then_some(())
    })
    .await;
    eventually("the first image is no longer used", async || {
        (running.pods.of("docker.io/library/one:1")?.count == 0).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn objects_deleted_while_in_use_are_recreated() {
    let (_server, client) = cluster().await;
    let _running = Running::start(client.clone());
    create(&client, pod("shop", "a", &["one:1"], json!({}))).await;
    let name = cached_image_name(&ImageReference::parse("one:1").unwrap());
    let images: Api<CachedImage> = Api::all(client.clone());
    let first = eventually("the image has its object", async || images.get_opt(&name).await.ok()?).await;
    images.delete(&name, &DeleteParams::default()).await.unwrap();
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    images.patch(&name, &PatchParams::default(), &free).await.unwrap();
    let again = eventually("the object is recreated", async || images.get_opt(&name).await.ok()?).await;
    assert_ne!(first.metadata.uid, again.metadata.uid);

    // Deleting a Repository deletes its images, and both are recreated while a pod uses them.
    let repositories: Api<Repository> = Api::all(client.clone());
    let repository = "docker.io-library-one";
    let before = repositories.get(repository).await.unwrap();
    repositories.delete(repository, &DeleteParams::default()).await.unwrap();
    eventually("the image is being deleted", async || {
        images.get(&name).await.ok()?.metadata.deletion_timestamp
    })
    .await;
    let waiting = repositories.get(repository).await.unwrap();
    assert_eq!(waiting.metadata.uid, before.metadata.uid, "it waits for its image");
    images.patch(&name, &PatchParams::default(), &free).await.unwrap();
    eventually("both are recreated", async || {
        let new = repositories.get_opt(repository).await.ok()??;
        let image = images.get_opt(&name).await.ok()??;
        let owner = image.metadata.owner_references?.first()?.uid.clone();
        (new.metadata.uid != before.metadata.uid && Some(owner) == new.metadata.uid).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn repository_aggregates_images_and_ends_its_interval_when_all_are_checked() {
    let (_server, client) = cluster().await;
    let _running = Running::start(client.clone());
    let repositories: Api<Repository> = Api::all(client.clone());
    // Created manually, with an interval that has passed already.
    let by_hand: Repository = serde_json::from_value(json!({
        "apiVersion": "kuik.enix.io/v1alpha1", "kind": "Repository", "metadata": { "name": "docker.io-library-one" },
        "spec": { "name": "docker.io/library/one", "pullSecretNames": ["hand"], "pullSecretsNamespace": "bank",
                  "updateInterval": "1s", "updateFilters": ["1$"] }
    }))
    .unwrap();
    repositories.create(&PostParams::default(), &by_hand).await.unwrap();
    let with = json!({ "spec": { "imagePullSecrets": [{ "name": "pod" }] } });
    create(&client, pod("shop", "a", &["one:1", "one:2"], with)).await;
    eventually("the images have their objects", async || {
        (cached_images(&client).await.len() == 2).then_some(())
    })
    .await;
    let images: Api<CachedImage> = Api::all(client.clone());
    let say = async |name: &str, status: serde_json::Value| {
        let patch = Patch::Merge(json!({ "status": status }));
        images.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    };
    let phase = async |phase: RepositoryPhase| {
        eventually("the repository's phase follows", async || {
            let repository = repositories.get("docker.io-library-one").await.ok()?;
            (repository.status.as_ref()?.phase == Some(phase)).then_some(repository)
        })
        .await
    };
    say("docker.io-library-one-1", json!({ "phase": "ErrImagePull" })).await;
    phase(RepositoryPhase::ErrImagePull).await;
    let ready = json!({ "phase": "Ready", "isCached": true });
    say("docker.io-library-one-1", ready.clone()).await;
    phase(RepositoryPhase::Pulling).await;
    say("docker.io-library-one-2", ready).await;
    let ready = phase(RepositoryPhase::Ready).await;
    let secrets: Vec<_> = ready.pull_secrets().map(|secret| secret.name).collect();
    assert_eq!(secrets, ["hand", "pod"], "those set by hand stay, and come first");
    assert_eq!(ready.spec, by_hand.spec);
    assert!(ready.status.unwrap().last_update.is_none(), "no image has been checked");

    // The one that matches the filter is checked.
    say("docker.io-library-one-1", json!({ "lastSync": "2100-01-01T00:00:00Z" })).await;
    eventually("the interval ends", async || {
        repositories.get("docker.io-library-one").await.ok()?.status?.last_update
    })
    .await;
    eventually("an event is emitted", async || {
        let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(client.clone(), "default");
        let events = events.list(&Default::default()).await.ok()?;
        events.iter().find(|event| event.reason.as_deref() == Some("UpToDate")).map(|_| ())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn deleting_a_duplicate_repository_deletes_no_image() {
    let (_server, client) = cluster().await;
    let _running = Running::start(client.clone());
    let repositories: Api<Repository> = Api::all(client.clone());
    create(&client, pod("shop", "a", &["one:1"], json!({}))).await;
    eventually("the image is counted", async || {
        let repository = repositories.get_opt("docker.io-library-one").await.ok()??;
        (repository.status?.images == Some(1)).then_some(())
    })
    .await;
    let images: Api<CachedImage> = Api::all(client.clone());
    let before = images.get("docker.io-library-one-1").await.unwrap();
    let by_hand = json!({
        "apiVersion": "kuik.enix.io/v1alpha1", "kind": "Repository", "metadata": { "name": "mine" },
        "spec": { "name": "docker.io/library/one" },
    });
    repositories.create(&PostParams::default(), &serde_json::from_value(by_hand).unwrap()).await.unwrap();
    eventually("it is reconciled", async || repositories.get("mine").await.ok()?.status).await;
    repositories.delete("mine", &DeleteParams::default()).await.unwrap();
    eventually("it is deleted", async || repositories.get_opt("mine").await.ok()?.is_none().then_some(()))
        .await;
    let after = images.get("docker.io-library-one-1").await.unwrap();
    assert_eq!(after.metadata.uid, before.metadata.uid);
    assert_eq!(after.metadata.deletion_timestamp, None);
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn node_platforms_are_learned_before_use() {
    let (_server, client) = cluster().await;
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": "n", "labels": { "kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64" } },
    });
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(client.clone());
    nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
    let platforms = NodePlatforms::new(Platforms::parse(["auto"]).unwrap());
    assert_eq!(*platforms.wanted(), Platforms::all(), "too much is better than nothing");
    platforms.learn(&client).await;
    assert_eq!(*platforms.wanted(), Platforms::parse(["arm64"]).unwrap());
}
