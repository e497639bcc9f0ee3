//! Garbage collection on real stores: results, under load, and after interruptions.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kuik_core::{
    content::{
        ByteRange, ContentSource, ContentStore, Descriptor, Digest, Freshness, Manifest, MediaType,
        RegistryStore, SourceErrorKind, StoredBlob, TagOrDigest,
    },
    reference::{RepositoryName, Tag},
};
use kuik_proxy::{
    maintenance::gc::{Collector, GcError, GcOptions, GcReport, LeasedStore, Leases},
    store::FilesystemStore,
};
use kuik_testkit::MemoryStore;

use crate::failing::Failing;

fn repository(name: &str) -> RepositoryName {
    RepositoryName::local(name).unwrap()
}

fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

/// Everything counts as old.
fn eager(delete_untagged: bool) -> GcOptions {
    let mut options = GcOptions::default();
    (options.grace, options.delete_untagged) = (Duration::ZERO, delete_untagged);
    options
}

async fn blob(store: &dyn RegistryStore, repository: &RepositoryName, content: &str) -> Descriptor {
    let id = store.start_upload(repository).await.unwrap();
    let mut upload = store.upload(repository, &id).await.unwrap();
    upload.append(&[content.to_owned().into()]).await.unwrap();
    let digest = Digest::sha256(content.as_bytes());
    upload.finish(&digest).await.unwrap();
    Descriptor::new(MediaType::OCI_CONFIG, digest, content.len() as u64)
}

fn manifest(descriptors: &[Descriptor], subject: Option<&Manifest>) -> Manifest {
    let entry = |d: &Descriptor| {
        format!(r#"{{"mediaType":"{}","digest":"{}","size":{}}}"#, d.media_type, d.digest, d.size)
    };
    let subject = subject.map(|s| format!(r#","subject":{}"#, entry(&s.descriptor()))).unwrap_or_default();
    let (config, layers) = descriptors.split_first().unwrap();
    let layers: Vec<_> = layers.iter().map(entry).collect();
    let text = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]{subject}}}"#,
        entry(config),
        layers.join(",")
    );
    Manifest::new(None, text.into()).unwrap()
}

fn index(manifests: &[&Manifest]) -> Manifest {
    let entries: Vec<_> = manifests
        .iter()
        .map(|m| {
            let d = m.descriptor();
            format!(r#"{{"mediaType":"{}","digest":"{}","size":{}}}"#, d.media_type, d.digest, d.size)
        })
        .collect();
    let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    Manifest::new(Some(&MediaType::OCI_INDEX), text.into()).unwrap()
}

async fn bytes_of(store: &dyn RegistryStore) -> BTreeSet<Digest> {
    use futures::TryStreamExt as _;
    store.blobs().map_ok(|blob| blob.digest).try_collect().await.unwrap()
}

fn collector(store: &(impl RegistryStore + Clone)) -> Collector {
    Collector::new(Arc::new(store.clone()), Leases::default())
}

async fn run(store: &(impl RegistryStore + Clone), options: &GcOptions) -> GcReport {
    collector(store).run(options, |_| {}).await.unwrap()
}

/// Pushes an index of two platforms, one of them absent, with a signature; an image that shares a layer with it under
/// two tags; and an unreferenced blob. Returns the content kept by a tag or a referrer, and that kept only by its own
/// link.
async fn fill(store: &dyn RegistryStore) -> (BTreeSet<Digest>, BTreeSet<Digest>) {
    let app = repository("app");
    let (base, top, config) =
        (blob(store, &app, "base").await, blob(store, &app, "top").await, blob(store, &app, "config").await);
    let lost = blob(store, &app, "lost").await;
    let (one, two) = (
        manifest(&[config.clone(), base.clone()], None),
        manifest(&[config.clone(), base.clone(), top.clone()], None),
    );
    let absent = manifest(&[Descriptor::new(MediaType::OCI_CONFIG, Digest::sha256(b"absent"), 6)], None);
    let list = index(&[&one, &absent]);
    let signature = manifest(&[blob(store, &app, "signature").await], Some(&list));
    let untagged = manifest(&[blob(store, &app, "untagged").await, base.clone()], None);
    for kept in [&one, &signature, &untagged] {
        store.put_manifest(&app, kept, None).await.unwrap();
    }
    store.put_manifest(&app, &list, Some(&tag("list"))).await.unwrap();
    store.put_manifest(&app, &two, Some(&tag("two"))).await.unwrap();
    store.put_manifest(&app, &two, Some(&tag("also-two"))).await.unwrap();
    let held = [&one, &two, &list, &signature].map(|m| m.digest().clone()).into_iter();
    let held =
        held.chain([base, top, config].map(|d| d.digest)).chain([Digest::sha256(b"signature")]).collect();
    (held, [lost.digest, untagged.digest().clone(), Digest::sha256(b"untagged")].into())
}

async fn collects(store: impl RegistryStore + Clone) {
    let (held, loose) = fill(&store).await;
    let app = repository("app");
    assert_eq!(run(&store, &GcOptions::default()).await.removed, 0, "all content is young");

    let mut dry = eager(true);
    dry.dry_run = true;
    let mut listed = BTreeSet::new();
    let would = collector(&store).run(&dry, |gone: &StoredBlob| listed.extend([gone.digest.clone()])).await;
    let would = would.unwrap();
    assert_eq!((listed, would.removed), (loose.clone(), 3), "a dry run lists the garbage");
    assert_eq!(bytes_of(&store).await, &held | &loose, "and removes nothing");

    assert_eq!(run(&store, &eager(false)).await.removed, 1, "an untagged manifest is held by its digest");
    let report = run(&store, &eager(true)).await;
    assert_eq!(report.removed, 2);
    assert_eq!(bytes_of(&store).await, held);
    assert_eq!((report.kept, would.kept), (held.len() as u64, held.len() as u64));
    assert!(store.blob_size(&app, &Digest::sha256(b"lost")).await.is_err());
    // The link is removed with the bytes: if another repository adds them again, they do not belong to this one.
    blob(&store, &repository("other"), "lost").await;
    let again = store.blob_size(&app, &Digest::sha256(b"lost")).await.unwrap_err();
    assert_eq!(again.kind(), SourceErrorKind::NotFound);

    store.delete_tag(&app, &tag("two")).await.unwrap();
    run(&store, &eager(true)).await;
    assert_eq!(bytes_of(&store).await, held, "the other tag keeps its content");
    store.delete_tag(&app, &tag("also-two")).await.unwrap();
    store.delete_tag(&app, &tag("list")).await.unwrap();
    run(&store, &eager(true)).await;
    assert_eq!(bytes_of(&store).await, BTreeSet::new(), "referrers go with their subject");
}

#[tokio::test]
async fn gc_removes_only_unreferenced_content() {
    collects(MemoryStore::new()).await;
    let dir = tempfile::tempdir().unwrap();
    collects(FilesystemStore::open(dir.path()).unwrap()).await;
}

#[tokio::test]
async fn damaged_manifest_keeps_its_references_until_repaired() {
    let (store, app) = (MemoryStore::new(), repository("app"));
    let (config, layer) = (blob(&store, &app, "config").await, blob(&store, &app, "layer").await);
    let image = manifest(&[config, layer.clone()], None);
    store.put_manifest(&app, &image, Some(&tag("v1"))).await.unwrap();
    store.damage(image.digest(), "damaged");
    run(&store, &eager(true)).await;
    store.quarantine_blob(image.digest()).await.unwrap();
    run(&store, &eager(true)).await;
    assert!(bytes_of(&store).await.contains(&layer.digest));

    store.put_manifest(&app, &image, None).await.unwrap();
    let stray = blob(&store, &app, "stray").await;
    run(&store, &eager(true)).await;
    let bytes = bytes_of(&store).await;
    assert!(bytes.contains(&layer.digest) && !bytes.contains(&stray.digest), "garbage is collected again");
}

#[tokio::test]
async fn interrupted_gc_can_run_again_from_any_step() {
    let mut steps = 0;
    loop {
        let store = MemoryStore::new();
        let (held, loose) = fill(&store).await;
        let failing = Failing::after(store.clone(), steps);
        let outcome = collector(&failing).run(&eager(true), |_| {}).await;
        assert!(bytes_of(&store).await.is_superset(&held));
        run(&store, &eager(true)).await;
        assert_eq!(bytes_of(&store).await, held, "{steps} of {loose:?}");
        for gone in ["lost", "untagged"] {
            blob(&store, &repository("other"), gone).await;
            let found = store.blob_size(&repository("app"), &Digest::sha256(gone.as_bytes())).await;
            assert!(found.is_err(), "the link of {gone} stayed after {steps} steps");
        }
        match outcome {
            Ok(_) => break,
            Err(GcError::Store(_)) => steps += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(steps >= 6, "each removal was a step: {steps}");
}

/// Pushers, pullers and the collector at once, for a few seconds: everything acknowledged exists, and at the end
/// nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gc_under_load_keeps_acknowledged_content() {
    let dir = tempfile::tempdir().unwrap();
    let raw = FilesystemStore::open(dir.path()).unwrap().as_cache();
    let leases = Leases::default();
    let collector = Collector::new(Arc::new(raw.clone()), leases.clone());
    let store = LeasedStore::new(raw.clone(), leases.clone());
    let (stop, pushed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..3 {
        let (store, leases) = (store.clone(), leases.clone());
        let (stop, pushed) = (stop.clone(), pushed.clone());
        tasks.spawn(async move {
            let (app, mine) = (repository("app"), tag(&format!("t{n}")));
            for round in 0_usize.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                // Few blobs, so that garbage is pushed again at once.
                let names = [format!("c{}", (round + n) % 5), format!("l{}", round % 7)];
                let layers = names.each_ref().map(|name| {
                    let digest = Digest::sha256(name.as_bytes());
                    Descriptor::new(MediaType::OCI_CONFIG, digest, name.len() as u64)
                });
                let image = manifest(&layers, None);
                let list = index(&[&image]);
                // As a client does: check, push missing blobs, push the manifests; the server checks under a lease.
                loop {
                    for (name, layer) in names.iter().zip(&layers) {
                        if store.blob_size(&app, &layer.digest).await.is_err() {
                            blob(&store, &app, name).await;
                        }
                    }
                    if !put(&store, &leases, &app, &image, None).await {
                        continue;
                    }
                    if put(&store, &leases, &app, &list, Some(&mine)).await {
                        break;
                    }
                }
                let found = store.manifest(&app, &TagOrDigest::Tag(mine.clone()), Freshness::Cached).await;
                assert_eq!(found.unwrap().content, list);
                for digest in [image.digest()] {
                    let at = TagOrDigest::Digest(digest.clone());
                    store.manifest(&app, &at, Freshness::Cached).await.unwrap();
                }
                for layer in &layers {
                    store.blob(&app, &layer.digest, ByteRange::Full).await.unwrap();
                }
                pushed.fetch_add(1, Ordering::Relaxed);
                if round % 3 == 0 {
                    store.delete_tag(&app, &mine).await.unwrap();
                }
            }
        });
    }
    let (began, mut removed, mut runs) = (Instant::now(), 0, 0);
    while began.elapsed() < Duration::from_secs(5) && tasks.try_join_next().is_none() {
        removed += collector.run(&eager(true), |_| {}).await.unwrap().removed;
        runs += 1;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert!(
        removed > 0 && pushed.load(Ordering::Relaxed) > 10,
        "{removed} removed in {runs} runs, {pushed:?} pushed"
    );
    println!("{removed} removed in {runs} runs, {pushed:?} pushed");

    for n in 0..3 {
        let _ = store.delete_tag(&repository("app"), &tag(&format!("t{n}"))).await;
    }
    collector.run(&eager(true), |_| {}).await.unwrap();
    assert_eq!(bytes_of(&raw).await, BTreeSet::new());
}

/// Pushes a manifest: checks its references and stores it under one lease.
async fn put(
    store: &LeasedStore<FilesystemStore>,
    leases: &Leases,
    app: &RepositoryName,
    manifest: &Manifest,
    tag: Option<&Tag>,
) -> bool {
    use kuik_core::content::DecodedManifest;
    let _lease = leases.lease_manifest(manifest).await;
    let complete = match manifest.decode().unwrap() {
        DecodedManifest::Index(index) => {
            let at = TagOrDigest::Digest(index.manifests[0].digest.clone());
            store.manifest(app, &at, Freshness::Cached).await.is_ok()
        }
        DecodedManifest::Image(image) => {
            let mut complete = true;
            for part in image.layers.iter().chain([&image.config]) {
                complete &= store.blob_size(app, &part.digest).await.is_ok();
            }
            complete
        }
        _ => false,
    };
    if complete {
        store.put_manifest(app, manifest, tag).await.unwrap();
    }
    complete
}
