//! Something that happens once in the life of a process, and that it is not ready before.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use kuik_proxy::admin::ReadinessCheck;

/// Ready from when it is reached, for good. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Milestone {
    name: &'static str,
    before: &'static str,
    reached: Arc<OnceLock<()>>,
}

impl Milestone {
    /// One that operators know as `name`; what is said before it is reached is `before`.
    #[must_use]
    pub fn new(name: &'static str, before: &'static str) -> Self {
        Self { name, before, reached: Arc::default() }
    }

    /// It is reached.
    pub fn reached(&self) {
        let _ = self.reached.set(());
    }
}

#[async_trait]
impl ReadinessCheck for Milestone {
    fn name(&self) -> &str {
        self.name
    }

    async fn check(&self) -> Result<(), String> {
        self.reached.get().copied().ok_or_else(|| self.before.to_owned())
    }
}
