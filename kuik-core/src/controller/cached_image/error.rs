//! Why a plan could not be carried out. It is made again after a while.

/// Why a plan could not be carried out.
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

    /// What is there already, or cannot be, stays so for a while: nobody was quicker.
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

    /// Whether somebody else was quicker, so that it is planned again from what is there now.
    pub(super) fn is_conflict(&self) -> bool {
        self.conflict
    }
}
