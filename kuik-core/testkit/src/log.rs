//! Request log of a [`ScriptedRegistry`](super::ScriptedRegistry).

use http::{HeaderMap, HeaderName, Method, StatusCode};
use tokio::sync::watch;

use super::Target;

/// A logged request, with the progress of its response.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Logged {
    /// The requested kind of resource.
    pub target: Target,
    /// The request method.
    pub method: Method,
    /// The request path, without the query.
    pub path: String,
    /// The query; empty if there is none.
    pub query: String,
    /// The request headers.
    pub headers: HeaderMap,
    /// The request body.
    pub body: String,
    /// Whether a rule of the script was applied, which may be [`Behavior::Normal`](super::Behavior::Normal).
    pub scripted: bool,
    /// The status of the response, once it is sent.
    pub status: Option<StatusCode>,
    /// Number of body bytes written to the connection.
    pub bytes_sent: u64,
    /// Whether the response body is complete, or was aborted by either side.
    pub finished: bool,
}

impl Logged {
    /// Returns a request header as text; empty if there is none.
    #[must_use]
    pub fn header(&self, name: HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Log with a `wait_for` operation.
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
