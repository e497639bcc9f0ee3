//! What a [`ScriptedRegistry`](super::ScriptedRegistry) was asked, and what it sent.

use http::{HeaderMap, HeaderName, Method, StatusCode};
use tokio::sync::watch;

use super::Target;

/// A request, and how far its answer has come.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Logged {
    /// What it is about.
    pub target: Target,
    /// Its method.
    pub method: Method,
    /// Its path, without the query.
    pub path: String,
    /// Its query; empty where there is none.
    pub query: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// The body that it had.
    pub body: String,
    /// Whether a rule of the script was applied, which may be [`Behaviour::Normal`](super::Behaviour::Normal).
    pub scripted: bool,
    /// The status of the answer, once there is one.
    pub status: Option<StatusCode>,
    /// How many bytes of the answer's body have been handed to the connection.
    pub bytes_sent: u64,
    /// Whether the answer's body has ended, or was given up by either side.
    pub finished: bool,
}

impl Logged {
    /// A header of the request as text; empty where there is none.
    #[must_use]
    pub fn header(&self, name: HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// The log, which can be waited for.
#[derive(Debug)]
pub(super) struct Log(watch::Sender<Vec<Logged>>);

impl Default for Log {
    fn default() -> Self {
        Self(watch::Sender::new(Vec::new()))
    }
}

impl Log {
    /// Adds an entry; returns its number.
    pub(super) fn add(&self, entry: Logged) -> usize {
        let mut number = 0;
        self.0.send_modify(|log| {
            number = log.len();
            log.push(entry);
        });
        number
    }

    pub(super) fn update(&self, number: usize, change: impl FnOnce(&mut Logged)) {
        self.0.send_modify(|log| {
            if let Some(entry) = log.get_mut(number) {
                change(entry);
            }
        });
    }

    pub(super) fn entries(&self) -> Vec<Logged> {
        self.0.borrow().clone()
    }

    pub(super) async fn wait_for(&self, mut condition: impl FnMut(&[Logged]) -> bool) -> Vec<Logged> {
        match self.0.subscribe().wait_for(|log| condition(log)).await {
            Ok(log) => log.clone(),
            Err(_) => self.entries(),
        }
    }
}
