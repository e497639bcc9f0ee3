//! An X.509 certificate: its validity, names and issuer.
#![expect(
    clippy::redundant_closure_for_method_calls,
    reason = "the method has one lifetime, and the reader requires a function for any lifetime"
)]

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject as _};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use yasna::{ASN1Error, ASN1ErrorKind, ASN1Result, BERReader, Tag};

/// Size limit of PEM text.
const MAX_BYTES: usize = 256 << 10;

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    not_before: i64,
    not_after: i64,
    public_key: Vec<u8>,
}

/// Validity (not before, not after) and public key of a certificate (RFC 5280, 4.1).
type Parts = ([i64; 2], Vec<u8>);

/// The text is not a list of certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a list of X.509 certificates in PEM format")]
pub struct InvalidCertificate;

impl Certificate {
    /// Parses all certificates of a PEM text.
    ///
    /// # Errors
    /// If one is malformed, or the text is too long.
    pub fn read_all(pem: &[u8]) -> Result<Vec<Self>, InvalidCertificate> {
        if pem.len() > MAX_BYTES {
            return Err(InvalidCertificate);
        }
        let ders = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        ders.map_err(|_| InvalidCertificate)?.into_iter().map(Self::from_der).collect()
    }

    fn from_der(der: CertificateDer<'static>) -> Result<Self, InvalidCertificate> {
        let ([not_before, not_after], public_key) =
            yasna::parse_der(&der, read).map_err(|_| InvalidCertificate)?;
        Ok(Self { der, not_before, not_after, public_key })
    }

    /// Returns true if it is valid at this Unix time.
    #[must_use]
    pub fn is_valid_at(&self, second: i64) -> bool {
        (self.not_before..=self.not_after).contains(&second)
    }

    /// Returns true if it has expired at this Unix time.
    #[must_use]
    pub fn has_expired_at(&self, second: i64) -> bool {
        second > self.not_after
    }

    /// Returns true if it is due for renewal: two thirds of its lifetime have passed.
    #[must_use]
    pub fn is_due_at(&self, second: i64) -> bool {
        let third = (self.not_after.saturating_sub(self.not_before)) / 3;
        second >= self.not_after.saturating_sub(third)
    }

    /// Returns true if it covers all of these DNS names.
    #[must_use]
    pub fn is_for(&self, names: &[String]) -> bool {
        let Ok(certificate) = EndEntityCert::try_from(&self.der) else { return false };
        names.iter().all(|name| {
            let name = name.as_str().try_into();
            name.is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
        })
    }

    /// Returns true if this is its public key, as encoded in a certificate.
    #[must_use]
    pub fn has_key(&self, public_key: &[u8]) -> bool {
        self.public_key == public_key
    }

    /// Returns true if `authority` signed it as a server certificate. Ignores validity periods.
    #[must_use]
    pub fn is_signed_by(&self, authority: &Self) -> bool {
        let Ok(anchor) = anchor_from_trusted_cert(&authority.der) else { return false };
        let Ok(certificate) = EndEntityCert::try_from(&self.der) else { return false };
        let second = u64::try_from(self.not_before).unwrap_or_default();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(second));
        let usage = KeyUsage::server_auth();
        let anchors = [anchor];
        let verified =
            certificate.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, &[], time, usage, None, None);
        verified.is_ok()
    }

    /// Returns the certificate in PEM format.
    #[must_use]
    pub fn pem(&self) -> String {
        let text = BASE64_STANDARD.encode(&self.der);
        let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
        let mut rest = text.as_str();
        while let Some((line, behind)) = rest.split_at_checked(64) {
            pem.push_str(line);
            pem.push('\n');
            rest = behind;
        }
        if !rest.is_empty() {
            pem.push_str(rest);
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
        pem
    }
}

fn read(certificate: BERReader<'_, '_>) -> ASN1Result<Parts> {
    certificate.read_sequence(|parts| {
        let read = parts.next().read_sequence(|body| {
            body.read_optional(|version| version.read_tagged(Tag::context(0), |number| number.read_i64()))?;
            let [_serial, _algorithm, _issuer] =
                [body.next().read_der()?, body.next().read_der()?, body.next().read_der()?];
            let validity =
                body.next().read_sequence(|validity| Ok([time(validity.next())?, time(validity.next())?]))?;
            let _subject = body.next().read_der()?;
            let key = body.next().read_sequence(|key| {
                let _algorithm = key.next().read_der()?;
                key.next().read_bitvec_bytes()
            })?;
            while body.read_optional(|more| more.read_der())?.is_some() {}
            Ok((validity, key.0))
        })?;
        let [_algorithm, _signature] = [parts.next().read_der()?, parts.next().read_der()?];
        Ok(read)
    })
}

/// Reads a time as Unix time.
fn time(reader: BERReader<'_, '_>) -> ASN1Result<i64> {
    let bytes = reader.read_der()?;
    let utc = || yasna::parse_der(&bytes, |time| time.read_utctime()).map(|time| *time.datetime());
    let general =
        |_| yasna::parse_der(&bytes, |time| time.read_generalized_time()).map(|time| *time.datetime());
    let read = utc().or_else(general).map_err(|_| ASN1Error::new(ASN1ErrorKind::Invalid))?;
    Ok(read.unix_timestamp())
}
