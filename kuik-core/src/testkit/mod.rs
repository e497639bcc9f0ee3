//! Parts for tests: a registry that misbehaves on demand, images to put into it, and real registries to run.
//!
//! [`ScriptedRegistry`] is an OCI registry in this process, over plain http on a free loopback port. It serves what it
//! was given, does to chosen requests what its script says ([`Behaviour`]: it refuses, delays, stalls, truncates, corrupts,
//! floods, throttles, lies, redirects in circles), and keeps a log to assert on. Conditions are awaited, never slept for: a [`Gate`] holds an answer back until the test opens it, and
//! [`ScriptedRegistry::wait_for`] resolves when the log shows what the test waits for.
//!
//! For those who write stores, [`store_conformance`] is what every [`ManagedStore`](crate::content::ManagedStore) must
//! do, and [`MemoryStore`] is one that does it.
//!
//! ```
//! use kuik_core::testkit::{Behaviour, Rule, SampleImage, ScriptedRegistry, Target};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let registry = ScriptedRegistry::start().await?;
//! let image = SampleImage::builder().platform("linux", "amd64").layer(10_000).build();
//! registry.add_image("app", "latest", &image);
//! // The next blob breaks off after 100 bytes; all others are whole.
//! registry.script(Rule::on(Target::Blob).times(1).does(Behaviour::Truncate { after: 100 }));
//! println!("docker://{}/app:latest", registry.host());
//! # Ok::<(), std::io::Error>(())
//! # })?;
//! # Ok::<(), std::io::Error>(())
//! ```

mod auth;
mod content;
mod image;
mod log;
mod memory;
mod plan;
pub mod real;
mod reply;
mod script;
mod server;
pub mod store_conformance;

pub use auth::Access;
pub use image::{SampleImage, SampleImageBuilder};
pub use log::Logged;
pub use memory::MemoryStore;
pub use script::{Behaviour, Gate, Rule, Target};
pub use server::ScriptedRegistry;
