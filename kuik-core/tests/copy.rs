//! Images are copied by pushing: from a scripted registry into Docker's registry 2.8, which holds no sparse index and
//! removes no tag, with every digest as it was.
#![cfg(all(feature = "registry", feature = "testkit"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod registry_common;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header::RETRY_AFTER};
use kuik_core::{
    content::{
        CacheNames, ContentSource, Descriptor, Digest, Freshness, ImageIndex, ImageManifest, Manifest,
        MediaType, SourceErrorKind, TagOrDigest,
    },
    copy::{CopyError, ImageCopier, Platforms, Progress, PushCopier, SourceImage, Verdict},
    credentials::{Anonymous, Credential, CredentialProvider},
    reference::{ImageReference, RepositoryName},
    registry::{
        HostLimits, HttpTransport, RegistryClient, Timeouts, TransportConfig, Upstream, UpstreamResolver as _,
    },
    testkit::{
        Behaviour, Rule, SampleImage, ScriptedRegistry, Target,
        real::{DockerRegistry, RegistryOptions, skopeo},
    },
};
use registry_common::{anonymous, tag};

/// A source, a cache, and what is between them.
struct Rig {
    source: ScriptedRegistry,
    cache: DockerRegistry,
    storage: tempfile::TempDir,
    client: RegistryClient,
}

impl Rig {
    async fn start() -> Self {
        Self::start_with(None, Anonymous).await
    }

    async fn start_with(basic: Option<(String, String)>, credentials: impl CredentialProvider) -> Self {
        let storage = tempfile::tempdir().unwrap();
        let options =
            RegistryOptions { basic, storage: Some(storage.path().to_owned()), ..RegistryOptions::default() };
        let cache = DockerRegistry::start(&options).await.unwrap();
        let name = RepositoryName::new(&cache.host(), "cache").unwrap();
        let upstream = Upstream::new(&cache.url(), name).unwrap();
        let mut config = TransportConfig::default();
        config.guard = upstream.guard();
        config.system_roots = false;
        let transport = HttpTransport::new(config).unwrap();
        let mut limits = HostLimits::default();
        limits.longest_hold = Duration::ZERO;
        let client = RegistryClient::limited(transport, upstream, credentials, Timeouts::default(), limits);
        Self { source: ScriptedRegistry::start().await.unwrap(), cache, storage, client }
    }

    fn copier(&self, platforms: &[&str]) -> PushCopier {
        let platforms = Arc::new(Platforms::parse(platforms.iter().copied()).unwrap());
        PushCopier::new(Arc::new(anonymous(&self.source)), self.client.clone(), Arc::new(platforms))
    }

    fn image(&self, name: &str) -> SourceImage {
        let text = format!("{}/{name}", self.source.host());
        SourceImage::new(&ImageReference::parse(&text).unwrap()).unwrap()
    }

    fn at_cache(&self, path: &str) -> RepositoryName {
        CacheNames::at_cache(&self.source.repository(path).unwrap()).unwrap()
    }

    /// What a tag of the cache is on.
    async fn digest(&self, path: &str, name: &str) -> Option<Digest> {
        let found = self.client.resolve(&self.at_cache(path), &tag(name), Freshness::Cached).await;
        match found {
            Ok(found) => Some(found.content.digest),
            Err(error) if error.is_not_found() => None,
            Err(error) => panic!("{}", error.chain()),
        }
    }

    /// Where the cache keeps a blob.
    fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.encoded();
        self.storage.path().join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex)
    }
}

#[derive(Default)]
struct Counted {
    expected: AtomicU64,
    advanced: AtomicU64,
}

impl Progress for Counted {
    fn expects(&self, bytes: u64) {
        self.expected.fetch_add(bytes, Ordering::Relaxed);
    }

    fn advances(&self, bytes: u64) {
        self.advanced.fetch_add(bytes, Ordering::Relaxed);
    }
}

fn total(image: &SampleImage) -> u64 {
    image.blobs().values().map(|bytes| bytes.len() as u64).sum()
}

/// An image of two platforms, with a layer that is sent in one piece and one that is streamed.
fn two_platforms(seed: u64) -> SampleImage {
    let builder = SampleImage::builder().seed(seed).platform("linux", "amd64").platform("linux", "arm64");
    builder.layer(10_000).layer(700_000).build()
}

async fn verify(copier: &PushCopier, image: &SourceImage) -> Result<Digest, String> {
    match copier.verify(image).await.unwrap() {
        Verdict::Complete { digest } => Ok(digest),
        Verdict::Missing { what } => Err(what),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_image_is_pushed_byte_for_byte_and_only_once() {
    let rig = Rig::start().await;
    let image = two_platforms(1);
    rig.source.add_image("team/app", "1.0", &image);
    let (copier, app) = (rig.copier(&["all"]), rig.image("team/app:1.0"));
    assert!(matches!(copier.verify(&app).await.unwrap(), Verdict::Missing { .. }));

    let progress = Counted::default();
    let copied = copier.copy(&app, &progress).await.unwrap();
    assert_eq!((&copied.digest, copied.bytes), (image.index().digest(), total(&image)));
    assert_eq!(progress.expected.load(Ordering::Relaxed), total(&image));
    assert_eq!(progress.advanced.load(Ordering::Relaxed), total(&image));
    assert_eq!(verify(&copier, &app).await.as_ref(), Ok(image.index().digest()));

    // What another client pulls is what the source has.
    let folder = tempfile::tempdir().unwrap();
    let from = format!("docker://{}/{}:1.0", rig.cache.host(), rig.at_cache("team/app").path());
    let to = format!("oci:{}:it", folder.path().display());
    skopeo(["copy", "--all", "--preserve-digests", "--src-tls-verify=false", from.as_str(), to.as_str()])
        .await
        .unwrap();
    for (digest, bytes) in image.blobs() {
        let pulled = std::fs::read(folder.path().join("blobs/sha256").join(digest.encoded())).unwrap();
        assert_eq!(pulled, *bytes, "{digest}");
    }

    // What is there is not read again, and what is in another repository is mounted.
    let blobs = rig.source.count(Target::Blob);
    assert_eq!(copier.copy(&app, &()).await.unwrap().bytes, 0);
    rig.source.add_image("team/other", "1.0", &image);
    copier.copy(&rig.image("team/other:1.0"), &()).await.unwrap();
    assert_eq!(rig.source.count(Target::Blob), blobs);
    assert_eq!(verify(&copier, &rig.image("team/other:1.0")).await.as_ref(), Ok(image.index().digest()));
}

#[tokio::test]
async fn images_with_the_same_layers_are_copied_at_once_and_each_layer_is_fetched_once() {
    let rig = Rig::start().await;
    let image = two_platforms(11);
    let names = ["one:1", "one:2", "one:3", "two:1", "two:2", "three:1"];
    for name in names {
        let (path, tag) = name.split_once(':').unwrap();
        rig.source.add_image(path, tag, &image);
    }
    let copier = rig.copier(&["all"]);
    let copies = names.map(|name| {
        let (copier, app) = (&copier, rig.image(name));
        async move { copier.copy(&app, &()).await.map(|copied| copied.bytes) }
    });
    let bytes: u64 = futures::future::try_join_all(copies).await.unwrap().into_iter().sum();
    assert_eq!(rig.source.count(Target::Blob), image.blobs().len());
    assert!(bytes >= total(&image), "{bytes}");
    for name in names {
        assert_eq!(verify(&copier, &rig.image(name)).await.as_ref(), Ok(image.index().digest()), "{name}");
    }
}

#[tokio::test]
async fn where_a_sparse_index_cannot_be_kept_the_image_is_pushed_whole() {
    let rig = Rig::start().await;
    let image = two_platforms(2);
    rig.source.add_image("app", "1", &image);
    let (copier, app) = (rig.copier(&["amd64"]), rig.image("app:1"));
    assert_eq!(&copier.copy(&app, &()).await.unwrap().digest, image.index().digest());
    assert_eq!(rig.digest("app", "1").await.as_ref(), Some(image.index().digest()));
    assert_eq!(verify(&rig.copier(&["all"]), &app).await.as_ref(), Ok(image.index().digest()));
}

#[tokio::test]
async fn no_platform_at_all_is_told_and_nothing_is_kept() {
    let rig = Rig::start().await;
    rig.source.add_image("app", "1", &two_platforms(3));
    let error = rig.copier(&["s390x"]).copy(&rig.image("app:1"), &()).await.unwrap_err();
    assert!(matches!(error, CopyError::NoPlatform(_)), "{error}");
    assert!(
        error.chain().contains("linux/s390x") && error.chain().contains("linux/amd64, linux/arm64"),
        "{error}"
    );
    assert_eq!(rig.digest("app", "1").await, None);
    assert_eq!(rig.source.count(Target::Blob), 0);
}

#[tokio::test]
async fn a_manifest_without_platform_is_no_reason_to_stumble() {
    let rig = Rig::start().await;
    let image = SampleImage::builder().seed(4).platform("linux", "amd64").layer(100).build();
    rig.source.add_image("app", "inside", &image);
    let bare = image.manifests()[0].descriptor();
    let index = serde_json::to_vec(&ImageIndex::new(vec![bare])).unwrap();
    let index = Manifest::new(Some(&MediaType::OCI_INDEX), index.into()).unwrap();
    rig.source.add_manifest("app", Some("bare"), &index);
    let copier = rig.copier(&["arm64"]);
    assert_eq!(&copier.copy(&rig.image("app:bare"), &()).await.unwrap().digest, index.digest());
    assert_eq!(verify(&copier, &rig.image("app:bare")).await.as_ref(), Ok(index.digest()));
}

#[tokio::test]
async fn what_the_cache_has_lost_is_noticed_and_put_back() {
    let rig = Rig::start().await;
    let image = two_platforms(5);
    rig.source.add_image("app", "1", &image);
    let (copier, app) = (rig.copier(&["all"]), rig.image("app:1"));
    copier.copy(&app, &()).await.unwrap();

    let lost = image.layers()[1].digest.clone();
    std::fs::remove_dir_all(rig.blob(&lost)).unwrap();
    assert_eq!(verify(&copier, &app).await, Err(format!("blob {lost}")));
    let copied = copier.copy(&app, &()).await.unwrap();
    assert_eq!(copied.bytes, image.blobs()[&lost].len() as u64, "only what is lost is brought");
    assert_eq!(verify(&copier, &app).await.as_ref(), Ok(image.index().digest()));

    let lost = image.manifests()[0].digest().clone();
    std::fs::remove_dir_all(rig.blob(&lost)).unwrap();
    assert!(verify(&copier, &app).await.unwrap_err().contains(lost.as_str()));
    copier.copy(&app, &()).await.unwrap();
    assert_eq!(verify(&copier, &app).await.as_ref(), Ok(image.index().digest()));

    wipe(rig.storage.path());
    assert!(verify(&copier, &app).await.is_err());
    copier.copy(&app, &()).await.unwrap();
    assert_eq!(verify(&copier, &app).await.as_ref(), Ok(image.index().digest()));
}

fn wipe(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
}

#[tokio::test]
async fn a_tag_goes_alone() {
    let rig = Rig::start().await;
    let image = two_platforms(6);
    rig.source.add_image("app", "1", &image);
    rig.source.add_image("app", "stable", &image);
    let by_digest = rig.image(&format!("app:1@{}", image.index().digest()));
    let copier = rig.copier(&["all"]);
    for app in [&rig.image("app:1"), &rig.image("app:stable"), &by_digest] {
        copier.copy(app, &()).await.unwrap();
    }

    copier.remove(&rig.image("app:1")).await.unwrap();
    assert_eq!(rig.digest("app", "1").await, None);
    assert_eq!(rig.digest("app", "stable").await.as_ref(), Some(image.index().digest()));
    assert_eq!(verify(&copier, &rig.image("app:stable")).await.as_ref(), Ok(image.index().digest()));
    assert_eq!(verify(&copier, &by_digest).await.as_ref(), Ok(image.index().digest()));
    // It is no error where there is none.
    copier.remove(&rig.image("app:1")).await.unwrap();
    copier.remove(&rig.image("never/seen:1")).await.unwrap();

    copier.remove(&rig.image("app:stable")).await.unwrap();
    let at = TagOrDigest::Digest(image.index().digest().clone());
    let kept = rig.client.manifest(&rig.at_cache("app"), &at, Freshness::Cached).await.unwrap();
    assert_eq!(kept.content.bytes(), image.index().bytes(), "the digest that is still wanted stays");
}

#[tokio::test]
async fn signatures_and_referrers_come_with_their_image() {
    let rig = Rig::start().await;
    let image = SampleImage::builder().seed(7).platform("linux", "amd64").layer(100).as_buildx().build();
    rig.source.add_image("app", "1", &image);
    let signature = artifact(&rig.source, "signed", None);
    let signed_as = format!("sha256-{}.sig", image.index().digest().encoded());
    rig.source.add_manifest("app", Some(&signed_as), &signature);
    let bill = artifact(&rig.source, "bill", Some(image.index().descriptor()));
    rig.source.set_referrers_api(true);
    rig.source.add_manifest("app", None, &bill);

    let copied = rig.copier(&["amd64"]).copy(&rig.image("app:1"), &()).await.unwrap();
    assert_eq!(copied.without, Vec::<String>::new());
    assert_eq!(rig.digest("app", &signed_as).await.as_ref(), Some(signature.digest()));
    // Docker's registry lists no referrers, so the list is there as a tag.
    let listed = rig.client.referrers(&rig.at_cache("app"), image.index().digest(), None).await.unwrap();
    assert!(String::from_utf8_lossy(&listed.index).contains(bill.digest().as_str()));
    let at = TagOrDigest::Digest(bill.digest().clone());
    assert!(rig.client.manifest(&rig.at_cache("app"), &at, Freshness::Cached).await.is_ok());
}

/// A manifest of one small layer, about `subject`.
fn artifact(source: &ScriptedRegistry, text: &str, subject: Option<Descriptor>) -> Manifest {
    let empty = Descriptor::new(MediaType::OCI_CONFIG, source.add_blob("app", Bytes::from_static(b"{}")), 2);
    let layer = source.add_blob("app", Bytes::from(text.to_owned()));
    let layer = Descriptor::new(MediaType::from("text/plain".to_owned()), layer, text.len() as u64);
    let manifest = ImageManifest { subject, ..ImageManifest::new(empty, vec![layer]) };
    Manifest::new(None, serde_json::to_vec(&manifest).unwrap().into()).unwrap()
}

#[tokio::test]
async fn a_source_that_sends_the_wrong_bytes_leaves_nothing_behind() {
    let image = two_platforms(8);
    for layer in &image.layers()[..2] {
        for behaviour in [Behaviour::WrongBytes, Behaviour::Truncate { after: 100 }] {
            let rig = Rig::start().await;
            rig.source.add_image("app", "1", &image);
            rig.source.script(Rule::on(Target::Blob).path(layer.digest.as_str()).does(behaviour.clone()));
            let (copier, app) = (rig.copier(&["all"]), rig.image("app:1"));
            let error = copier.copy(&app, &()).await.unwrap_err();
            assert!(matches!(error, CopyError::Source(_)), "{behaviour:?}: {}", error.chain());
            assert!(!rig.blob(&layer.digest).exists());
            assert_eq!(rig.digest("app", "1").await, None, "there is no tag without its blobs");

            rig.source.clear_script();
            copier.copy(&app, &()).await.unwrap();
            assert_eq!(verify(&copier, &app).await.as_ref(), Ok(image.index().digest()));
        }
    }
}

#[tokio::test]
async fn errors_say_whose_they_are() {
    let mut rig = Rig::start().await;
    rig.source.add_image("app", "1", &two_platforms(9));
    let (copier, app) = (rig.copier(&["all"]), rig.image("app:1"));
    assert!(copier.copy(&rig.image("app:none"), &()).await.unwrap_err().is_not_found());
    assert!(copier.ask_source(&rig.image("app:none")).await.unwrap_err().is_not_found());

    rig.cache.stop().await.unwrap();
    for error in [
        copier.copy(&app, &()).await.map(drop).unwrap_err(),
        copier.verify(&app).await.map(drop).unwrap_err(),
        copier.remove(&app).await.unwrap_err(),
    ] {
        assert!(error.is_of_registry() && error.is_of_cache(), "{}", error.chain());
    }
}

#[tokio::test]
async fn a_limit_of_the_source_is_told_with_its_time() {
    let rig = Rig::start().await;
    rig.source.add_image("app", "1", &two_platforms(9));
    let (copier, app) = (rig.copier(&["all"]), rig.image("app:1"));
    let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("77"))]);
    let limited = Behaviour::Answer { status: StatusCode::TOO_MANY_REQUESTS, headers, body: Bytes::new() };
    rig.source.script(Rule::on(Target::Manifest).method(Method::GET).does(limited));
    let error = copier.copy(&app, &()).await.unwrap_err();
    assert!(error.is_of_registry() && !error.is_of_cache(), "{}", error.chain());
    assert_eq!(error.content().unwrap().retry_after().unwrap().as_secs(), 77);
}

#[tokio::test]
async fn a_cache_opens_to_the_right_password_alone() {
    let basic = || Some(("kuik".to_owned(), "pa:ss".to_owned()));
    let rig = Rig::start_with(basic(), vec![Credential::basic("kuik", "pa:ss")]).await;
    let image = two_platforms(10);
    rig.source.add_image("app", "1", &image);
    let (copier, app) = (rig.copier(&["all"]), rig.image("app:1"));
    copier.copy(&app, &()).await.unwrap();
    assert_eq!(verify(&copier, &app).await.as_ref(), Ok(image.index().digest()));

    let rig = Rig::start_with(basic(), Anonymous).await;
    rig.source.add_image("app", "1", &image);
    let error = rig.copier(&["all"]).copy(&rig.image("app:1"), &()).await.unwrap_err();
    assert!(error.is_of_cache(), "{}", error.chain());
    assert_eq!(error.content().unwrap().kind(), SourceErrorKind::Unauthorized);
}
