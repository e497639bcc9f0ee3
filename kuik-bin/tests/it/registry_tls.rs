//! Registries with certificates that no public authority vouches for, and without TLS: self-signed certificates as root
//! authority, and insecure registries.
//!
//! The same scripted registry is served over TLS or in plain text, at one address.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kuik_testkit::{Access, SampleImage, ScriptedRegistry};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{Authority, Kuik, eventually, get, proxied};

/// A certificate and its key.
struct Certificate {
    pem: String,
    der: CertificateDer<'static>,
    key: KeyPair,
}

/// Makes a self-signed certificate of an authority that is also the certificate of the server `name`, as
/// `openssl req -x509 -addext subjectAltName=…` does.
fn self_signed(name: &str, last_year: i32) -> Certificate {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "registry.example");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(last_year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Certificate { pem: certificate.pem(), der: certificate.der().clone(), key }
}

/// The registry `behind`, over TLS or in plain text.
struct Front {
    address: SocketAddr,
    /// The certificate; `None` is plain text.
    tls: Arc<Mutex<Option<TlsAcceptor>>>,
    connections: Arc<Mutex<JoinSet<()>>>,
}

impl Front {
    async fn start(behind: &ScriptedRegistry, certificate: Option<&Certificate>) -> Self {
        let behind: SocketAddr = behind.host().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let front = Self { address, tls: Arc::default(), connections: Arc::default() };
        front.serve(certificate);
        let (tls, connections) = (front.tls.clone(), front.connections.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let tls = tls.lock().unwrap().clone();
                connections.lock().unwrap().spawn(forward(client, tls, behind));
            }
        });
        front
    }

    /// Serves with another certificate, or in plain text, from now on. Closes every connection.
    fn serve(&self, certificate: Option<&Certificate>) {
        *self.tls.lock().unwrap() = certificate.map(acceptor);
        self.connections.lock().unwrap().abort_all();
    }

    fn host(&self) -> String {
        self.address.to_string()
    }
}

fn acceptor(certificate: &Certificate) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(certificate.key.serialize_der()).unwrap();
    let key = ring::sign::any_supported_type(&key).unwrap();
    let served = Served(Arc::new(CertifiedKey::new(vec![certificate.der.clone()], key)));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(served));
    TlsAcceptor::from(Arc::new(config))
}

/// Serves a certificate with a key that need not belong to it.
#[derive(Debug)]
struct Served(Arc<CertifiedKey>);

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

async fn forward(mut client: TcpStream, tls: Option<TlsAcceptor>, behind: SocketAddr) {
    let mut behind = TcpStream::connect(behind).await.unwrap();
    // Every side may end the connection at any time.
    let _ = match tls {
        None => copy_bidirectional(&mut client, &mut behind).await,
        Some(tls) => match tls.accept(client).await {
            Ok(mut client) => copy_bidirectional(&mut client, &mut behind).await,
            Err(error) => Err(error),
        },
    };
}

async fn registry(images: &[u64]) -> ScriptedRegistry {
    let registry = ScriptedRegistry::start().await.unwrap();
    for &seed in images {
        registry.add_image(&format!("app{seed}"), "v1", &SampleImage::small(seed));
    }
    registry
}

/// Returns whether a manifest can be pulled through `kuik`.
async fn pulls(kuik: &Kuik, front: &Front, image: u64) -> bool {
    let path = format!("/v2/{}/manifests/v1", proxied(&front.host(), &format!("app{image}")));
    get(kuik.address(), &path).await.status == 200
}

/// A server that trusts the authorities in `pem`, and verifies the certificate of `front`.
async fn trusting(folder: &Path, front: &Front, pem: &str) -> Kuik {
    std::fs::write(folder.join("ca.pem"), pem).unwrap();
    let upstream = format!("{host}=https://{host}", host = front.host());
    let authorities = folder.join("ca.pem").display().to_string();
    let arguments = ["--upstream", &upstream, "--root-certificate-authorities", &authorities];
    Kuik::serve(&folder.join("data"), &arguments).await
}

#[tokio::test]
async fn self_signed_certificate_is_trusted_only_as_configured() {
    let behind = registry(&[401]).await;
    let trusted = self_signed("127.0.0.1", 2100);
    let authority = Authority::new();
    let issued = {
        let (pem, key) = authority.issue("127.0.0.1");
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        Certificate { pem, der, key: KeyPair::from_pem(&key).unwrap() }
    };
    let expired = self_signed("127.0.0.1", 2021);
    let other_name = self_signed("127.0.0.2", 2100);
    for (case, served, roots, trusts) in [
        ("the configured certificate", &trusted, trusted.pem.clone(), true),
        ("one of an authority, next to the other", &issued, trusted.pem.clone() + &authority.pem(), true),
        ("another with the same names", &self_signed("127.0.0.1", 2100), trusted.pem.clone(), false),
        ("one that has expired", &expired, expired.pem.clone(), false),
        ("one for another name", &other_name, other_name.pem.clone(), false),
        ("none that is configured", &trusted, authority.pem(), false),
    ] {
        let front = Front::start(&behind, Some(served)).await;
        let folder = tempfile::tempdir().unwrap();
        let kuik = trusting(folder.path(), &front, &roots).await;
        assert_eq!(pulls(&kuik, &front, 401).await, trusts, "{case}:\n{}", kuik.log());
    }
}

#[tokio::test]
async fn server_without_the_key_of_the_configured_certificate_is_refused() {
    let behind = registry(&[402]).await;
    let mut stolen = self_signed("127.0.0.1", 2100);
    stolen.key = KeyPair::generate().unwrap();
    let front = Front::start(&behind, Some(&stolen)).await;
    let folder = tempfile::tempdir().unwrap();
    let kuik = trusting(folder.path(), &front, &stolen.pem).await;
    assert!(!pulls(&kuik, &front, 402).await, "{}", kuik.log());
}

#[tokio::test]
async fn insecure_registry_is_contacted_as_its_scheme_says() {
    let certificate = self_signed("registry.example", 2021);
    for (scheme, over_tls, over_http) in
        [("", true, true), ("https://", true, false), ("http://", false, true)]
    {
        for (certificate, expected) in [(Some(&certificate), over_tls), (None, over_http)] {
            let behind = registry(&[403]).await;
            let front = Front::start(&behind, certificate).await;
            let data = tempfile::tempdir().unwrap();
            let insecure = format!("{scheme}{}", front.host());
            let kuik = Kuik::serve(data.path(), &["--insecure-registries", &insecure]).await;
            let found = pulls(&kuik, &front, 403).await;
            let is_tls = certificate.is_some();
            assert_eq!(found, expected, "{scheme} TLS: {is_tls}:\n{}", kuik.log());
        }
    }
}

#[tokio::test]
async fn credential_that_went_over_tls_never_goes_over_plain_http() {
    let behind = registry(&[404, 405]).await;
    let access = Access::Basic { username: "user".to_owned(), password: "hunter2".to_owned() };
    behind.set_access(access);
    let certificate = self_signed("127.0.0.1", 2100);
    let front = Front::start(&behind, Some(&certificate)).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let auth = BASE64_STANDARD.encode("user:hunter2");
    let auths = serde_json::json!({ "auths": { front.host(): { "auth": auth } } });
    std::fs::write(&config, auths.to_string()).unwrap();
    let config = config.display().to_string();
    let arguments = ["--insecure-registries", &front.host(), "--docker-config", &config];
    let kuik = Kuik::serve(&folder.path().join("data"), &arguments).await;
    assert!(pulls(&kuik, &front, 404).await, "{}", kuik.log());
    let requests = behind.log().len();

    // Another server answers at this address, without TLS.
    front.serve(None);
    assert!(!pulls(&kuik, &front, 405).await, "{}", kuik.log());
    assert_eq!(behind.log().len(), requests, "nothing was sent in plain text");
    front.serve(Some(&certificate));
    eventually("TLS is back", async || pulls(&kuik, &front, 405).await).await;
}
