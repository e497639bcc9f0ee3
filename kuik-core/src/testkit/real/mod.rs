//! Real programs as parts of a test: Docker's registry, an S3 server, a Kubernetes API server, skopeo, crane, a forward
//! proxy, and any other as a [`Program`].
//!
//! Each runs in a temporary folder of its own on a free loopback port, is waited for until it answers, and is killed
//! by its handle when it is dropped. A program that is not there is an error that says how to install it: most are
//! Debian packages, and some are built from Go by `tools/install-parts` (see [`Origin`]).

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
pub use error::{Origin, RealPartError};
pub use forward_proxy::ForwardProxy;
pub use kubernetes::{ApiServer, ApiWrite, KubeUser};
pub use program::{Launch, Program, Ready};
pub use s3::{Bucket, S3Server};

/// A free loopback address. Somebody else may take it before it is used.
///
/// # Errors
/// Where there is none.
pub async fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()
}
