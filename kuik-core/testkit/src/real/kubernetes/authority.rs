//! Certificate authority of one API server, with the same lifetime.

use std::{fmt, fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::super::error::RealPartError;

/// Signs the server's certificate and those of its users.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(super) fn new() -> Result<Self, RealPartError> {
        let mut params = named("authority of a test")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, key()?).map_err(failed)?;
        let pem = issuer.pem();
        Ok(Self { issuer, pem })
    }

    /// The authority's own certificate.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes the certificates and keys that the API server's flags refer to.
    pub(super) fn write_server_files(&self, folder: &Path) -> Result<(), RealPartError> {
        let mut params = CertificateParams::new(
            ["localhost", "127.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
                .map(str::to_owned),
        )
        .map_err(failed)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (certificate, server_key) = self.sign(&params)?;
        let tokens = key()?;
        fs::write(folder.join("authority.pem"), &self.pem)?;
        fs::write(folder.join("server.pem"), certificate)?;
        fs::write(folder.join("server.key"), server_key)?;
        fs::write(folder.join("tokens.pem"), tokens.public_key_pem())?;
        fs::write(folder.join("tokens.key"), tokens.serialize_pem())?;
        Ok(())
    }

    /// Returns a certificate and its key, as PEM, that authenticate as this user in this group.
    pub(super) fn client(&self, name: &str, group: Option<&str>) -> Result<(String, String), RealPartError> {
        let mut params = named(name)?;
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Result<(String, String), RealPartError> {
        let key = key()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// Omits the key.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn named(name: &str) -> Result<CertificateParams, RealPartError> {
    let mut params = CertificateParams::new([]).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

fn key() -> Result<KeyPair, RealPartError> {
    KeyPair::generate().map_err(failed)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: rcgen::Error) -> RealPartError {
    RealPartError::new(format_args!("cannot create a certificate: {error}"))
}
