//! Cluster ID: the UID of the namespace `kube-system`, which every cluster has and none shares.

use k8s_openapi::api::core::v1::Namespace;
use kube_client::{Api, Client};

use crate::{
    controller::ApiError,
    retention::{ClusterId, InvalidClusterId},
};

/// The namespace whose UID identifies the cluster.
const NAMESPACE: &str = "kube-system";

/// The cluster ID could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterIdError {
    /// The API server rejected the request or did not respond.
    #[error("cannot read the ID of the cluster")]
    Api(#[from] ApiError),
    /// The namespace has no usable UID.
    #[error("the UID of the namespace {NAMESPACE} is not usable")]
    Invalid(#[from] InvalidClusterId),
}

/// Returns the ID of the cluster of `client`.
///
/// # Errors
/// Returns an error if the namespace `kube-system` cannot be read.
pub async fn cluster_id(client: &Client) -> Result<ClusterId, ClusterIdError> {
    let found = Api::<Namespace>::all(client.clone()).get(NAMESPACE).await;
    let namespace = found.map_err(|error| ApiError::new(format!("read the Namespace {NAMESPACE}"), error))?;
    Ok(namespace.metadata.uid.unwrap_or_default().parse()?)
}
