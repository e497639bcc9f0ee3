//! Real programs as parts of a test: Docker's registry, an S3 server, a Kubernetes API server, skopeo, crane, a forward
//! proxy, and any other as a [`Program`].
//!
//! Each runs in its own temporary folder on a free loopback port. Starting it waits until it responds, and dropping its
//! handle kills it. The error for a missing program has the command that installs it: most are
//! Debian packages, and some are built from Go by `tools/install-parts` (see [`InstallSource`]).

mod clients;
mod docker_registry;
mod error;
mod forward_proxy;
mod kubernetes;
mod program;
mod s3;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::net::TcpListener;

pub use clients::{crane, run, run_within, skopeo};
pub use docker_registry::{DockerRegistry, RegistryOptions, RegistryVersion};
pub use error::{InstallSource, RealPartError};
pub use forward_proxy::ForwardProxy;
pub use kubernetes::{ApiServer, ApiWrite, KubeUser};
pub use program::{Launch, Program, Ready};
pub use s3::{Bucket, S3Server};

/// Returns a free loopback address. Another process may take it before it is used.
///
/// # Errors
/// Returns an error if none is available.
pub async fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()
}
