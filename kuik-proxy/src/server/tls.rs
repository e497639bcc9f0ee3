//! TLS on a listener: a certificate and its key in two files, read again when they change; or given, and given anew.
//!
//! Whoever shakes hands gets the newest pair that was whole. A pair that cannot be used (half written, or a key of
//! another certificate) leaves the last one in place, is logged once, and counted. Connections that are open are not
//! touched. The files are looked at when somebody connects, once a second at most, and by content: a Secret of
//! Kubernetes changes by a link that moves.

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kuik_core::content::Digest;
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

/// How often the files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a client may take to shake hands.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// What every TLS connection starts with: a handshake record.
const HANDSHAKE_RECORD: u8 = 0x16;

/// What is said to who speaks http here.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\
Content-Length: 41\r\n\r\nThis port speaks TLS: ask it over https.\n";

/// A request came over TLS: it is an extension of those that did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverTls;

/// Serves TLS with what two files hold, or with what it is given. Cheap to clone; prints no secret.
#[derive(Clone)]
pub struct Tls {
    shared: Arc<Shared>,
}

struct Shared {
    /// The certificate and its key, where they come from files.
    files: Option<(PathBuf, PathBuf)>,
    state: Mutex<State>,
    metrics: TlsMetrics,
}

/// What is counted about TLS. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TlsMetrics {
    reloads: Family<Outcome, Counter>,
    failed_handshakes: Counter,
}

struct State {
    config: Arc<ServerConfig>,
    /// What the files held when they were last looked at, usable or not; `None` where they could not be read.
    seen: Option<Digest>,
    looked_at: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Files that TLS cannot be served with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableCertificate {
    /// A file cannot be read.
    #[error("cannot read {0}")]
    Unreadable(PathBuf, #[source] io::Error),
    /// They hold no certificate with its key.
    #[error("{certificate} and {key} hold no certificate with its key, both as PEM: {problem}")]
    Malformed {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of its key.
        key: PathBuf,
        /// What is wrong with them.
        problem: String,
    },
    /// What was given is no certificate with its key.
    #[error("what was given is no certificate with its key, both as PEM: {0}")]
    Given(String),
}

/// Why there was no handshake.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("the client did not shake hands within {HANDSHAKE_TIMEOUT:?}")]
    Slow,
    #[error("the client speaks no TLS")]
    NotTls,
    #[error("the handshake failed")]
    Failed(#[source] io::Error),
}

impl Tls {
    /// Reads a certificate (its chain after it) and its private key, both as PEM.
    ///
    /// # Errors
    /// Where they cannot be read or used.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, UnusableCertificate> {
        let shared = Shared::open(certificate, key, Instant::now())?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Serves a certificate (its chain after it) with its private key, both as PEM, until it gets [others](Self::replace).
    /// It counts in `metrics`, which can have been registered before there was a certificate.
    ///
    /// # Errors
    /// Where they cannot be used.
    pub fn given(certificate: &str, key: &str, metrics: TlsMetrics) -> Result<Self, UnusableCertificate> {
        let pair = Pair { certificate: certificate.into(), key: key.into() };
        let config = pair.config().map_err(UnusableCertificate::Given)?;
        Ok(Self { shared: Arc::new(Shared::new(None, config, &pair, Instant::now(), metrics)) })
    }

    /// Serves these from now on. Connections that are open are not touched, and nothing changes where these cannot be used.
    ///
    /// # Errors
    /// Where they cannot be used.
    pub fn replace(&self, certificate: &str, key: &str) -> Result<(), UnusableCertificate> {
        let pair = Pair { certificate: certificate.into(), key: key.into() };
        let config = pair.config().map_err(UnusableCertificate::Given);
        let outcome = if config.is_ok() { "ok" } else { "error" };
        self.shared.metrics.reloads.get_or_create(&Outcome { outcome }).inc();
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).config = config?;
        Ok(())
    }

    /// Adds its counters to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry);
    }

    /// Shakes hands over a connection; its writes time out as those of plain ones do.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        patient: impl FnOnce(TcpStream) -> Pin<Box<TimeoutStream<TcpStream>>>,
    ) -> Result<TlsStream<Pin<Box<TimeoutStream<TcpStream>>>>, HandshakeError> {
        let handshake = async {
            let mut first = [0];
            let seen = stream.peek(&mut first).await.map_err(HandshakeError::Failed)?;
            if seen > 0 && first != [HANDSHAKE_RECORD] {
                refuse(stream).await.map_err(HandshakeError::Failed)?;
                return Err(HandshakeError::NotTls);
            }
            let acceptor = TlsAcceptor::from(self.shared.config_at(Instant::now()));
            acceptor.accept(patient(stream)).await.map_err(HandshakeError::Failed)
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
    /// Adds the counters to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tls");
        let help = "Changes of the certificate, by whether the new pair is in use";
        for outcome in ["ok", "error"] {
            // What has not happened yet is zero, not missing.
            drop(self.reloads.get_or_create(&Outcome { outcome }));
        }
        registry.register("certificate_reloads", help, self.reloads.clone());
        registry.register("failed_handshakes", "Connections without TLS", self.failed_handshakes.clone());
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = self.shared.files.as_ref().map(|(certificate, _)| certificate);
        f.debug_struct("Tls").field("certificate", &certificate).finish_non_exhaustive()
    }
}

/// Answers somebody who speaks http. What it sent is read first: with bytes unread, closing would reset the connection
/// before the answer arrives.
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
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((certificate, key)) = &self.files
            && now.saturating_duration_since(state.looked_at) >= LOOK_EVERY
        {
            state.looked_at = now;
            self.look(&mut state, certificate, key);
        }
        state.config.clone()
    }

    fn look(&self, state: &mut State, certificate: &Path, key: &Path) {
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
                tracing::info!(file = %certificate.display(), "the certificate has changed");
                state.config = config;
                "ok"
            }
            Err(error) => {
                tracing::warn!(%error, "the certificate cannot be read again: the last one stays in use");
                "error"
            }
        };
        self.metrics.reloads.get_or_create(&Outcome { outcome }).inc();
    }
}

fn malformed(certificate: &Path, key: &Path, problem: String) -> UnusableCertificate {
    UnusableCertificate::Malformed { certificate: certificate.to_owned(), key: key.to_owned(), problem }
}

/// What the two files hold.
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

    /// TLS 1.2 and 1.3, HTTP/1.1 in it. What is wrong is said without a byte of the key.
    fn config(&self) -> Result<Arc<ServerConfig>, String> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|_| "the certificate is no PEM".to_owned())?;
        if chain.is_empty() {
            return Err("there is no certificate".to_owned());
        }
        let key =
            PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| "there is no private key".to_owned())?;
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
    fn a_new_pair_holds_and_a_broken_one_changes_nothing() {
        let files = Files { folder: tempfile::tempdir().unwrap() };
        let ((certificate, key), (next, next_key)) = (pair(), pair());
        files.write(&certificate, &key);
        let start = Instant::now();
        let shared = files.open(start).unwrap();
        let count = |outcome| shared.metrics.reloads.get_or_create(&Outcome { outcome }).get();
        let first = shared.config_at(start);

        files.write(&next, &next_key);
        assert!(Arc::ptr_eq(&shared.config_at(start), &first), "it is not looked at all the time");
        let second = shared.config_at(start + LOOK_EVERY);
        assert!(!Arc::ptr_eq(&second, &first));

        let mut now = start + LOOK_EVERY;
        let empty = String::new();
        for (broken, its_key) in [(&next, &key), (&empty, &next_key), (&next, &empty)] {
            files.write(broken, its_key);
            for _ in 0..3 {
                now += LOOK_EVERY;
                assert!(Arc::ptr_eq(&shared.config_at(now), &second));
            }
        }
        fs::remove_file(files.key()).unwrap();
        assert!(Arc::ptr_eq(&shared.config_at(now + LOOK_EVERY), &second));
        assert_eq!((count("ok"), count("error")), (1, 4), "each change is counted once");
    }

    #[test]
    fn what_is_given_is_served_until_something_better_is() {
        let ((certificate, key), (next, next_key)) = (pair(), pair());
        let tls = Tls::given(&certificate, &key, TlsMetrics::default()).unwrap();
        let first = tls.shared.config_at(Instant::now());
        assert!(tls.replace(&next, &key).is_err(), "the key is of another certificate");
        assert!(Arc::ptr_eq(&tls.shared.config_at(Instant::now() + LOOK_EVERY), &first));
        tls.replace(&next, &next_key).unwrap();
        assert!(!Arc::ptr_eq(&tls.shared.config_at(Instant::now()), &first));
        assert!(Tls::given("", &key, TlsMetrics::default()).is_err());
    }

    #[test]
    fn a_mistake_is_named_and_no_key_is() {
        let files = Files { folder: tempfile::tempdir().unwrap() };
        assert!(matches!(files.open(Instant::now()), Err(UnusableCertificate::Unreadable(..))));
        let ((certificate, _), (_, key)) = (pair(), pair());
        files.write(&certificate, &key);
        let Err(error) = files.open(Instant::now()) else { panic!("the key is of another certificate") };
        assert!(error.to_string().contains("tls.crt"), "{error}");
        assert!(!error.to_string().contains("PRIVATE KEY-"), "{error}");
    }
}
