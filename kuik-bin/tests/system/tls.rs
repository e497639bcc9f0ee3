//! TLS as a cluster uses it: real clients that trust a private authority, and a Secret that changes under a running
//! registry.

use std::{net::IpAddr, os::unix::fs::symlink, path::Path, sync::Arc};

use crate::support::{Kuik, Transfer, eventually};
use kuik_testkit::SampleImage;
use kuik_testkit::real::skopeo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// An authority, and a Secret mounted as Kubernetes does it: files that are links through a link to a folder.
struct Secret {
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Secret {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), folder.path().join(name)).unwrap();
        }
        std::fs::create_dir(folder.path().join("trusted")).unwrap();
        std::fs::write(folder.path().join("trusted/ca.crt"), authority.pem()).unwrap();
        Self { authority, folder }
    }

    /// A new certificate with its key, or with one that is not its own; returns it as DER.
    fn issue(&self, version: &str, matching: bool) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let written = if matching { key } else { KeyPair::generate().unwrap() };
        let at = |name: &str| self.folder.path().join(name);
        std::fs::create_dir(at(version)).unwrap();
        std::fs::write(at(version).join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(at(version).join("tls.key"), written.serialize_pem()).unwrap();
        symlink(version, at("..data_tmp")).unwrap();
        std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
        certificate.der().to_vec()
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn registry(&self, data: &Path) -> Kuik {
        let (certificate, key) = (self.path("tls.crt"), self.path("tls.key"));
        let tls = ["--tls-cert-file", &certificate, "--tls-private-key-file", &key, "--allow-anonymous-push"];
        Kuik::registry(data, &tls).await
    }

    /// A connection that trusts the authority.
    async fn connect(&self, registry: &Kuik) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(registry.address()).await.unwrap();
        let name = ServerName::IpAddress(IpAddr::from([127, 0, 0, 1]).into());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// The whole answer to a `GET`.
    async fn get(&self, registry: &Kuik, path: &str) -> String {
        let mut stream = self.connect(registry).await;
        stream.write_all(request(path).as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
}

fn certificate(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

async fn push(secret: &Secret, registry: &Kuik, image: &SampleImage) {
    let layout = tempfile::tempdir().unwrap();
    image.write_layout(layout.path(), "it").unwrap();
    let (source, trusted) = (format!("oci:{}:it", layout.path().display()), secret.path("trusted"));
    let destination = format!("docker://{}/app:v1", registry.host());
    let arguments =
        ["copy", "--all", "--preserve-digests", "--dest-cert-dir", &trusted, &source, &destination];
    skopeo(arguments).await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn clients_use_https() {
    let (secret, data) = (Secret::new(), tempfile::tempdir().unwrap());
    secret.issue("first", true);
    let registry = secret.registry(data.path()).await;
    let image = SampleImage::small(51);
    push(&secret, &registry, &image).await;
    let reference = format!("docker://{}/app:v1", registry.host());
    let trusted = secret.path("trusted");
    let inspected = skopeo(["inspect", "--raw", "--cert-dir", &trusted, &reference]).await.unwrap();
    assert_eq!(inspected.as_bytes(), image.index().bytes());
    assert!(
        skopeo(["inspect", "--raw", &reference]).await.is_err(),
        "its authority must not be trusted by default"
    );

    let refused = Transfer::raw(registry.address(), request("/v2/").as_bytes()).await;
    assert_eq!(refused.status, 400);
    let answer = refused.answer().await;
    assert!(String::from_utf8(answer.body).unwrap().contains("https"));
}

#[tokio::test]
async fn a_secret_changes_in_the_middle_of_a_pull() {
    let (secret, data) = (Secret::new(), tempfile::tempdir().unwrap());
    let first = secret.issue("first", true);
    let registry = secret.registry(data.path()).await;
    // More than the buffers of any connection hold.
    let image = SampleImage::builder().seed(52).platform("linux", "amd64").layer(48 << 20).build();
    push(&secret, &registry, &image).await;
    let layer = &image.layers()[0].digest;
    let mut pull = secret.connect(&registry).await;
    assert_eq!(certificate(&pull), first);
    pull.write_all(request(&format!("/v2/app/blobs/{layer}")).as_bytes()).await.unwrap();
    let mut pulled = vec![0; 1000];
    pull.read_exact(&mut pulled).await.unwrap();

    let second = secret.issue("second", true);
    eventually("the second certificate is shown", async || {
        certificate(&secret.connect(&registry).await) == second
    })
    .await;
    secret.issue("third", false);
    registry_counts(&secret, &registry, "error").await;
    assert_eq!(certificate(&secret.connect(&registry).await), second, "a broken pair changes nothing");
    registry_counts(&secret, &registry, "ok").await;

    pull.read_to_end(&mut pulled).await.unwrap();
    let content = &image.blobs()[layer];
    assert!(pulled.ends_with(content), "the pull that was under way is whole");
}

/// Waits until one change of the files with this outcome was counted.
async fn registry_counts(secret: &Secret, registry: &Kuik, outcome: &str) {
    let series = format!("tls_certificate_reloads_total{{outcome=\"{outcome}\"}} 1");
    eventually(&series, async || secret.get(registry, "/metrics").await.contains(&series)).await;
}
