//! The rotation plan: which certificates to issue and publish now.

use super::{certificate::Certificate, secret::CertificateSecret};

/// The steps to take, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RotationPlan {
    /// Issue a new CA, in addition to the existing ones.
    pub authority: bool,
    /// Issue a new serving certificate, signed by the current CA.
    pub serving: bool,
    /// Publish the CA bundle to API servers.
    pub trust: bool,
}

impl RotationPlan {
    /// Returns true if the Secret changes.
    #[must_use]
    pub fn issues(self) -> bool {
        self.authority || self.serving
    }
}

/// Plans the rotation at Unix time `now`, given the contents of the Secret, the CA `bundles` that API servers trust (one for
/// each webhook), and the DNS `names` of the service.
///
/// An unusable certificate is replaced immediately. One that is only due for renewal is replaced after the CA that signs its
/// successor is published to all API servers. Clock skew of up to a day has no effect: certificates are backdated by a day,
/// and due long before they expire.
#[must_use]
pub fn plan(
    secret: Option<&CertificateSecret>,
    bundles: &[Vec<u8>],
    names: &[String],
    now: i64,
) -> RotationPlan {
    let Some(secret) = secret else {
        return RotationPlan { authority: true, serving: true, trust: false };
    };
    let authority = &secret.authority.certificate;
    let new_authority = !authority.is_valid_at(now) || authority.is_due_at(now);

    let serving = secret.serving.as_ref().map(|pair| &pair.certificate);
    let is_signed = |serving: &Certificate, authority: &Certificate| {
        !authority.has_expired_at(now) && serving.is_signed_by(authority)
    };
    let usable = serving.is_some_and(|serving| {
        let signed = secret.authorities().any(|authority| is_signed(serving, authority));
        serving.is_valid_at(now) && serving.is_for(names) && signed
    });
    let due = serving.is_none_or(|serving| serving.is_due_at(now) || !is_signed(serving, authority));
    let trusted = bundles.iter().all(|bundle| trusts(bundle, authority));
    let new_serving = !usable || (due && trusted && !new_authority);

    let wanted = secret.ca_bundle(now);
    let trust = bundles.iter().any(|bundle| bundle != wanted.as_bytes());
    RotationPlan { authority: new_authority, serving: new_serving, trust }
}

/// Returns true if a bundle contains the CA.
fn trusts(bundle: &[u8], authority: &Certificate) -> bool {
    Certificate::read_all(bundle).is_ok_and(|trusted| trusted.contains(authority))
}
