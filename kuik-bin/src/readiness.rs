//! One-time readiness check: a process is not ready before an event has happened once.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use kuik_proxy::serve::admin::ReadinessCheck;

/// A check that passes permanently once it is reached. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Milestone {
    name: &'static str,
    before: &'static str,
    reached: Arc<OnceLock<()>>,
}

impl Milestone {
    /// Creates a check called `name`, which fails with the message `before` until it is reached.
    #[must_use]
    pub fn new(name: &'static str, before: &'static str) -> Self {
        Self { name, before, reached: Arc::default() }
    }

    /// Marks it as reached.
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
