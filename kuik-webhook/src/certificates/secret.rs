//! Contents of the certificate Secret: CA certificates, the key of the current CA, and the serving key pair.

use std::{collections::BTreeMap, fmt};

use super::certificate::Certificate;

const AUTHORITIES: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const SERVING: &str = "tls.crt";
const SERVING_KEY: &str = "tls.key";

/// A certificate and its private key. `Debug` does not print the key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The certificate.
    pub certificate: Certificate,
    /// Its private key in PEM format.
    pub key: String,
}

/// The contents of the Secret that all replicas share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSecret {
    /// The current CA.
    pub authority: KeyPair,
    /// Former CAs, newest first, whose serving certificates can still be in use.
    pub former: Vec<Certificate>,
    /// The serving key pair, if it is usable.
    pub serving: Option<KeyPair>,
}

impl KeyPair {
    /// Returns the pair if the key belongs to the certificate.
    fn matching(certificate: Certificate, key: &[u8]) -> Option<Self> {
        let key = std::str::from_utf8(key).ok()?;
        let parsed = rcgen::KeyPair::from_pem(key).ok()?;
        certificate.has_key(parsed.public_key_raw()).then(|| Self { certificate, key: key.to_owned() })
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl CertificateSecret {
    /// Parses the data of a Secret. Returns `None` without a CA that can sign.
    #[must_use]
    pub fn parse(data: &BTreeMap<String, Vec<u8>>) -> Option<Self> {
        let mut authorities = Certificate::read_all(data.get(AUTHORITIES)?).ok()?.into_iter();
        let authority = KeyPair::matching(authorities.next()?, data.get(AUTHORITY_KEY)?)?;
        let serving = || {
            let certificate = Certificate::read_all(data.get(SERVING)?).ok()?.into_iter().next()?;
            KeyPair::matching(certificate, data.get(SERVING_KEY)?)
        };
        Some(Self { authority, former: authorities.collect(), serving: serving() })
    }

    /// Returns the data of the Secret.
    #[must_use]
    pub fn to_data(&self) -> BTreeMap<String, Vec<u8>> {
        let authorities: String = self.authorities().map(Certificate::pem).collect();
        let mut data = BTreeMap::from([
            (AUTHORITIES.to_owned(), authorities.into_bytes()),
            (AUTHORITY_KEY.to_owned(), self.authority.key.clone().into_bytes()),
        ]);
        if let Some(serving) = &self.serving {
            data.insert(SERVING.to_owned(), serving.certificate.pem().into_bytes());
            data.insert(SERVING_KEY.to_owned(), serving.key.clone().into_bytes());
        }
        data
    }

    /// Returns all CA certificates, the current one first.
    pub fn authorities(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.authority.certificate).chain(&self.former)
    }

    /// Returns the CA bundle for API servers at this Unix time: every CA that has not expired.
    #[must_use]
    pub fn ca_bundle(&self, second: i64) -> String {
        self.authorities()
            .filter(|authority| !authority.has_expired_at(second))
            .map(Certificate::pem)
            .collect()
    }
}
