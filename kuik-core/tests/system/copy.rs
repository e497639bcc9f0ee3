//! Push copier tests: from a scripted registry into Docker's registry 2.8, which supports neither sparse indexes nor
//! tag deletion. Digests never change.
#![cfg(feature = "client")]

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::support::{anonymous, tag};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header::RETRY_AFTER};
use kuik_core::{
    client::{
        HostLimits, HttpTransport, RegistryClient, Timeouts, TransportConfig, Upstream, UpstreamResolver as _,
    },
    content::{
        ContentSource, Descriptor, Digest, EncodedNames, Freshness, ImageIndex, ImageManifest, Manifest,
        MediaType, SourceErrorKind, TagOrDigest,
    },
    copy::{CopyError, ImageCopier, Platforms, Progress, PushCopier, SourceImage, Verdict},
    credentials::{Anonymous, Credential, CredentialProvider},
    reference::{ImageReference, RepositoryName},
};
use kuik_testkit::real::{DockerRegistry, RegistryOptions, skopeo};
use kuik_testkit::{Behavior, Rule, SampleImage, ScriptedRegistry, Target};

/// A source, a cache, and their clients.
struct Harness {
    source: ScriptedRegistry,
    cache: DockerRegistry,
    storage: tempfile::TempDir,
    client: RegistryClient,
}

impl Harness {
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
        limits.longest_pause = Duration::ZERO;
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
        EncodedNames::at_cache(&self.source.repository(path).unwrap()).unwrap()
    }

    /// Returns the digest of a tag of the cache.
    async fn digest(&self, path: &str, name: &str) -> Option<Digest> {
        let found = self.client.resolve(&self.at_cache(path), &tag(name), Freshness::Cached).await;
        match found {
            Ok(found) => Some(found.content.digest),
            Err(error) if error.is_not_found() => None,
            Err(error) => panic!("{}", error.chain()),
        }
    }

    /// Returns the path of a blob in the cache's storage.
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

/// Returns an image of two platforms, with a layer sent in one request and one that is streamed.
fn two_platforms(seed: u64) -> SampleImage {
    let builder = SampleImage::builder().seed(seed).platform("linux", "amd64").platform("linux", "arm64");
    builder.layer(10_000).layer(700_000).build()
}

async fn verify(copier: &PushCopier, image: &SourceImage) -> Result<Digest, String> {
    match copier.verify(image).await.unwrap() {
        Verdict::Complete { digest, .. } => Ok(digest),
        Verdict::Missing { what, .. } => Err(what),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn push_copies_byte_for_byte_and_only_once() {
    let harness = Harness::start().await;
    let image = two_platforms(1);
    harness.source.add_image("team/app", "1.0", &image);
    let (copier, app) = (harness.copier(&["all"]), harness.image("team/app:1.0"));
    assert!(matches!(copier.verify(&app).await.unwrap(), Verdict::Missing { .. }));

    let progress = Counted::default();
    let copied = copier.copy(&app, &progress).await.unwrap();
    assert_eq!((&copied.digest, copied.bytes), (image.index().digest(), total(&image)));
    assert_eq!(progress.expected.load(Ordering::Relaxed), total(&image));
    assert_eq!(progress.advanced.load(Ordering::Relaxed), total(&image));
    assert_eq!(verify(&copier, &app).await.as_ref(), Ok(image.index().digest()));

    // Another client pulls the same content from the cache.
    let folder = tempfile::tempdir().unwrap();
    let from = format!("docker://{}/{}:1.0", harness.cache.host(), harness.at_cache("team/app").path());
    let to = format!("oci:{}:it", folder.path().display());
    skopeo(["copy", "--all", "--preserve-digests", "--src-tls-verify=false", from.as_str(), to.as_str()])
        .await
        .unwrap();
    for (digest, bytes) in image.blobs() {
        let pulled = std::fs::read(folder.path().join("blobs/sha256").join(digest.encoded())).unwrap();
        assert_eq!(pulled, *bytes, "{digest}");
    }

    // Existing content is not read again, and blobs of another repository are mounted.
    let blobs = harness.source.count(Target::Blob);
    assert_eq!(copier.copy(&app, &()).await.unwrap().bytes, 0);
    harness.source.add_image("team/other", "1.0", &image);
    copier.copy(&harness.image("team/other:1.0"), &()).await.unwrap();
    assert_eq!(harness.source.count(Target::Blob), blobs);
    assert_eq!(verify(&copier, &harness.image("team/other:1.0")).await.as_ref(), Ok(image.index().digest()));
}

#[tokio::test]
async fn concurrent_copies_fetch_shared_layers_once() {
    let harness = Harness::start().await;
    let image = two_platforms(11);
    let names = ["one:1", "one:2", "one:3", "two:1", "two:2", "three:1"];
    for name in names {
        let (path, tag) = name.split_once(':').unwrap();
        harness.source.add_image(path, tag, &image);
    }
    let copier = harness.copier(&["all"]);
    let copies = names.map(|name| {
        let (copier, app) = (&copier, harness.image(name));
        async move { copier.copy(&app, &()).await.map(|copied| copied.bytes) }
    });
    let bytes: u64 = futures::future::try_join_all(copies).await.unwrap().into_iter().sum();
    assert_eq!(harness.source.count(Target::Blob), image.blobs().len());
    assert!(bytes >= total(&image), "{bytes}");
    for name in names {
        assert_eq!(
            verify(&copier, &harness.image(name)).await.as_ref(),
            Ok(image.index().digest()),
            "{name}"
        );
    }
}

#[tokio::test]
async fn all_platforms_are_pushed_if_the_cache_rejects_sparse_indexes() {
    let harness = Harness::start().await;
    let image = two_platforms(2);
    harness.source.add_image("app", "1", &image);
    let (copier, app) = (harness.copier(&["amd64"]), harness.image("app:1"));
    assert_eq!(&copier.copy(&app, &()).await.unwrap().digest, image.index().digest());
    assert_eq!(harness.digest("app", "1").await.as_ref(), Some(image.index().digest()));
    assert_eq!(verify(&harness.copier(&["all"]), &app).await.as_ref(), Ok(image.index().digest()));
}

#[tokio::test]
async fn no_matching_platform_is_an_error_and_copies_nothing() {
    let harness = Harness::start().await;
    harness.source.add_image("app", "1", &two_platforms(3));
    let error = harness.copier(&["s390x"]).copy(&harness.image("app:1"), &()).await.unwrap_err();
    assert!(matches!(error, CopyError::NoPlatform(_)), "{error}");
    assert!(
        error.chain().contains("linux/s390x") && error.chain().contains("linux/amd64, linux/arm64"),
        "{error}"
    );
    assert_eq!(harness.digest("app", "1").await, None);
    assert_eq!(harness.source.count(Target::Blob), 0);
}

#[tokio::test]
async fn index_entry_without_platform_is_copied() {
    let harness = Harness::start().await;
    let image = SampleImage::builder().seed(4).platform("linux", "amd64").layer(100).build();
    harness.source.add_image("app", "inside", &image);
    let bare = image.manifests()[0].descriptor();
    let index = serde_json::to_vec(&ImageIndex::new(vec![bare])).unwrap();
    let index = Manifest::new(Some(&MediaType::OCI_INDEX), index.into()).unwrap();
    harness.source.add_manifest("app", Some("bare"), &index);
    let copier = harness.copier(&["arm64"]);
    assert_eq!(&copier.copy(&harness.image("app:bare"), &()).await.unwrap().digest, index.digest());
    assert_eq!(verify(&copier, &harness.image("app:bare")).await.as_ref(), Ok(index.digest()));
}

#[tokio::test]
async fn lost_content_is_detected_and_copied_again() {
    let harness = Harness::start().await;
    let image = two_platforms(5);
    harness.source.add_image("app", "1", &image);
    let (copier, app) = (harness.copier(&["all"]), harness.image("app:1"));
    copier.copy(&app, &()).await.unwrap();

    let lost = image.layers()[1].digest.clone();
    std::fs::remove_dir_all(harness.blob(&lost)).unwrap();
    assert_eq!(verify(&copier, &app).await, Err(format!("blob {lost}")));
    let copied = copier.copy(&app, &()).await.unwrap();
    assert_eq!(copied.bytes, image.blobs()[&lost].len() as u64, "only lost content is transferred");
    assert_eq!(verify(&copier, &app).await.as_ref(), Ok(image.index().digest()));

    let lost = image.manifests()[0].digest().clone();
    std::fs::remove_dir_all(harness.blob(&lost)).unwrap();
    assert!(verify(&copier, &app).await.unwrap_err().contains(lost.as_str()));
    copier.copy(&app, &()).await.unwrap();
    assert_eq!(verify(&copier, &app).await.as_ref(), Ok(image.index().digest()));

    wipe(harness.storage.path());
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
async fn remove_deletes_only_its_tag() {
    let harness = Harness::start().await;
    let image = two_platforms(6);
    harness.source.add_image("app", "1", &image);
    harness.source.add_image("app", "stable", &image);
    let by_digest = harness.image(&format!("app:1@{}", image.index().digest()));
    let copier = harness.copier(&["all"]);
    for app in [&harness.image("app:1"), &harness.image("app:stable"), &by_digest] {
        copier.copy(app, &()).await.unwrap();
    }

    copier.remove(&harness.image("app:1")).await.unwrap();
    assert_eq!(harness.digest("app", "1").await, None);
    assert_eq!(harness.digest("app", "stable").await.as_ref(), Some(image.index().digest()));
    assert_eq!(verify(&copier, &harness.image("app:stable")).await.as_ref(), Ok(image.index().digest()));
    assert_eq!(verify(&copier, &by_digest).await.as_ref(), Ok(image.index().digest()));
    // Removing a missing tag succeeds.
    copier.remove(&harness.image("app:1")).await.unwrap();
    copier.remove(&harness.image("never/seen:1")).await.unwrap();

    copier.remove(&harness.image("app:stable")).await.unwrap();
    let at = TagOrDigest::Digest(image.index().digest().clone());
    let kept = harness.client.manifest(&harness.at_cache("app"), &at, Freshness::Cached).await.unwrap();
    assert_eq!(kept.content.bytes(), image.index().bytes(), "content with another tag stays");
}

#[tokio::test]
async fn signatures_and_referrers_are_copied_with_the_image() {
    let harness = Harness::start().await;
    let image = SampleImage::builder().seed(7).platform("linux", "amd64").layer(100).as_buildx().build();
    harness.source.add_image("app", "1", &image);
    let signature = artifact(&harness.source, "signed", None);
    let signed_as = format!("sha256-{}.sig", image.index().digest().encoded());
    harness.source.add_manifest("app", Some(&signed_as), &signature);
    let bill = artifact(&harness.source, "bill", Some(image.index().descriptor()));
    harness.source.set_referrers_api(true);
    harness.source.add_manifest("app", None, &bill);

    let copied = harness.copier(&["amd64"]).copy(&harness.image("app:1"), &()).await.unwrap();
    assert_eq!(copied.skipped, Vec::<String>::new());
    assert_eq!(harness.digest("app", &signed_as).await.as_ref(), Some(signature.digest()));
    // Docker's registry has no referrers API, so the list is stored under a tag.
    let listed =
        harness.client.referrers(&harness.at_cache("app"), image.index().digest(), None).await.unwrap();
    assert!(String::from_utf8_lossy(&listed.index).contains(bill.digest().as_str()));
    let at = TagOrDigest::Digest(bill.digest().clone());
    assert!(harness.client.manifest(&harness.at_cache("app"), &at, Freshness::Cached).await.is_ok());
}

/// Returns a manifest with one small layer and `subject`.
fn artifact(source: &ScriptedRegistry, text: &str, subject: Option<Descriptor>) -> Manifest {
    let empty = Descriptor::new(MediaType::OCI_CONFIG, source.add_blob("app", Bytes::from_static(b"{}")), 2);
    let layer = source.add_blob("app", Bytes::from(text.to_owned()));
    let layer = Descriptor::new(MediaType::from("text/plain".to_owned()), layer, text.len() as u64);
    let manifest = ImageManifest { subject, ..ImageManifest::new(empty, vec![layer]) };
    Manifest::new(None, serde_json::to_vec(&manifest).unwrap().into()).unwrap()
}

#[tokio::test]
async fn corrupt_source_leaves_nothing_in_the_cache() {
    let image = two_platforms(8);
    for layer in &image.layers()[..2] {
        for behavior in [Behavior::WrongBytes, Behavior::Truncate { after: 100 }] {
            let harness = Harness::start().await;
            harness.source.add_image("app", "1", &image);
            harness.source.script(Rule::on(Target::Blob).path(layer.digest.as_str()).does(behavior.clone()));
            let (copier, app) = (harness.copier(&["all"]), harness.image("app:1"));
            let error = copier.copy(&app, &()).await.unwrap_err();
            assert!(matches!(error, CopyError::Source(_)), "{behavior:?}: {}", error.chain());
            assert!(!harness.blob(&layer.digest).exists());
            assert_eq!(harness.digest("app", "1").await, None, "no tag without its blobs");

            harness.source.clear_script();
            copier.copy(&app, &()).await.unwrap();
            assert_eq!(verify(&copier, &app).await.as_ref(), Ok(image.index().digest()));
        }
    }
}

#[tokio::test]
async fn errors_are_attributed_to_source_or_cache() {
    let mut harness = Harness::start().await;
    harness.source.add_image("app", "1", &two_platforms(9));
    let (copier, app) = (harness.copier(&["all"]), harness.image("app:1"));
    assert!(copier.copy(&harness.image("app:none"), &()).await.unwrap_err().is_not_found());
    assert!(copier.resolve_upstream(&harness.image("app:none")).await.unwrap_err().is_not_found());

    harness.cache.stop().await.unwrap();
    for error in [
        copier.copy(&app, &()).await.map(drop).unwrap_err(),
        copier.verify(&app).await.map(drop).unwrap_err(),
        copier.remove(&app).await.unwrap_err(),
    ] {
        assert!(error.is_of_registry() && error.is_of_cache(), "{}", error.chain());
    }
}

#[tokio::test]
async fn rate_limit_error_carries_retry_after() {
    let harness = Harness::start().await;
    harness.source.add_image("app", "1", &two_platforms(9));
    let (copier, app) = (harness.copier(&["all"]), harness.image("app:1"));
    let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("77"))]);
    let limited = Behavior::Answer { status: StatusCode::TOO_MANY_REQUESTS, headers, body: Bytes::new() };
    harness.source.script(Rule::on(Target::Manifest).method(Method::GET).does(limited));
    let error = copier.copy(&app, &()).await.unwrap_err();
    assert!(error.is_of_registry() && !error.is_of_cache(), "{}", error.chain());
    assert_eq!(error.content().unwrap().retry_after().unwrap().as_secs(), 77);
}

#[tokio::test]
async fn cache_requires_valid_credentials() {
    let basic = || Some(("kuik".to_owned(), "pa:ss".to_owned()));
    let harness = Harness::start_with(basic(), vec![Credential::basic("kuik", "pa:ss")]).await;
    let image = two_platforms(10);
    harness.source.add_image("app", "1", &image);
    let (copier, app) = (harness.copier(&["all"]), harness.image("app:1"));
    copier.copy(&app, &()).await.unwrap();
    assert_eq!(verify(&copier, &app).await.as_ref(), Ok(image.index().digest()));

    let harness = Harness::start_with(basic(), Anonymous).await;
    harness.source.add_image("app", "1", &image);
    let error = harness.copier(&["all"]).copy(&harness.image("app:1"), &()).await.unwrap_err();
    assert!(error.is_of_cache(), "{}", error.chain());
    assert_eq!(error.content().unwrap().kind(), SourceErrorKind::Unauthorized);
}
