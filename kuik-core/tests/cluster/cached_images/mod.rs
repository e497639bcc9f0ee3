//! CachedImage lifecycle and fault tests on a real API server, with Docker's registry as the cache.
#![cfg(feature = "controller")]

mod harness;
#[allow(dead_code, reason = "its main is for people")]
#[path = "../../../examples/operator.rs"]
mod operator;

use self::harness::{Harness, image};
use kube_client::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use kuik_core::{
    client::Upstreams,
    crd::{
        CACHED_IMAGE_FINALIZER, CachedImage, CachedImagePhase, CachedImageSpec, CachedImageStatus,
        FORCE_UPDATE_ANNOTATION, REPOSITORY_LABEL, Repository, disambiguated, repository_name,
    },
    reference::ImageReference,
};
use kuik_testkit::real::{DockerRegistry, RegistryOptions};
use kuik_testkit::{Behavior, Gate, Rule, ScriptedRegistry, Target};
use serde_json::json;

fn status(object: &CachedImage) -> CachedImageStatus {
    object.status.clone().unwrap_or_default()
}

fn phase(object: &CachedImage) -> Option<CachedImagePhase> {
    status(object).phase
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn image_is_cached_while_used_and_expires_after() {
    let harness = Harness::start().await;
    let content = image(1);
    harness.source.add_image("team/app", "1", &content);
    harness.source.add_image("team/app", "stable", &content);
    let (one, stable) = (harness.object("team/app:1"), harness.object("team/app:stable"));
    harness.pods.set(&harness.name("team/app:1"), 2);
    harness.pods.set(&harness.name("team/app:stable"), 1);

    // Created manually under an arbitrary name, it is recreated under the canonical one.
    harness.create("mine", "team/app:1").await;
    harness.create(&stable, "team/app:stable").await;
    let object = harness.until_cached(&one).await;
    harness.until_cached(&stable).await;
    harness.until_gone("mine").await;
    let repository = harness.source.repository("team/app").unwrap();
    let owner: Repository =
        Api::all(harness.client.clone()).get(&repository_name(&repository)).await.unwrap();
    let owner_uid = owner.metadata.uid.clone().unwrap();
    let object = harness
        .until(&object.metadata.name.unwrap(), "was owned", |object| {
            object.metadata.owner_references.iter().flatten().any(|owner| owner.uid == owner_uid)
        })
        .await;
    assert_eq!(object.metadata.finalizers.as_deref(), Some([CACHED_IMAGE_FINALIZER.to_owned()].as_slice()));
    assert!(object.metadata.labels.as_ref().unwrap().contains_key(REPOSITORY_LABEL));
    let conditions = status(&object);
    assert_eq!((conditions.phase, conditions.up_to_date), (Some(CachedImagePhase::Ready), Some(true)));
    assert_eq!(conditions.digest.as_deref(), Some(content.index().digest().encoded()));
    assert_eq!((conditions.used_by.as_ref().unwrap().count, conditions.used_by.unwrap().pods.len()), (2, 2));
    assert_eq!(object.spec.expires_at, None);
    assert_eq!(harness.at_cache("team/app", "1").await.as_ref(), Some(content.index().digest()));
    // A slow pull emits an event when it begins.
    let events = |name: &str| -> Vec<_> {
        harness.events.of(name).into_iter().filter(|reason| *reason != "Caching").collect()
    };
    assert_eq!(events(&one), ["Cached"]);
    let wait = ["wait", "--for=condition=Ready", "cachedimage", &one, "--timeout=5s"];
    harness.server.admin().kubectl(wait).await.unwrap();
    let table = harness.server.admin().kubectl(["get", "cachedimages", &one]).await.unwrap();
    let columns: Vec<&str> =
        table.lines().next().unwrap().split("  ").map(str::trim).filter(|it| !it.is_empty()).collect();
    assert_eq!(columns, ["NAME", "STATUS", "CACHED", "RETAIN", "EXPIRES AT", "PODS COUNT", "AGE"]);

    // The pods are deleted and the image gets an expiry date; nothing is written while nothing changes.
    harness.pods.set(&harness.name("team/app:1"), 0);
    harness
        .until(&one, "got a date", |object| {
            object.spec.expires_at.is_some() && status(object).used_by.unwrap().count == 0
        })
        .await;
    let object = harness
        .until(&one, "was settled", |object| status(object).observed_generation == object.metadata.generation)
        .await;
    harness.until_verified(6).await;
    assert_eq!(
        harness.version(&one).await,
        object.metadata.resource_version,
        "nothing changed, so nothing is written"
    );

    // Used again after its date, it is kept.
    harness.pods.set(&harness.name("team/app:1"), 1);
    harness.advance(31).await;
    harness.until(&one, "was needed again", |object| object.spec.expires_at.is_none()).await;
    harness.pods.set(&harness.name("team/app:1"), 0);
    harness.until(&one, "got another date", |object| object.spec.expires_at.is_some()).await;

    // Past its date it is deleted, and only its tag with it.
    harness.advance(31).await;
    harness.until_gone(&one).await;
    assert_eq!(harness.at_cache("team/app", "1").await, None);
    assert_eq!(harness.at_cache("team/app", "stable").await.as_ref(), Some(content.index().digest()));
    assert_eq!(phase(&harness.until_cached(&stable).await), Some(CachedImagePhase::Ready));
    assert_eq!(events(&one)[1..], ["Expiring", "Expired", "CleaningUp", "CleanedUp"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn status_reflects_the_cache_contents() {
    let mut harness = Harness::start().await;
    let content = image(2);
    harness.source.add_image("app", "1", &content);
    let app = harness.object("app:1");
    harness.pods.set(&harness.name("app:1"), 1);
    harness.create(&app, "app:1").await;
    harness.until_cached(&app).await;

    // The cache is wiped and the source is down: status reports it, and the pull is retried.
    harness.source.stop().await;
    for entry in std::fs::read_dir(harness.storage.path()).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    harness.until(&app, "was reported missing", |object| status(object).is_cached == Some(false)).await;
    harness
        .until(&app, "was reported to fail", |object| phase(object) == Some(CachedImagePhase::ErrImagePull))
        .await;
    // The source recovers after days.
    harness.advance(4).await;
    harness.source.resume().await.unwrap();
    harness.advance(1).await;
    harness.until_cached(&app).await;
    assert_eq!(harness.at_cache("app", "1").await.as_ref(), Some(content.index().digest()));

    // A single blob is lost and pulled again.
    let lost = content.layers()[1].digest.encoded().to_owned();
    let blob = harness.storage.path().join("docker/registry/v2/blobs/sha256").join(&lost[..2]).join(&lost);
    std::fs::remove_dir_all(&blob).unwrap();
    harness
        .until(&app, "was repaired", |object| status(object).is_cached == Some(true) && blob.exists())
        .await;

    // Another process takes over after the image was deleted upstream: the cached image stays.
    harness.source.remove("app");
    harness.reconcile();
    let mark = json!({"metadata": {"annotations": {FORCE_UPDATE_ANNOTATION: "true"}}});
    harness.images.patch(&app, &PatchParams::default(), &Patch::Merge(&mark)).await.unwrap();
    let object = harness
        .until(&app, "was reported missing upstream", |object| {
            status(object).available_upstream == Some(false)
        })
        .await;
    assert_eq!((status(&object).is_cached, phase(&object)), (Some(true), Some(CachedImagePhase::Ready)));
    let marked = |object: &CachedImage| {
        object.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(FORCE_UPDATE_ANNOTATION))
    };
    assert!(marked(&object), "a refresh that failed is still asked for");
    let newer = image(3);
    harness.source.add_image("app", "1", &newer);
    harness.advance(1).await;
    let object = harness.until(&app, "was refreshed", |object| !marked(object)).await;
    assert_eq!(status(&object).digest.as_deref(), Some(newer.index().digest().encoded()));
    assert_eq!(harness.at_cache("app", "1").await.as_ref(), Some(newer.index().digest()));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn objects_changed_during_a_pull_are_handled_at_once() {
    let mut harness = Harness::start().await;
    for (seed, tag) in [(10, "slow"), (11, "other"), (12, "killed")] {
        harness.source.add_image("app", tag, &image(seed));
    }
    let blocked = image(10).layers()[1].digest.to_string();
    let gate = Gate::new();
    harness.source.script(
        Rule::on(Target::Blob).path(blocked).does(Behavior::Stall { after: 1000, until: gate.clone() }),
    );
    let pulling = |object: &CachedImage| phase(object) == Some(CachedImagePhase::Pulling);

    // Deleted: it is removed even if the source hangs.
    let slow = harness.object("app:slow");
    harness.pods.set(&harness.name("app:slow"), 1);
    harness.create(&slow, "app:slow").await;
    harness.until(&slow, "was reported as pulling", pulling).await;
    harness.until(&slow, "was announced by an event", |_| harness.events.of(&slow) == ["Caching"]).await;
    harness.images.delete(&slow, &DeleteParams::default()).await.unwrap();
    harness.until_gone(&slow).await;
    assert_eq!(harness.at_cache("app", "slow").await, None);

    // Edited to another image: that image's object replaces it.
    harness.create(&slow, "app:slow").await;
    harness.until(&slow, "was reported as pulling", pulling).await;
    let edit = json!({"spec": {"sourceImage": harness.name("app:other")}});
    harness.images.patch(&slow, &PatchParams::default(), &Patch::Merge(&edit)).await.unwrap();
    harness.until_cached(&harness.object("app:other")).await;
    harness.until_gone(&slow).await;

    // Edited after it is cached: the tag that no object needs is removed.
    let (other, killed) =
        (harness.object("app:other"), json!({"spec": {"sourceImage": harness.name("app:killed")}}));
    harness.images.patch(&other, &PatchParams::default(), &Patch::Merge(&killed)).await.unwrap();
    harness.until_cached(&harness.object("app:killed")).await;
    harness.until_gone(&other).await;
    harness.until_untagged("app", "other").await;
    harness.images.delete(&harness.object("app:killed"), &DeleteParams::default()).await.unwrap();
    harness.until_gone(&harness.object("app:killed")).await;

    // The API server is killed and restarted.
    harness.create(&slow, "app:slow").await;
    harness.until(&slow, "was reported as pulling", pulling).await;
    harness.server.stop().await.unwrap();
    gate.open();
    harness.server.resume().await.unwrap();
    harness.create(&harness.object("app:killed"), "app:killed").await;
    harness.until_cached(&harness.object("app:killed")).await;
    harness.until_cached(&slow).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn colliding_names_and_invalid_references_are_handled() {
    let harness = Harness::start().await;
    harness.source.add_image("foo/bar-baz", "1", &image(20));
    harness.source.add_image("foo-bar/baz", "1", &image(21));
    let plain = harness.object("foo/bar-baz:1");
    assert_eq!(plain, harness.object("foo-bar/baz:1"));
    harness.create(&plain, "foo/bar-baz:1").await;
    harness.until_cached(&plain).await;
    harness.create("second", "foo-bar/baz:1").await;
    let text = harness.name("foo-bar/baz:1");
    let hashed = disambiguated(&ImageReference::parse(&text).unwrap().normalized());
    let second = harness.until_cached(&hashed).await;
    assert_eq!(status(&second).digest.as_deref(), Some(image(21).index().digest().encoded()));
    assert_eq!(
        status(&harness.until_cached(&plain).await).digest.as_deref(),
        Some(image(20).index().digest().encoded())
    );
    harness.until_gone("second").await;

    let spec = CachedImageSpec { source_image: "Not/An/IMAGE".to_owned(), ..CachedImageSpec::default() };
    // The schema may reject it; an existing one is reported in its status.
    if harness.images.create(&PostParams::default(), &CachedImage::new("bad", spec)).await.is_ok() {
        let bad = harness
            .until("bad", "was reported invalid", |object| {
                phase(object) == Some(CachedImagePhase::ErrImagePull)
            })
            .await;
        let conditions = status(&bad).conditions.unwrap();
        assert_eq!(conditions[0].reason, "InvalidReference");
        assert!(conditions[0].message.contains("Not/An/IMAGE"), "{}", conditions[0].message);
        assert_eq!(harness.events.of("bad"), ["CacheFailed"]);
        harness.images.delete("bad", &DeleteParams::default()).await.unwrap();
        harness.until_gone("bad").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn example_operator_of_under_60_lines_caches_an_image() {
    assert!(include_str!("../../../examples/operator.rs").lines().count() < 60);
    let (server, client) = harness::api_server().await;
    let cache = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let source = ScriptedRegistry::start().await.unwrap();
    source.add_image("app", "1", &image(30));
    let upstreams = Upstreams::default().insecure(&source.host()).unwrap();
    let (kube, host) = (client.clone(), format!("http://{}", cache.host()));
    let operator = tokio::spawn(async move {
        operator::run(kube, &host, upstreams).await.map_err(|error| error.to_string())
    });

    let spec =
        CachedImageSpec { source_image: format!("{}/app:1", source.host()), ..CachedImageSpec::default() };
    let images: Api<CachedImage> = Api::all(client);
    images.create(&PostParams::default(), &CachedImage::new("mine", spec)).await.unwrap();
    let wait =
        ["wait", "--for=condition=Ready", "cachedimage", "--selector", REPOSITORY_LABEL, "--timeout=60s"];
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(90);
    while server.admin().kubectl(wait).await.is_err() {
        assert!(
            !operator.is_finished() && tokio::time::Instant::now() < deadline,
            "the image was never ready"
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    operator.abort();
}
