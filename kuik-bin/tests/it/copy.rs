//! Images are brought into `kuik-registry`: warmed through one that fills itself, and pushed into one that does not.

use std::sync::Arc;

use crate::support::{Kuik, Remote, blob_data, proxied};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER};
use kuik_core::{
    client::{
        HostLimits, HttpTransport, RegistryClient, Timeouts, TransportConfig, Upstream, UpstreamResolver,
        Upstreams,
    },
    content::{ContentSource as _, Digest, EncodedNames, Freshness, TagOrDigest},
    copy::{CopyError, ImageCopier, Platforms, PrefetchCopier, PushCopier, SourceImage, Verdict},
    credentials::Credential,
    reference::{ImageReference, RepositoryName},
};
use kuik_testkit::{Behavior, Rule, SampleImage, ScriptedRegistry, Target};

const TOKEN: &str = "let-me-in-and-more";

/// A source, and a `kuik-registry` that accepts pushes with the token.
struct Harness {
    source: ScriptedRegistry,
    cache: Kuik,
    data: tempfile::TempDir,
}

impl Harness {
    async fn start(arguments: &[&str]) -> Self {
        let source = ScriptedRegistry::start().await.unwrap();
        let data = tempfile::tempdir().unwrap();
        let token = data.path().join("token");
        std::fs::write(&token, TOKEN).unwrap();
        let host = source.host();
        let token = token.to_str().unwrap().to_owned();
        let mut all = vec!["--token-file", token.as_str()];
        all.extend(arguments);
        if arguments.contains(&"--pull-through") {
            all.extend(["--insecure-registries", host.as_str()]);
        }
        let storage = data.path().join("content");
        std::fs::create_dir(&storage).unwrap();
        let cache = Kuik::registry(&storage, &all).await;
        Self { source, cache, data }
    }

    fn client(&self, upstream: impl UpstreamResolver, credentials: Vec<Credential>) -> RegistryClient {
        let mut config = TransportConfig::default();
        config.guard = upstream.guard();
        config.system_roots = false;
        RegistryClient::limited(
            HttpTransport::new(config).unwrap(),
            upstream,
            credentials,
            Timeouts::default(),
            HostLimits::none(),
        )
    }

    fn at_cache(&self) -> RegistryClient {
        let name = RepositoryName::new(&self.cache.host(), "cache").unwrap();
        let upstream = Upstream::new(&format!("http://{}", self.cache.host()), name).unwrap();
        self.client(upstream, vec![Credential::basic("kuik", TOKEN)])
    }

    fn warm(&self, platforms: &[&str]) -> PrefetchCopier {
        PrefetchCopier::new(
            self.at_cache(),
            Arc::new(Arc::new(Platforms::parse(platforms.iter().copied()).unwrap())),
        )
    }

    fn push(&self, platforms: &[&str]) -> PushCopier {
        let upstreams = Upstreams::default().insecure(&self.source.host()).unwrap();
        let source = Arc::new(self.client(upstreams, Vec::new()));
        let platforms = Arc::new(Arc::new(Platforms::parse(platforms.iter().copied()).unwrap()));
        PushCopier::new(source, self.at_cache(), platforms)
    }

    fn image(&self, name: &str) -> SourceImage {
        let text = format!("{}/{name}", self.source.host());
        SourceImage::new(&ImageReference::parse(&text).unwrap()).unwrap()
    }

    /// Whether the cache itself has a tag: one that fills itself would ask its source.
    fn has_tag(&self, path: &str, tag: &str) -> bool {
        let repository = proxied(&self.source.host(), path);
        let repositories = self.data.path().join("content/docker/registry/v2/repositories");
        repositories.join(repository).join("_manifests/tags").join(tag).exists()
    }

    fn blob(&self, digest: &Digest) -> std::path::PathBuf {
        blob_data(&self.data.path().join("content"), digest)
    }
}

fn image(seed: u64) -> SampleImage {
    let builder = SampleImage::builder().seed(seed).platform("linux", "amd64").platform("linux", "arm64");
    builder.layer(10_000).layer(700_000).build()
}

fn complete(verdict: Result<Verdict, CopyError>) -> Result<Digest, String> {
    match verdict.unwrap() {
        Verdict::Complete { digest, .. } => Ok(digest),
        Verdict::Missing { what, .. } => Err(what),
        other => panic!("{other:?}"),
    }
}

/// How many blobs of an image the cache has.
fn kept(rig: &Harness, image: &SampleImage) -> usize {
    image.blobs().keys().filter(|digest| rig.blob(digest).exists()).count()
}

#[tokio::test]
async fn an_image_is_warmed_by_platform_and_crosses_the_internet_once() {
    let rig = Harness::start(&["--pull-through"]).await;
    let (image, copier) = (image(31), rig.warm(&["amd64"]));
    rig.source.add_image("app", "1", &image);
    let app = rig.image("app:1");
    let copied = copier.copy(&app, &()).await.unwrap();
    assert_eq!(&copied.digest, image.index().digest());
    assert_eq!(copied.skipped, Vec::<String>::new());
    assert_eq!(kept(&rig, &image), 3, "the platform's blobs are stored when the copy has ended");
    assert_eq!(rig.source.count(Target::Blob), 3, "one request for each blob");
    assert_eq!(complete(copier.verify(&app).await).as_ref(), Ok(image.index().digest()));

    // Nothing is fetched twice, and the content of another platform is fetched on request.
    assert_eq!(copier.copy(&app, &()).await.unwrap().bytes, 0);
    assert_eq!(rig.source.count(Target::Blob), 3);
    Remote::new(rig.cache.address(), &proxied(&rig.source.host(), "app")).pull(&image).await.unwrap();
}

#[tokio::test]
async fn a_refresh_reaches_the_source_through_the_cache() {
    let rig = Harness::start(&["--pull-through"]).await;
    let (old, new, copier) = (image(32), image(33), rig.warm(&["amd64"]));
    rig.source.add_image("app", "1", &old);
    let app = rig.image("app:1");
    copier.copy(&app, &()).await.unwrap();
    rig.source.add_image("app", "1", &new);
    assert_eq!(&copier.resolve_upstream(&app).await.unwrap(), new.index().digest());
    assert_eq!(&copier.copy(&app, &()).await.unwrap().digest, new.index().digest());

    let is_there = async || matches!(copier.verify(&app).await, Ok(Verdict::Complete { .. }));
    assert!(is_there().await, "when the copy has ended");

    // If the source no longer has it, or limits requests, the cache reports this and its own digest.
    for (status, words) in [(StatusCode::NOT_FOUND, "404"), (StatusCode::TOO_MANY_REQUESTS, "429")] {
        rig.source.script(Rule::on(Target::Manifest).times(1).does(Behavior::status(status)));
        let error = copier.resolve_upstream(&app).await.unwrap_err();
        assert!(error.chain().contains(words) && error.is_of_registry() != error.is_not_found(), "{error:?}");
        assert_eq!(error.is_not_found(), status == StatusCode::NOT_FOUND);
        assert!(is_there().await);
    }

    // If the source is down, the cache reports its digest, but not as current.
    rig.source.stop().await;
    let error = copier.resolve_upstream(&app).await.unwrap_err();
    assert!(error.is_of_registry() && !error.is_of_cache(), "{}", error.chain());
}

/// The cache forwards `Retry-After` of a registry. This must not pause requests to the cache for other images.
#[tokio::test]
async fn rate_limited_registry_does_not_delay_others() {
    let tired = ScriptedRegistry::start().await.unwrap();
    let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("30"))]);
    let status = StatusCode::SERVICE_UNAVAILABLE;
    tired.script(Rule::on_all().does(Behavior::Answer { status, headers, body: Bytes::new() }));
    let rig = Harness::start(&["--pull-through", "--insecure-registries", &tired.host()]).await;
    let image = image(37);
    rig.source.add_image("app", "1", &image);
    let source = Arc::new(rig.at_cache());
    let platforms = Arc::new(Arc::new(Platforms::parse(["amd64"]).unwrap()));
    let endpoint = rig.cache.host().parse().unwrap();
    let token = vec![Credential::basic("kuik", TOKEN)];
    let (client, _) = kuik_bin::copier::cache_client(&endpoint, Vec::new(), token).unwrap();
    let copier = kuik_bin::copier::copier(client, true, source, platforms);

    let away = format!("{}/app:1", tired.host());
    let away = SourceImage::new(&ImageReference::parse(&away).unwrap()).unwrap();
    let error = copier.copy(&away, &()).await.unwrap_err();
    assert!(error.is_of_registry(), "{}", error.chain());
    let copied =
        copier.copy(&rig.image("app:1"), &()).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(&copied.digest, image.index().digest());
}

#[tokio::test]
async fn verify_distinguishes_a_wiped_pull_through_cache_from_its_source() {
    let rig = Harness::start(&["--pull-through"]).await;
    let (image, copier) = (image(34), rig.warm(&["amd64"]));
    rig.source.add_image("app", "1", &image);
    let app = rig.image("app:1");
    copier.copy(&app, &()).await.unwrap();
    assert_eq!(complete(copier.verify(&app).await).as_ref(), Ok(image.index().digest()));
    let lost = image.layers()[1].digest.clone();
    std::fs::remove_file(rig.blob(&lost)).unwrap();
    assert_eq!(
        complete(copier.verify(&app).await),
        Err(format!("blob {lost}")),
        "the source has it, not the cache"
    );
    rig.source.script(Rule::on_all().does(Behavior::Refuse));
    assert_eq!(
        complete(copier.verify(&app).await),
        Err(format!("blob {lost}")),
        "even if the source is down"
    );
    rig.source.clear_script();
    copier.copy(&app, &()).await.unwrap();
    assert_eq!(complete(copier.verify(&app).await).as_ref(), Ok(image.index().digest()), "it is put back");
}

#[tokio::test]
async fn a_digest_gets_a_tag_and_a_tag_goes_alone() {
    let rig = Harness::start(&["--pull-through"]).await;
    let (image, copier) = (image(35), rig.warm(&["amd64"]));
    rig.source.add_image("app", "1", &image);
    let by_digest = rig.image(&format!("app@{}", image.index().digest()));
    let copied = copier.copy(&by_digest, &()).await.unwrap();
    assert_eq!(copied.skipped, Vec::<String>::new());
    copier.copy(&rig.image("app:1"), &()).await.unwrap();
    assert!(rig.has_tag("app", by_digest.cache_tag().as_str()));

    copier.remove(&rig.image("app:1")).await.unwrap();
    assert!(!rig.has_tag("app", "1"));
    assert!(rig.has_tag("app", by_digest.cache_tag().as_str()));
    assert_eq!(complete(copier.verify(&by_digest).await).as_ref(), Ok(image.index().digest()));
    copier.remove(&by_digest).await.unwrap();
    assert!(!rig.has_tag("app", by_digest.cache_tag().as_str()));
}

/// zot, Harbor and Docker's registry 2.8 refuse an index if a manifest that it lists is missing.
#[tokio::test]
async fn all_platforms_are_pushed_into_a_registry_that_refuses_sparse_indexes() {
    let rig = Harness::start(&["--sparse", "nothing"]).await;
    let (image, copier) = (image(38), rig.push(&["arm64"]));
    rig.source.add_image("app", "1", &image);
    let app = rig.image("app:1");
    let copied = copier.copy(&app, &()).await.unwrap();
    assert_eq!(&copied.digest, image.index().digest());
    assert_eq!(kept(&rig, &image), image.blobs().len(), "all platforms");
    assert_eq!(complete(copier.verify(&app).await).as_ref(), Ok(image.index().digest()));
}

#[tokio::test]
async fn a_sparse_index_is_pushed_as_it_is() {
    let rig = Harness::start(&[]).await;
    let (image, copier) = (image(36), rig.push(&["arm64"]));
    rig.source.add_image("app", "1", &image);
    let app = rig.image("app:1");
    copier.copy(&app, &()).await.unwrap();
    assert_eq!(kept(&rig, &image), 3, "one platform's");
    assert_eq!(complete(copier.verify(&app).await).as_ref(), Ok(image.index().digest()));
    let repository = EncodedNames::at_cache(&rig.source.repository("app").unwrap()).unwrap();
    let tag = TagOrDigest::Tag("1".parse().unwrap());
    let index = rig.at_cache().manifest(&repository, &tag, Freshness::Cached).await.unwrap().content;
    assert_eq!(index.bytes(), image.index().bytes());
    assert!(complete(rig.push(&["amd64"]).verify(&app).await).is_err(), "the other platform must be missing");
    copier.remove(&app).await.unwrap();
    assert!(!rig.has_tag("app", "1"));
}
