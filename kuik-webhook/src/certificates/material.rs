//! What the Secret holds: the authorities, the key of the newest, and the pair that is served.

use std::{collections::BTreeMap, fmt};

use super::certificate::Certificate;

const AUTHORITIES: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const SERVING: &str = "tls.crt";
const SERVING_KEY: &str = "tls.key";

/// A certificate and its private key, both as PEM. `Debug` does not print the key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The certificate.
    pub certificate: Certificate,
    /// Its private key, as PEM.
    pub key: String,
}

/// All that replicas share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// The authority that signs.
    pub authority: KeyPair,
    /// Those that it follows, newest first, which have signed what may still be served.
    pub former: Vec<Certificate>,
    /// What is served, where that is usable.
    pub serving: Option<KeyPair>,
}

impl KeyPair {
    /// A pair, if the key is the certificate's.
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

impl Material {
    /// Reads what a Secret holds; nothing where there is no authority that can sign.
    #[must_use]
    pub fn read(data: &BTreeMap<String, Vec<u8>>) -> Option<Self> {
        let mut authorities = Certificate::read_all(data.get(AUTHORITIES)?).ok()?.into_iter();
        let authority = KeyPair::matching(authorities.next()?, data.get(AUTHORITY_KEY)?)?;
        let serving = || {
            let certificate = Certificate::read_all(data.get(SERVING)?).ok()?.into_iter().next()?;
            KeyPair::matching(certificate, data.get(SERVING_KEY)?)
        };
        Some(Self { authority, former: authorities.collect(), serving: serving() })
    }

    /// What a Secret is to hold.
    #[must_use]
    pub fn write(&self) -> BTreeMap<String, Vec<u8>> {
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

    /// Every authority, the one that signs first.
    pub fn authorities(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.authority.certificate).chain(&self.former)
    }

    /// What API servers are to trust at this second: every authority that has not expired.
    #[must_use]
    pub fn bundle(&self, second: i64) -> String {
        self.authorities()
            .filter(|authority| !authority.has_expired_at(second))
            .map(Certificate::pem)
            .collect()
    }
}
