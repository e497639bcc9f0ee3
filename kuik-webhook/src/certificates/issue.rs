//! Issues CA and serving certificates.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose,
};
use time::OffsetDateTime;

use super::{
    certificate::Certificate,
    plan::RotationPlan,
    secret::{CertificateSecret, KeyPair},
};

/// Common name of every CA.
const AUTHORITY: &str = "kuik webhook authority";

/// Maximum number of former CAs. There is more than one only if clocks differ by months.
const MAX_FORMER: usize = 3;

/// Certificates are valid from this many seconds before issuance, for clocks that are behind.
const BACKDATED_SECONDS: i64 = 24 * 3600;

/// Lifetimes of certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lifetimes {
    /// Lifetime of a CA.
    pub authority: Duration,
    /// Lifetime of a serving certificate; at most that of its CA.
    pub serving: Duration,
}

/// A certificate cannot be issued.
#[derive(Debug, thiserror::Error)]
#[error("failed to issue a certificate for {subject}: {problem}")]
pub struct IssueError {
    subject: String,
    problem: String,
}

/// The serving certificate to issue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateSpec {
    /// DNS names, such as `webhook.kuik-system.svc`.
    pub names: Vec<String>,
    /// Lifetimes.
    pub lifetimes: Lifetimes,
}

impl CertificateSpec {
    /// A certificate for these DNS names, with default lifetimes.
    pub fn new<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect(), lifetimes: Lifetimes::default() }
    }

    /// Sets the lifetimes.
    #[must_use]
    pub fn with_lifetimes(self, lifetimes: Lifetimes) -> Self {
        Self { lifetimes, ..self }
    }
}

impl Lifetimes {
    /// Sets the lifetime of a CA.
    #[must_use]
    pub fn with_authority(self, authority: Duration) -> Self {
        Self { authority, ..self }
    }

    /// Sets the lifetime of a serving certificate.
    #[must_use]
    pub fn with_serving(self, serving: Duration) -> Self {
        Self { serving, ..self }
    }
}

impl Default for Lifetimes {
    /// Two years for a CA, ninety days for a serving certificate.
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        Self { authority: days(730), serving: days(90) }
    }
}

/// Issues the certificates of `plan` at Unix time `now`, with random keys, and returns the new contents of the Secret.
///
/// # Errors
/// If a name is not valid in a certificate.
pub fn issue(
    secret: Option<CertificateSecret>,
    plan: RotationPlan,
    spec: &CertificateSpec,
    now: i64,
) -> Result<CertificateSecret, IssueError> {
    let mut secret = match secret {
        Some(secret) if !plan.authority => secret,
        old => {
            let authority = authority(now, spec.lifetimes.authority)?;
            let (mut former, serving) = match old {
                Some(old) => (old.authorities().cloned().collect(), old.serving),
                None => (Vec::new(), None),
            };
            former.retain(|authority: &Certificate| !authority.has_expired_at(now));
            former.truncate(MAX_FORMER);
            CertificateSecret { authority, former, serving }
        }
    };
    if plan.serving {
        secret.serving = Some(serving(&secret.authority, spec, now)?);
    }
    Ok(secret)
}

fn authority(now: i64, lifetime: Duration) -> Result<KeyPair, IssueError> {
    let problem =
        |error: rcgen::Error| IssueError { subject: AUTHORITY.to_owned(), problem: error.to_string() };
    let mut params = authority_params();
    set_validity(&mut params, now, lifetime);
    let key = rcgen::KeyPair::generate().map_err(problem)?;
    let certificate = params.self_signed(&key).map_err(problem)?;
    pair(&certificate, &key, AUTHORITY)
}

/// All CAs have the same name and differ by their keys.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn serving(authority: &KeyPair, spec: &CertificateSpec, now: i64) -> Result<KeyPair, IssueError> {
    let CertificateSpec { names, lifetimes } = spec;
    let subject = names.first().cloned().unwrap_or_else(|| "no name".to_owned());
    let problem = |error: rcgen::Error| IssueError { subject: subject.clone(), problem: error.to_string() };
    let mut params = CertificateParams::new(names.clone()).map_err(problem)?;
    // A common name is limited to 64 bytes, and API servers check only the DNS names.
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "kuik webhook");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, lifetimes.serving.min(lifetimes.authority));
    let signer = rcgen::KeyPair::from_pem(&authority.key).map_err(problem)?;
    let issuer = Issuer::new(authority_params(), signer);
    let key = rcgen::KeyPair::generate().map_err(problem)?;
    let certificate = params.signed_by(&key, &issuer).map_err(problem)?;
    pair(&certificate, &key, &subject)
}

fn set_validity(params: &mut CertificateParams, now: i64, lifetime: Duration) {
    let at = |second: i64| OffsetDateTime::from_unix_timestamp(second).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    params.not_before = at(now.saturating_sub(BACKDATED_SECONDS));
    params.not_after = at(now.saturating_add_unsigned(lifetime.as_secs()));
}

fn pair(issued: &rcgen::Certificate, key: &rcgen::KeyPair, subject: &str) -> Result<KeyPair, IssueError> {
    let read = Certificate::read_all(issued.pem().as_bytes()).ok().and_then(|read| read.into_iter().next());
    let certificate = read.ok_or_else(|| IssueError {
        subject: subject.to_owned(),
        problem: "the issued certificate cannot be parsed".to_owned(),
    })?;
    Ok(KeyPair { certificate, key: key.serialize_pem() })
}
