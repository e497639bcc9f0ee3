//! Reconcile errors. The object is planned again after a delay.

/// A step of a plan failed.
#[derive(Debug, thiserror::Error)]
#[error("{attempted}")]
pub(super) struct ReconcileError {
    attempted: String,
    conflict: bool,
    #[source]
    cause: Box<dyn std::error::Error + Send + Sync>,
}

impl ReconcileError {
    pub(super) fn api(what: &str, name: &str, error: kube_client::Error) -> Self {
        let conflict =
            matches!(&error, kube_client::Error::Api(status) if status.code == 409 || status.code == 404);
        Self { attempted: format!("{what} CachedImage {name}"), conflict, cause: error.into() }
    }

    /// A failed creation. Not a conflict even for 409: the other object stays, so an immediate retry would fail again.
    pub(super) fn create(what: &str, name: &str, error: kube_client::Error) -> Self {
        Self { attempted: format!("create the {what} {name}"), conflict: false, cause: error.into() }
    }

    pub(super) fn encode(name: &str, error: serde_json::Error) -> Self {
        Self {
            attempted: format!("encode the status of CachedImage {name}"),
            conflict: false,
            cause: error.into(),
        }
    }

    /// Whether another writer changed or deleted the object, so that it is planned again from its current version.
    pub(super) fn is_conflict(&self) -> bool {
        self.conflict
    }
}
