//! Test kit for programs that embed kuik: store conformance, a registry with fault injection, and real programs.
//!
//! Check a store of your own; a pull-through cache needs a [`ContentStore`](kuik_core::content::ContentStore):
//!
//! ```
//! use std::sync::Arc;
//!
//! use kuik_testkit::{MemoryStore, store_conformance};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! // Your store instead of this one, which is the shortest that conforms.
//! let store = Arc::new(MemoryStore::new());
//! store_conformance::run_cache(store).await?;
//! # Ok::<(), store_conformance::Violation>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With the feature `scripted-registry`, `ScriptedRegistry` is an in-process OCI registry over plain HTTP on a free
//! loopback port. It serves its content, injects faults into selected requests (`Behavior`: refuse, delay, stall,
//! truncate, corrupt, flood, throttle, wrong lengths, redirect loops), and records a log to assert on. Tests await
//! conditions and never sleep: a `Gate` holds a response back until the test opens it, and `ScriptedRegistry::wait_for`
//! resolves when the log meets a condition.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | (none) | [`store_conformance`] and [`MemoryStore`]: no runtime, no network |
//! | `scripted-registry` | `ScriptedRegistry` and `SampleImage` |
//! | `programs` | `real`: Docker's registry, an S3 server, skopeo and others, started and stopped by tests |
//! | `kubernetes` | a client for users of the API server that tests start |
//!
//! # Where to go next
//!
//! - The example `custom_store` of `kuik-proxy` is a store of one's own that passes the suite.
//! - [`kuik_core::content`] has the traits, and says what each method promises.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "scripted-registry")]
mod auth;
#[cfg(feature = "scripted-registry")]
mod content;
#[cfg(feature = "scripted-registry")]
mod image;
#[cfg(feature = "scripted-registry")]
mod log;
mod memory;
#[cfg(feature = "scripted-registry")]
mod plan;
#[cfg(feature = "programs")]
pub mod real;
#[cfg(feature = "scripted-registry")]
mod reply;
#[cfg(feature = "scripted-registry")]
mod script;
#[cfg(feature = "scripted-registry")]
mod server;
pub mod store_conformance;

#[cfg(feature = "scripted-registry")]
pub use auth::Access;
#[cfg(feature = "scripted-registry")]
pub use image::{SampleImage, SampleImageBuilder};
#[cfg(feature = "scripted-registry")]
pub use log::Logged;
pub use memory::MemoryStore;
#[cfg(feature = "scripted-registry")]
pub use script::{Behavior, Gate, Rule, Target};
#[cfg(feature = "scripted-registry")]
pub use server::ScriptedRegistry;

pub use kuik_core;
