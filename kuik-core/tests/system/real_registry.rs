//! The registry client against real programs: Docker's registry (open, with Basic authentication, with TLS under a
//! private CA), content pushed by skopeo, and a forward proxy.
#![cfg(feature = "client")]

use crate::support::{client, read, tag};
use kuik_core::{
    client::{
        CertificateAuthorities, HostLimits, HttpTransport, ProxyConfig, RegistryClient, Timeouts,
        TransportConfig, UpstreamResolver as _, Upstreams,
    },
    content::{ByteRange, ContentSource, Digest, Freshness, SourceErrorKind, TagOrDigest, TagPage},
    credentials::{Anonymous, Credential, CredentialProvider},
    reference::RepositoryName,
};
use kuik_testkit::SampleImage;
use kuik_testkit::real::{DockerRegistry, ForwardProxy, RegistryOptions, skopeo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// Pushes a sample image as `app:latest` with skopeo.
async fn push(registry: &DockerRegistry, more: &[&str]) -> SampleImage {
    let image = SampleImage::small(11);
    let layout = tempfile::tempdir().unwrap();
    image.write_layout(layout.path(), "latest").unwrap();
    let source = format!("oci:{}:latest", layout.path().display());
    let target = format!("docker://{}/team/app:latest", registry.host());
    let mut arguments = vec!["copy", "--all", "--preserve-digests", "--dest-tls-verify=false"];
    arguments.extend(more);
    arguments.extend([source.as_str(), target.as_str()]);
    skopeo(arguments).await.unwrap();
    image
}

/// Reads everything of the image through the client, and compares it.
async fn check(client: &RegistryClient, registry: &DockerRegistry, image: &SampleImage) {
    let app = RepositoryName::new(&registry.host(), "team/app").unwrap();
    let resolved = client.resolve(&app, &tag("latest"), Freshness::Cached).await.unwrap().content;
    assert_eq!(resolved, image.index().descriptor());
    let index = client.manifest(&app, &tag("latest"), Freshness::Revalidate).await.unwrap().content;
    assert_eq!(&index, image.index());
    for manifest in image.manifests() {
        let at = TagOrDigest::Digest(manifest.digest().clone());
        assert_eq!(&client.manifest(&app, &at, Freshness::Cached).await.unwrap().content, manifest);
    }
    for (digest, bytes) in image.blobs() {
        let blob = client.blob(&app, digest, ByteRange::Full).await.unwrap().content;
        assert_eq!(blob.size, Some(bytes.len() as u64));
        assert_eq!(read(blob).await.unwrap(), *bytes);
        let part = ByteRange::From { first: 3, last: Some(9) };
        let blob = client.blob(&app, digest, part).await.unwrap().content;
        assert_eq!(blob.range, Some(3..10));
        assert_eq!(read(blob).await.unwrap(), bytes[3..10]);
        assert_eq!(client.blob_size(&app, digest).await.unwrap().content, bytes.len() as u64);
    }
    let tags = client.tags(&app, &TagPage::default()).await.unwrap();
    assert_eq!(tags.tags, ["latest"]);
    let referrers = client.referrers(&app, index.digest(), None).await.unwrap();
    assert!(!referrers.filtered);
    let missing = client.blob_size(&app, &Digest::sha256(b"missing")).await.unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
}

fn insecure(registry: &DockerRegistry) -> Upstreams {
    Upstreams::default().insecure(&registry.host()).unwrap()
}

fn through(
    proxy: ProxyConfig,
    extra_roots: Vec<CertificateAuthorities>,
    upstreams: Upstreams,
    credentials: impl CredentialProvider,
) -> RegistryClient {
    let mut config = TransportConfig::default();
    config.guard = upstreams.guard();
    config.proxy = proxy;
    config.extra_roots = extra_roots;
    let transport = HttpTransport::new(config).unwrap();
    RegistryClient::new(transport, upstreams, credentials, Timeouts::default())
}

#[tokio::test]
async fn open_registry_is_read_and_unavailable_when_stopped() {
    let mut registry = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let image = push(&registry, &[]).await;
    let client = client(insecure(&registry), Anonymous, Timeouts::default());
    check(&client, &registry, &image).await;

    registry.stop().await.unwrap();
    let app = RepositoryName::new(&registry.host(), "team/app").unwrap();
    let error = client.resolve(&app, &tag("latest"), Freshness::Cached).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Unavailable);
    registry.resume().await.unwrap();
    check(&client, &registry, &image).await;
}

#[tokio::test]
async fn basic_authentication_accepts_only_the_right_password() {
    let basic = Some(("user".to_owned(), "pa:ss wörd".to_owned()));
    let registry = DockerRegistry::start(&RegistryOptions { basic, ..Default::default() }).await.unwrap();
    let image = push(&registry, &["--dest-creds", "user:pa:ss wörd"]).await;
    let right = vec![Credential::basic("user", "wrong"), Credential::basic("user", "pa:ss wörd")];
    check(&client(insecure(&registry), right, Timeouts::default()), &registry, &image).await;

    let wrong = client(insecure(&registry), vec![Credential::basic("user", "wrong")], Timeouts::default());
    let app = RepositoryName::new(&registry.host(), "team/app").unwrap();
    let error = wrong.manifest(&app, &tag("latest"), Freshness::Cached).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Unauthorized);
}

struct PrivateCa {
    options: RegistryOptions,
    roots: Vec<CertificateAuthorities>,
}

/// A registry's certificate for 127.0.0.1 under a CA of our own.
fn private_ca() -> PrivateCa {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let options =
        RegistryOptions { tls: Some((certificate.pem(), key.serialize_pem())), ..Default::default() };
    let roots = vec![CertificateAuthorities::from_pem("ca.pem", authority.pem().as_bytes()).unwrap()];
    PrivateCa { options, roots }
}

#[tokio::test]
async fn private_ca_is_trusted_only_if_configured() {
    let PrivateCa { options, roots } = private_ca();
    let registry = DockerRegistry::start(&options).await.unwrap();
    let image = push(&registry, &[]).await;
    let overriding = format!("{}={}", registry.host(), registry.url());
    let upstreams = Upstreams::default().overriding(&overriding).unwrap();
    let trusting = through(ProxyConfig::default(), roots, upstreams.clone(), Anonymous);
    check(&trusting, &registry, &image).await;

    let doubting = through(ProxyConfig::default(), Vec::new(), upstreams, Anonymous);
    let app = RepositoryName::new(&registry.host(), "team/app").unwrap();
    let error = doubting.manifest(&app, &tag("latest"), Freshness::Cached).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Unavailable);
    assert!(error.chain().to_lowercase().contains("certificate"), "{}", error.chain());
}

#[tokio::test]
async fn trusted_ca_is_replaced_at_runtime() {
    let PrivateCa { options, roots } = private_ca();
    let registry = DockerRegistry::start(&options).await.unwrap();
    let image = push(&registry, &[]).await;
    let overriding = format!("{}={}", registry.host(), registry.url());
    let upstreams = Upstreams::default().overriding(&overriding).unwrap();
    let mut config = TransportConfig::default();
    config.guard = upstreams.guard();
    let transport = HttpTransport::new(config).unwrap();
    let mut limits = HostLimits::default();
    limits.retries.attempts = 0;
    let client =
        RegistryClient::limited(transport.clone(), upstreams, Anonymous, Timeouts::default(), limits);
    let app = RepositoryName::new(&registry.host(), "team/app").unwrap();
    let trusted = async || client.manifest(&app, &tag("latest"), Freshness::Cached).await.is_ok();
    assert!(!trusted().await);
    transport.trust(&roots).unwrap();
    check(&client, &registry, &image).await;
    transport.trust(&[]).unwrap();
    assert!(!trusted().await, "neither a connection nor a session is left");
}

#[tokio::test]
async fn forward_proxy_forwards_http_and_tunnels_https() {
    let PrivateCa { options, roots } = private_ca();
    let plain = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let secure = DockerRegistry::start(&options).await.unwrap();
    let (plain_image, secure_image) = (push(&plain, &[]).await, push(&secure, &[]).await);
    let proxy = ForwardProxy::start(Some(("corp", "secret"))).await.unwrap();
    let upstreams = insecure(&plain).overriding(&format!("{}={}", secure.host(), secure.url())).unwrap();
    let url = format!("http://corp:secret@{}", proxy.host());
    let config =
        ProxyConfig { http: Some(url.clone()), https: Some(url), loopback: true, ..Default::default() };

    let client = through(config.clone(), roots.clone(), upstreams.clone(), Anonymous);
    check(&client, &plain, &plain_image).await;
    check(&client, &secure, &secure_image).await;
    let log = proxy.log().unwrap();
    assert!(log.contains(&format!("CONNECT {}", secure.host())), "{log}");
    assert!(log.contains(&format!("http://{}/v2/team/app/manifests/latest", plain.host())), "{log}");

    // Hosts in NO_PROXY, and loopback by default, are contacted directly.
    for direct in [
        ProxyConfig { no: "127.0.0.0/8".to_owned(), ..config.clone() },
        ProxyConfig { loopback: false, ..config.clone() },
    ] {
        let before = proxy.log().unwrap().len();
        let client = through(direct, roots.clone(), upstreams.clone(), Anonymous);
        check(&client, &plain, &plain_image).await;
        assert_eq!(proxy.log().unwrap().len(), before);
    }

    // A proxy that refuses makes the upstream unreachable.
    let url = format!("http://corp:wrong@{}", proxy.host());
    let refused = ProxyConfig { https: Some(url), ..config };
    let client = through(refused, roots, upstreams, Anonymous);
    let app = RepositoryName::new(&secure.host(), "team/app").unwrap();
    let error = client.manifest(&app, &tag("latest"), Freshness::Cached).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Unavailable, "{}", error.chain());
    assert!(!error.chain().contains("wrong"), "{}", error.chain());
}
