//! What has to be done about the certificates now.

use super::{certificate::Certificate, material::Material};

/// What has to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Needs {
    /// A new authority, beside those that there are.
    pub authority: bool,
    /// A new serving certificate, by the newest authority.
    pub serving: bool,
    /// API servers have to be told what to trust.
    pub trust: bool,
}

impl Needs {
    /// Whether something has to be written into the Secret.
    #[must_use]
    pub fn issues(self) -> bool {
        self.authority || self.serving
    }
}

/// What has to be done at second `now`, where the Secret holds `material`, API servers trust `bundles` (one for each of the
/// webhooks), and the service has these `names`.
///
/// A certificate that cannot be used is replaced at once. One that is merely due waits until every API server has been
/// told of the authority that signs its successor. A clock that is wrong by a day makes no difference: certificates begin
/// to hold a day before they are made, and are due long before they end.
#[must_use]
pub fn plan(material: Option<&Material>, bundles: &[Vec<u8>], names: &[String], now: i64) -> Needs {
    let Some(material) = material else { return Needs { authority: true, serving: true, trust: false } };
    let authority = &material.authority.certificate;
    let new_authority = !authority.holds_at(now) || authority.is_due_at(now);

    let serving = material.serving.as_ref().map(|pair| &pair.certificate);
    let by = |serving: &Certificate, authority: &Certificate| {
        !authority.has_expired_at(now) && serving.is_signed_by(authority)
    };
    let usable = serving.is_some_and(|serving| {
        let signed = material.authorities().any(|authority| by(serving, authority));
        serving.holds_at(now) && serving.is_for(names) && signed
    });
    let due = serving.is_none_or(|serving| serving.is_due_at(now) || !by(serving, authority));
    let trusted = bundles.iter().all(|bundle| trusts(bundle, authority));
    let new_serving = !usable || (due && trusted && !new_authority);

    let wanted = material.bundle(now);
    let trust = bundles.iter().any(|bundle| bundle != wanted.as_bytes());
    Needs { authority: new_authority, serving: new_serving, trust }
}

/// Whether a bundle has the authority in it.
fn trusts(bundle: &[u8], authority: &Certificate) -> bool {
    Certificate::read_all(bundle).is_ok_and(|trusted| trusted.contains(authority))
}
