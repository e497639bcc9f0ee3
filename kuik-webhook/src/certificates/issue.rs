//! Makes authorities and serving certificates.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose,
};
use time::OffsetDateTime;

use super::{
    certificate::Certificate,
    material::{KeyPair, Material},
    plan::Needs,
};

/// The name of every authority.
const AUTHORITY: &str = "kuik webhook authority";

/// How many authorities are kept besides the one that signs. There are more than one only where clocks disagree by months.
const MAX_FORMER: usize = 3;

/// Certificates begin to hold this long before they are made, for clocks that are behind.
const BEFORE: i64 = 24 * 3600;

/// How long certificates hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lifetimes {
    /// An authority.
    pub authority: Duration,
    /// A serving certificate; no longer than its authority.
    pub serving: Duration,
}

/// A certificate cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate for {subject}: {problem}")]
pub struct CannotIssue {
    subject: String,
    problem: String,
}

impl Default for Lifetimes {
    /// Two years, and ninety days.
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        Self { authority: days(730), serving: days(90) }
    }
}

/// Makes what is needed at second `now`, beside and out of what there is. Keys are random.
///
/// # Errors
/// Where a name is none that a certificate can have.
pub fn issue(
    material: Option<Material>,
    needs: Needs,
    names: &[String],
    now: i64,
    lifetimes: Lifetimes,
) -> Result<Material, CannotIssue> {
    let mut material = match material {
        Some(material) if !needs.authority => material,
        old => {
            let authority = authority(now, lifetimes.authority)?;
            let (mut former, serving) = match old {
                Some(old) => (old.authorities().cloned().collect(), old.serving),
                None => (Vec::new(), None),
            };
            former.retain(|authority: &Certificate| !authority.has_expired_at(now));
            former.truncate(MAX_FORMER);
            Material { authority, former, serving }
        }
    };
    if needs.serving {
        material.serving = Some(serving(&material.authority, names, now, lifetimes)?);
    }
    Ok(material)
}

fn authority(now: i64, lifetime: Duration) -> Result<KeyPair, CannotIssue> {
    let problem =
        |error: rcgen::Error| CannotIssue { subject: AUTHORITY.to_owned(), problem: error.to_string() };
    let mut params = authority_params();
    holds(&mut params, now, lifetime);
    let key = rcgen::KeyPair::generate().map_err(problem)?;
    let certificate = params.self_signed(&key).map_err(problem)?;
    pair(&certificate, &key, AUTHORITY)
}

/// All authorities have one name, and are told apart by their keys.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn serving(
    authority: &KeyPair,
    names: &[String],
    now: i64,
    lifetimes: Lifetimes,
) -> Result<KeyPair, CannotIssue> {
    let subject = names.first().cloned().unwrap_or_else(|| "no name".to_owned());
    let problem = |error: rcgen::Error| CannotIssue { subject: subject.clone(), problem: error.to_string() };
    let mut params = CertificateParams::new(names).map_err(problem)?;
    // A common name has 64 bytes at most, and API servers look at the names alone.
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "kuik webhook");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    holds(&mut params, now, lifetimes.serving.min(lifetimes.authority));
    let signer = rcgen::KeyPair::from_pem(&authority.key).map_err(problem)?;
    let issuer = Issuer::new(authority_params(), signer);
    let key = rcgen::KeyPair::generate().map_err(problem)?;
    let certificate = params.signed_by(&key, &issuer).map_err(problem)?;
    pair(&certificate, &key, &subject)
}

fn holds(params: &mut CertificateParams, now: i64, lifetime: Duration) {
    let at = |second: i64| OffsetDateTime::from_unix_timestamp(second).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    params.not_before = at(now.saturating_sub(BEFORE));
    params.not_after = at(now.saturating_add_unsigned(lifetime.as_secs()));
}

fn pair(made: &rcgen::Certificate, key: &rcgen::KeyPair, subject: &str) -> Result<KeyPair, CannotIssue> {
    let read = Certificate::read_all(made.pem().as_bytes()).ok().and_then(|read| read.into_iter().next());
    let certificate = read.ok_or_else(|| CannotIssue {
        subject: subject.to_owned(),
        problem: "what was made cannot be read".to_owned(),
    })?;
    Ok(KeyPair { certificate, key: key.serialize_pem() })
}
