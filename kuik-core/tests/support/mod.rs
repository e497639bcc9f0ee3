//! Shared helpers of the registry client tests: clients for a scripted registry, with short timeouts.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use kuik_core::{
    client::{
        HostLimits, HttpTransport, RegistryClient, Timeouts, TransportConfig, UpstreamResolver as _,
        Upstreams,
    },
    content::{Blob, SourceError, TagOrDigest},
    credentials::{Anonymous, CredentialProvider},
};
use kuik_testkit::ScriptedRegistry;

/// Timeouts that are short enough to wait for, and long enough for success on a busy machine.
pub(crate) fn short() -> Timeouts {
    Timeouts {
        connect: Duration::from_millis(300),
        headers: Duration::from_millis(400),
        answer: Duration::from_millis(900),
        stall: Duration::from_millis(300),
    }
}

pub(crate) fn client(
    upstreams: Upstreams,
    credentials: impl CredentialProvider,
    timeouts: Timeouts,
) -> RegistryClient {
    limited(upstreams, credentials, timeouts, HostLimits::default())
}

pub(crate) fn limited(
    upstreams: Upstreams,
    credentials: impl CredentialProvider,
    timeouts: Timeouts,
    limits: HostLimits,
) -> RegistryClient {
    let mut config = TransportConfig::default();
    config.guard = upstreams.guard();
    config.timeouts = timeouts;
    config.system_roots = false;
    RegistryClient::limited(HttpTransport::new(config).unwrap(), upstreams, credentials, timeouts, limits)
}

/// A client that may contact the registry, and has no credentials.
pub(crate) fn anonymous(registry: &ScriptedRegistry) -> RegistryClient {
    client(named(registry), Anonymous, Timeouts::default())
}

pub(crate) fn named(registry: &ScriptedRegistry) -> Upstreams {
    // Without an attempt at TLS: some tests count connections.
    Upstreams::default().insecure(&format!("http://{}", registry.host())).unwrap()
}

pub(crate) async fn read(blob: Blob) -> Result<Bytes, SourceError> {
    let frames: Vec<Bytes> = blob.body.try_collect().await?;
    Ok(frames.concat().into())
}

pub(crate) fn tag(text: &str) -> TagOrDigest {
    TagOrDigest::Tag(text.parse().unwrap())
}
