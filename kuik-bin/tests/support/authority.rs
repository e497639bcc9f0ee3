//! Certificate authority of a test, and the certificates that it issues, as files.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its certificate as PEM.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A new certificate for `name`, and its key, as PEM.
    pub(crate) fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// Writes `ca.crt`, and `tls.crt` and `tls.key` for `name`, into `folder`.
    pub(crate) fn write(&self, folder: &Path, name: &str) {
        let (certificate, key) = self.issue(name);
        for (file, pem) in [("ca.crt", self.pem()), ("tls.crt", certificate), ("tls.key", key)] {
            std::fs::write(folder.join(file), pem).unwrap();
        }
    }
}
