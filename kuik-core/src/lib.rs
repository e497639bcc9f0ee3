//! What images, references and caches *are*: the concepts that every part of kuik shares.
//!
//! - [`mod@reference`]: image references: parse, normalise, print, and encode into a proxy path and back.
//! - [`rewrite`]: which images of a pod are rewritten to the proxy, and why the others are kept.
//! - [`content`]: digests, descriptors, manifests, and the two traits that everything else composes:
//!   [`content::ContentSource`] (something images can be read from) and [`content::ContentStore`]
//!   (something that keeps them).
//! - [`credentials`]: what opens a registry, and the docker config that holds it.
//! - [`trace`]: which request a piece of work belongs to, through every process that has a part in it.
//! - [`failover`]: what to do when a source of content fails: whom to ask next, whom to leave alone.
//!
//! With no feature enabled this crate has no runtime, no TLS and no Kubernetes client: it is pure decisions and
//! plain types. Features add the edges: `registry` (a client of any OCI registry, as a `ContentSource`),
//! `credential-plugins` (programs that know credentials), `ecr`, `google` and `azure` (what a machine is in its cloud), `crd` (the
//! custom resources), `controller` (what keeps them true over a Kubernetes API), `testkit` (a registry that misbehaves on demand, for tests).

pub mod content;
#[cfg(feature = "controller")]
pub mod controller;
#[cfg(feature = "registry")]
pub mod copy;
#[cfg(feature = "crd")]
pub mod crd;
pub mod credentials;
pub mod failover;
#[cfg(feature = "crd")]
pub mod plan;
pub mod reference;
#[cfg(feature = "registry")]
pub mod registry;
pub mod rewrite;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod trace;
