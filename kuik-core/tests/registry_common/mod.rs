//! What the tests of the registry client share: a client for a scripted registry, with short times.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::time::Duration;

use futures::TryStreamExt as _;
use kuik_core::{
    content::{Blob, SourceError, TagOrDigest},
    credentials::{Anonymous, CredentialProvider},
    registry::{HttpTransport, RegistryClient, Timeouts, TransportConfig, UpstreamResolver as _, Upstreams},
    testkit::ScriptedRegistry,
};

/// Times that are short enough to wait for, and long enough for a busy machine where nothing is to time out.
pub fn short() -> Timeouts {
    Timeouts {
        connect: Duration::from_millis(300),
        headers: Duration::from_millis(400),
        answer: Duration::from_millis(900),
        stall: Duration::from_millis(300),
    }
}

pub fn client(
    upstreams: Upstreams,
    credentials: impl CredentialProvider,
    timeouts: Timeouts,
) -> RegistryClient {
    let mut config = TransportConfig::default();
    config.guard = upstreams.guard();
    config.timeouts = timeouts;
    config.system_roots = false;
    RegistryClient::new(HttpTransport::new(config).unwrap(), upstreams, credentials, timeouts)
}

/// A client that may contact the registry, and has no credentials.
pub fn anonymous(registry: &ScriptedRegistry) -> RegistryClient {
    client(named(registry), Anonymous, Timeouts::default())
}

pub fn named(registry: &ScriptedRegistry) -> Upstreams {
    Upstreams::default().insecure(&registry.host()).unwrap()
}

pub async fn read(blob: Blob) -> Result<Vec<u8>, SourceError> {
    blob.body
        .try_fold(Vec::new(), async |mut all, bytes| {
            all.extend_from_slice(&bytes);
            Ok(all)
        })
        .await
}

pub fn tag(text: &str) -> TagOrDigest {
    TagOrDigest::Tag(text.parse().unwrap())
}
