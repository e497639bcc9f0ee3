//! TLS for a listener: a certificate and key from two files, reloaded when they change, or set and replaced by the
//! caller.
//!
//! New connections get the newest complete pair. A pair that cannot be used (half written, or a key of another
//! certificate) keeps the last one in use, is logged once, and counted. Open connections are not affected. The files
//! are checked when a client connects, at most once a second, and by content: a Secret of Kubernetes changes by a
//! link that moves.

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use kuik_core::content::Digest;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use rustls::{ServerConfig, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Minimum interval between checks of the files.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Timeout of the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of a file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// First byte of every TLS connection: a handshake record.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Response to plain HTTP on this port.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\
Content-Length: 41\r\n\r\nThis port speaks TLS: ask it over https.\n";

/// Extension of requests that came over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverTls;

/// Serves TLS with the contents of two files, or with a pair set by the caller. Cheap to clone; its `Debug` output
/// contains no secret.
#[derive(Clone)]
pub struct Tls {
    shared: Arc<Shared>,
}

struct Shared {
    /// The certificate and its key, if they come from files.
    files: Option<(PathBuf, PathBuf)>,
    state: Mutex<State>,
    metrics: TlsMetrics,
}

/// TLS counters. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TlsMetrics {
    reloads: Family<Outcome, Counter>,
    failed_handshakes: Counter,
}

struct State {
    config: Arc<ServerConfig>,
    /// Digest of the files' contents at the last check, usable or not; `None` if they could not be read.
    seen: Option<Digest>,
    looked_at: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Error for files that cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableCertificate {
    /// A file cannot be read.
    #[error("cannot read {0}")]
    Unreadable(PathBuf, #[source] io::Error),
    /// The files do not contain a certificate with its key.
    #[error("{certificate} and {key} are not a certificate with its key, both as PEM: {problem}")]
    Malformed {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The problem.
        problem: String,
    },
    /// Error for a pair that is not a certificate with its key.
    #[error("not a certificate with its key, both as PEM: {0}")]
    Given(String),
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("no handshake within {HANDSHAKE_TIMEOUT:?}")]
    Slow,
    #[error("the client does not use TLS")]
    NotTls,
    #[error("the handshake failed")]
    Failed(#[source] io::Error),
}

impl Tls {
    /// Reads a certificate (followed by its chain) and its private key, both as PEM.
    ///
    /// # Errors
    /// Fails if they cannot be read or used.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, UnusableCertificate> {
        let shared = Shared::open(certificate, key, Instant::now())?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Serves a certificate (followed by its chain) with its private key, both as PEM, until it is
    /// [replaced](Self::replace). It counts in `metrics`, which may have been registered before there was a
    /// certificate.
    ///
    /// # Errors
    /// Fails if they cannot be used.
    pub fn given(certificate: &str, key: &str, metrics: TlsMetrics) -> Result<Self, UnusableCertificate> {
        let pair = Pair { certificate: certificate.into(), key: key.into() };
        let config = pair.config().map_err(UnusableCertificate::Given)?;
        Ok(Self { shared: Arc::new(Shared::new(None, config, &pair, Instant::now(), metrics)) })
    }

    /// Replaces the pair for new connections. Open connections are not affected, and nothing changes if the pair
    /// cannot be used.
    ///
    /// # Errors
    /// Fails if they cannot be used.
    pub fn replace(&self, certificate: &str, key: &str) -> Result<(), UnusableCertificate> {
        let pair = Pair { certificate: certificate.into(), key: key.into() };
        let config = pair.config().map_err(UnusableCertificate::Given);
        let outcome = if config.is_ok() { "ok" } else { "error" };
        self.shared.metrics.reloads.get_or_create(&Outcome { outcome }).inc();
        self.shared.state.lock().config = config?;
        Ok(())
    }

    /// Registers its counters in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry);
    }

    /// Performs the handshake on a connection; its writes time out like those of plain ones.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        with_write_timeout: impl FnOnce(TcpStream) -> Pin<Box<TimeoutStream<TcpStream>>>,
    ) -> Result<TlsStream<Pin<Box<TimeoutStream<TcpStream>>>>, HandshakeError> {
        let handshake = async {
            let mut first = [0];
            let seen = stream.peek(&mut first).await.map_err(HandshakeError::Failed)?;
            if seen > 0 && first != [HANDSHAKE_RECORD] {
                refuse(stream).await.map_err(HandshakeError::Failed)?;
                return Err(HandshakeError::NotTls);
            }
            let acceptor = TlsAcceptor::from(self.shared.config_at(Instant::now()));
            acceptor.accept(with_write_timeout(stream)).await.map_err(HandshakeError::Failed)
        };
        let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
        let shaken = shaken.unwrap_or(Err(HandshakeError::Slow));
        if shaken.is_err() {
            self.shared.metrics.failed_handshakes.inc();
        }
        shaken
    }
}

impl TlsMetrics {
    /// Registers the counters in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tls");
        let help = "Certificate reloads by outcome";
        for outcome in ["ok", "error"] {
            // Outcomes that have not happened yet are exported as zero.
            drop(self.reloads.get_or_create(&Outcome { outcome }));
        }
        registry.register("certificate_reloads", help, self.reloads.clone());
        registry.register("failed_handshakes", "Failed TLS handshakes", self.failed_handshakes.clone());
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = self.shared.files.as_ref().map(|(certificate, _)| certificate);
        f.debug_struct("Tls").field("certificate", &certificate).finish_non_exhaustive()
    }
}

/// Answers a plain HTTP client. Its request is read first: with unread bytes, closing would reset the connection
/// before the response arrives.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    let _read = stream.read(&mut [0; 8192]).await?;
    stream.write_all(NOT_TLS).await?;
    stream.shutdown().await
}

impl Shared {
    fn open(certificate: &Path, key: &Path, now: Instant) -> Result<Self, UnusableCertificate> {
        let pair = Pair::read(certificate, key)?;
        let config = pair.config().map_err(|problem| malformed(certificate, key, problem))?;
        Ok(Self::new(
            Some((certificate.to_owned(), key.to_owned())),
            config,
            &pair,
            now,
            TlsMetrics::default(),
        ))
    }

    fn new(
        files: Option<(PathBuf, PathBuf)>,
        config: Arc<ServerConfig>,
        pair: &Pair,
        now: Instant,
        metrics: TlsMetrics,
    ) -> Self {
        let state = State { config, seen: Some(pair.digest()), looked_at: now };
        Self { files, state: Mutex::new(state), metrics }
    }

    fn config_at(&self, now: Instant) -> Arc<ServerConfig> {
        let mut state = self.state.lock();
        if let Some((certificate, key)) = &self.files
            && now.saturating_duration_since(state.looked_at) >= CHECK_INTERVAL
        {
            state.looked_at = now;
            self.reload_if_changed(&mut state, certificate, key);
        }
        state.config.clone()
    }

    fn reload_if_changed(&self, state: &mut State, certificate: &Path, key: &Path) {
        let read = Pair::read(certificate, key);
        let seen = read.as_ref().ok().map(Pair::digest);
        if seen == state.seen {
            return;
        }
        state.seen = seen;
        let config =
            read.and_then(|pair| pair.config().map_err(|problem| malformed(certificate, key, problem)));
        let outcome = match config {
            Ok(config) => {
                tracing::info!(file = %certificate.display(), "certificate reloaded");
                state.config = config;
                "ok"
            }
            Err(error) => {
                tracing::warn!(%error, "failed to reload the certificate, keeping the last one");
                "error"
            }
        };
        self.metrics.reloads.get_or_create(&Outcome { outcome }).inc();
    }
}

fn malformed(certificate: &Path, key: &Path, problem: String) -> UnusableCertificate {
    UnusableCertificate::Malformed { certificate: certificate.to_owned(), key: key.to_owned(), problem }
}

/// Contents of the two files.
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Pair {
    fn read(certificate: &Path, key: &Path) -> Result<Self, UnusableCertificate> {
        let read = |path: &Path| {
            let mut bytes = Vec::new();
            let read = fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
            read.map_err(|error| UnusableCertificate::Unreadable(path.to_owned(), error))?;
            Ok(bytes)
        };
        Ok(Self { certificate: read(certificate)?, key: read(key)? })
    }

    fn digest(&self) -> Digest {
        Digest::sha256(&[self.certificate.as_slice(), &[0], &self.key].concat())
    }

    /// Builds the configuration: TLS 1.2 and 1.3 with HTTP/1.1. Errors contain no byte of the key.
    fn config(&self) -> Result<Arc<ServerConfig>, String> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|_| "the certificate is not PEM".to_owned())?;
        if chain.is_empty() {
            return Err("no certificate found".to_owned());
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| "no private key found".to_owned())?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config =
            builder.with_no_client_auth().with_single_cert(chain, key).map_err(|error| error.to_string())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::CertifiedKey;

    use super::*;

    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        fn write(&self, certificate: &str, key: &str) {
            fs::write(self.certificate(), certificate).unwrap();
            fs::write(self.key(), key).unwrap();
        }

        fn certificate(&self) -> PathBuf {
            self.folder.path().join("tls.crt")
        }

        fn key(&self) -> PathBuf {
            self.folder.path().join("tls.key")
        }

        fn open(&self, now: Instant) -> Result<Shared, UnusableCertificate> {
            Shared::open(&self.certificate(), &self.key(), now)
        }
    }

    fn pair() -> (String, String) {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["cache".to_owned()]).unwrap();
        (cert.pem(), signing_key.serialize_pem())
    }

    #[test]
    fn valid_pair_is_reloaded_and_broken_one_ignored() {
        let files = Files { folder: tempfile::tempdir().unwrap() };
        let ((certificate, key), (next, next_key)) = (pair(), pair());
        files.write(&certificate, &key);
        let start = Instant::now();
        let shared = files.open(start).unwrap();
        let count = |outcome| shared.metrics.reloads.get_or_create(&Outcome { outcome }).get();
        let first = shared.config_at(start);

        files.write(&next, &next_key);
        assert!(Arc::ptr_eq(&shared.config_at(start), &first), "the files are not checked all the time");
        let second = shared.config_at(start + CHECK_INTERVAL);
        assert!(!Arc::ptr_eq(&second, &first));

        let mut now = start + CHECK_INTERVAL;
        let empty = String::new();
        for (broken, its_key) in [(&next, &key), (&empty, &next_key), (&next, &empty)] {
            files.write(broken, its_key);
            for _ in 0..3 {
                now += CHECK_INTERVAL;
                assert!(Arc::ptr_eq(&shared.config_at(now), &second));
            }
        }
        fs::remove_file(files.key()).unwrap();
        assert!(Arc::ptr_eq(&shared.config_at(now + CHECK_INTERVAL), &second));
        assert_eq!((count("ok"), count("error")), (1, 4), "each change is counted once");
    }

    #[test]
    fn given_pair_is_served_until_a_valid_one_replaces_it() {
        let ((certificate, key), (next, next_key)) = (pair(), pair());
        let tls = Tls::given(&certificate, &key, TlsMetrics::default()).unwrap();
        let first = tls.shared.config_at(Instant::now());
        assert!(tls.replace(&next, &key).is_err(), "the key is of another certificate");
        assert!(Arc::ptr_eq(&tls.shared.config_at(Instant::now() + CHECK_INTERVAL), &first));
        tls.replace(&next, &next_key).unwrap();
        assert!(!Arc::ptr_eq(&tls.shared.config_at(Instant::now()), &first));
        assert!(Tls::given("", &key, TlsMetrics::default()).is_err());
    }

    #[test]
    fn errors_name_the_file_and_contain_no_key() {
        let files = Files { folder: tempfile::tempdir().unwrap() };
        assert!(matches!(files.open(Instant::now()), Err(UnusableCertificate::Unreadable(..))));
        let ((certificate, _), (_, key)) = (pair(), pair());
        files.write(&certificate, &key);
        let Err(error) = files.open(Instant::now()) else { panic!("the key is of another certificate") };
        assert!(error.to_string().contains("tls.crt"), "{error}");
        assert!(!error.to_string().contains("PRIVATE KEY-"), "{error}");
    }
}
