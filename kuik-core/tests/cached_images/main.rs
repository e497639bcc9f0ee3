//! CachedImages on a real API server, with Docker's registry as the cache: from their making to their end, and what may
//! go wrong between.
#![cfg(all(feature = "controller", feature = "testkit"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]
#![allow(clippy::print_stderr, reason = "what is printed is shown where a test fails")]

#[allow(dead_code, reason = "its main is for people")]
#[path = "../../examples/operator.rs"]
mod operator;
mod rig;

use kube_client::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use kuik_core::{
    crd::{
        CACHED_IMAGE_FINALIZER, CachedImage, CachedImagePhase, CachedImageSpec, CachedImageStatus,
        FORCE_UPDATE_ANNOTATION, REPOSITORY_LABEL, Repository, disambiguated, repository_name,
    },
    reference::ImageReference,
    registry::Upstreams,
    testkit::{
        Behaviour, Gate, Rule, ScriptedRegistry, Target,
        real::{DockerRegistry, RegistryOptions},
    },
};
use rig::{Rig, image};
use serde_json::json;

fn status(object: &CachedImage) -> CachedImageStatus {
    object.status.clone().unwrap_or_default()
}

fn phase(object: &CachedImage) -> Option<CachedImagePhase> {
    status(object).phase
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn an_image_is_kept_for_as_long_as_it_is_used() {
    let rig = Rig::start().await;
    let content = image(1);
    rig.source.add_image("team/app", "1", &content);
    rig.source.add_image("team/app", "stable", &content);
    let (one, stable) = (rig.object("team/app:1"), rig.object("team/app:stable"));
    rig.pods.set(&rig.name("team/app:1"), 2);
    rig.pods.set(&rig.name("team/app:stable"), 1);

    // Made by hand under a name of somebody's choice, it is made again under its own.
    rig.create("mine", "team/app:1").await;
    rig.create(&stable, "team/app:stable").await;
    let object = rig.until_cached(&one).await;
    rig.until_cached(&stable).await;
    rig.until_gone("mine").await;
    let repository = rig.source.repository("team/app").unwrap();
    let owner: Repository = Api::all(rig.client.clone()).get(&repository_name(&repository)).await.unwrap();
    let owner_uid = owner.metadata.uid.clone().unwrap();
    let object = rig
        .until(&object.metadata.name.unwrap(), "was owned", |object| {
            object.metadata.owner_references.iter().flatten().any(|owner| owner.uid == owner_uid)
        })
        .await;
    assert_eq!(object.metadata.finalizers.as_deref(), Some([CACHED_IMAGE_FINALIZER.to_owned()].as_slice()));
    assert!(object.metadata.labels.as_ref().unwrap().contains_key(REPOSITORY_LABEL));
    let said = status(&object);
    assert_eq!((said.phase, said.up_to_date), (Some(CachedImagePhase::Ready), Some(true)));
    assert_eq!(said.digest.as_deref(), Some(content.index().digest().encoded()));
    assert_eq!((said.used_by.as_ref().unwrap().count, said.used_by.unwrap().pods.len()), (2, 2));
    assert_eq!(object.spec.expires_at, None);
    assert_eq!(rig.at_cache("team/app", "1").await.as_ref(), Some(content.index().digest()));
    // Of a pull that takes its time it is told that it has begun.
    let events = |name: &str| -> Vec<_> {
        rig.events.of(name).into_iter().filter(|reason| *reason != "Caching").collect()
    };
    assert_eq!(events(&one), ["Cached"]);
    let wait = ["wait", "--for=condition=Ready", "cachedimage", &one, "--timeout=5s"];
    rig.server.admin().kubectl(wait).await.unwrap();
    let table = rig.server.admin().kubectl(["get", "cachedimages", &one]).await.unwrap();
    let columns: Vec<&str> =
        table.lines().next().unwrap().split("  ").map(str::trim).filter(|it| !it.is_empty()).collect();
    assert_eq!(columns, ["NAME", "STATUS", "CACHED", "RETAIN", "EXPIRES AT", "PODS COUNT", "AGE"]);

    // The pods go, and the image gets a date; nothing is written again while nothing changes.
    rig.pods.set(&rig.name("team/app:1"), 0);
    rig.until(&one, "got a date", |object| {
        object.spec.expires_at.is_some() && status(object).used_by.unwrap().count == 0
    })
    .await;
    let object = rig
        .until(&one, "was settled", |object| status(object).observed_generation == object.metadata.generation)
        .await;
    rig.until_looked(6).await;
    assert_eq!(
        rig.version(&one).await,
        object.metadata.resource_version,
        "nothing changed, so nothing is written"
    );

    // Used again after its date, it is kept.
    rig.pods.set(&rig.name("team/app:1"), 1);
    rig.pass(31).await;
    rig.until(&one, "was needed again", |object| object.spec.expires_at.is_none()).await;
    rig.pods.set(&rig.name("team/app:1"), 0);
    rig.until(&one, "got another date", |object| object.spec.expires_at.is_some()).await;

    // Past its date it goes, and its tag alone with it.
    rig.pass(31).await;
    rig.until_gone(&one).await;
    assert_eq!(rig.at_cache("team/app", "1").await, None);
    assert_eq!(rig.at_cache("team/app", "stable").await.as_ref(), Some(content.index().digest()));
    assert_eq!(phase(&rig.until_cached(&stable).await), Some(CachedImagePhase::Ready));
    assert_eq!(events(&one)[1..], ["Expiring", "Expired", "CleaningUp", "CleanedUp"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn status_tells_the_truth_about_the_cache() {
    let mut rig = Rig::start().await;
    let content = image(2);
    rig.source.add_image("app", "1", &content);
    let app = rig.object("app:1");
    rig.pods.set(&rig.name("app:1"), 1);
    rig.create(&app, "app:1").await;
    rig.until_cached(&app).await;

    // Somebody wipes the cache, and the source is away: status says so, and the image is not given up.
    rig.source.stop().await;
    for entry in std::fs::read_dir(rig.storage.path()).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    rig.until(&app, "was told missing", |object| status(object).is_cached == Some(false)).await;
    rig.until(&app, "was told to fail", |object| phase(object) == Some(CachedImagePhase::ErrImagePull)).await;
    // The source returns after days.
    rig.pass(4).await;
    rig.source.resume().await.unwrap();
    rig.pass(1).await;
    rig.until_cached(&app).await;
    assert_eq!(rig.at_cache("app", "1").await.as_ref(), Some(content.index().digest()));

    // A single blob goes, and comes back.
    let lost = content.layers()[1].digest.encoded().to_owned();
    let blob = rig.storage.path().join("docker/registry/v2/blobs/sha256").join(&lost[..2]).join(&lost);
    std::fs::remove_dir_all(&blob).unwrap();
    rig.until(&app, "was repaired", |object| status(object).is_cached == Some(true) && blob.exists()).await;

    // Another process takes over, after the image was deleted upstream: what the cache has stays.
    rig.source.remove("app");
    rig.reconcile();
    let mark = json!({"metadata": {"annotations": {FORCE_UPDATE_ANNOTATION: "true"}}});
    rig.images.patch(&app, &PatchParams::default(), &Patch::Merge(&mark)).await.unwrap();
    let object =
        rig.until(&app, "was told gone", |object| status(object).available_upstream == Some(false)).await;
    assert_eq!((status(&object).is_cached, phase(&object)), (Some(true), Some(CachedImagePhase::Ready)));
    let marked = |object: &CachedImage| {
        object.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(FORCE_UPDATE_ANNOTATION))
    };
    assert!(marked(&object), "a refresh that failed is still asked for");
    let newer = image(3);
    rig.source.add_image("app", "1", &newer);
    rig.pass(1).await;
    let object = rig.until(&app, "was refreshed", |object| !marked(object)).await;
    assert_eq!(status(&object).digest.as_deref(), Some(newer.index().digest().encoded()));
    assert_eq!(rig.at_cache("app", "1").await.as_ref(), Some(newer.index().digest()));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn what_happens_to_an_object_while_its_image_is_pulled() {
    let mut rig = Rig::start().await;
    for (seed, tag) in [(10, "slow"), (11, "other"), (12, "killed")] {
        rig.source.add_image("app", tag, &image(seed));
    }
    let blocked = image(10).layers()[1].digest.to_string();
    let gate = Gate::new();
    rig.source.script(
        Rule::on(Target::Blob).path(blocked).does(Behaviour::Stall { after: 1000, until: gate.clone() }),
    );
    let pulling = |object: &CachedImage| phase(object) == Some(CachedImagePhase::Pulling);

    // Deleted: it goes, whatever the source does.
    let slow = rig.object("app:slow");
    rig.pods.set(&rig.name("app:slow"), 1);
    rig.create(&slow, "app:slow").await;
    rig.until(&slow, "was shown to be pulled", pulling).await;
    rig.until(&slow, "was told of", |_| rig.events.of(&slow) == ["Caching"]).await;
    rig.images.delete(&slow, &DeleteParams::default()).await.unwrap();
    rig.until_gone(&slow).await;
    assert_eq!(rig.at_cache("app", "slow").await, None);

    // Edited to another image: the object of that one takes its place.
    rig.create(&slow, "app:slow").await;
    rig.until(&slow, "was shown to be pulled", pulling).await;
    let edit = json!({"spec": {"sourceImage": rig.name("app:other")}});
    rig.images.patch(&slow, &PatchParams::default(), &Patch::Merge(&edit)).await.unwrap();
    rig.until_cached(&rig.object("app:other")).await;
    rig.until_gone(&slow).await;

    // Edited when it is cached: the tag that nobody stands for any more goes.
    let (other, killed) = (rig.object("app:other"), json!({"spec": {"sourceImage": rig.name("app:killed")}}));
    rig.images.patch(&other, &PatchParams::default(), &Patch::Merge(&killed)).await.unwrap();
    rig.until_cached(&rig.object("app:killed")).await;
    rig.until_gone(&other).await;
    rig.until_untagged("app", "other").await;
    rig.images.delete(&rig.object("app:killed"), &DeleteParams::default()).await.unwrap();
    rig.until_gone(&rig.object("app:killed")).await;

    // The API server is killed and comes back.
    rig.create(&slow, "app:slow").await;
    rig.until(&slow, "was shown to be pulled", pulling).await;
    rig.server.stop().await.unwrap();
    gate.open();
    rig.server.resume().await.unwrap();
    rig.create(&rig.object("app:killed"), "app:killed").await;
    rig.until_cached(&rig.object("app:killed")).await;
    rig.until_cached(&slow).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn names_that_collide_and_references_that_are_none() {
    let rig = Rig::start().await;
    rig.source.add_image("foo/bar-baz", "1", &image(20));
    rig.source.add_image("foo-bar/baz", "1", &image(21));
    let plain = rig.object("foo/bar-baz:1");
    assert_eq!(plain, rig.object("foo-bar/baz:1"));
    rig.create(&plain, "foo/bar-baz:1").await;
    rig.until_cached(&plain).await;
    rig.create("second", "foo-bar/baz:1").await;
    let text = rig.name("foo-bar/baz:1");
    let hashed = disambiguated(&ImageReference::parse(&text).unwrap().normalized());
    let second = rig.until_cached(&hashed).await;
    assert_eq!(status(&second).digest.as_deref(), Some(image(21).index().digest().encoded()));
    assert_eq!(
        status(&rig.until_cached(&plain).await).digest.as_deref(),
        Some(image(20).index().digest().encoded())
    );
    rig.until_gone("second").await;

    let spec = CachedImageSpec { source_image: "Not/An/IMAGE".to_owned(), ..CachedImageSpec::default() };
    // A schema may refuse it already; one that was there before is told.
    if rig.images.create(&PostParams::default(), &CachedImage::new("bad", spec)).await.is_ok() {
        let bad = rig
            .until("bad", "was told bad", |object| phase(object) == Some(CachedImagePhase::ErrImagePull))
            .await;
        let said = status(&bad).conditions.unwrap();
        assert_eq!(said[0].reason, "InvalidReference");
        assert!(said[0].message.contains("Not/An/IMAGE"), "{}", said[0].message);
        assert_eq!(rig.events.of("bad"), ["CacheFailed"]);
        rig.images.delete("bad", &DeleteParams::default()).await.unwrap();
        rig.until_gone("bad").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn an_operator_of_fewer_than_60_lines_does_all_this() {
    assert!(include_str!("../../examples/operator.rs").lines().count() < 60);
    let (server, client) = rig::api_server().await;
    let cache = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let source = ScriptedRegistry::start().await.unwrap();
    source.add_image("app", "1", &image(30));
    let upstreams = Upstreams::default().insecure(&source.host()).unwrap();
    let (kube, host) = (client.clone(), cache.host());
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
