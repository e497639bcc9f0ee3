//! Event recorder for the Kubernetes API: sends events one at a time and drops those that fail.

use k8s_openapi::{
    api::events::v1::Event as ApiEvent,
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube_client::{Api, Client, api::PostParams};
use tokio::sync::mpsc;

use crate::controller::{ApiError, Event, EventRecorder, FIELD_MANAGER};

/// Queue capacity; further events are dropped.
const MOST_WAITING: usize = 1024;

/// Maximum message length of the API, in bytes.
const MAX_METADATA_BYTES: usize = 1024;

/// Maximum length of the object name within the event name, which may have 253 bytes.
const MAX_NAME_BYTES: usize = 220;

/// Namespace of events about cluster-scoped objects, by convention.
const NAMESPACE: &str = "default";

/// Sends events to the Kubernetes API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiEvents(mpsc::Sender<Event>);

impl ApiEvents {
    /// Returns a recorder, and a future that sends its events through `client` as the reporting `instance`. The future
    /// must be polled as long as events are recorded.
    pub fn new(client: Client, instance: impl Into<String>) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut receiver) = mpsc::channel(MOST_WAITING);
        let instance = instance.into();
        let work = async move {
            // Assumes a recent API release until an event is rejected.
            let mut old = false;
            while let Some(event) = receiver.recv().await {
                if let Err(error) = send(&client, &instance, event, &mut old).await {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "failed to send event, dropping it"
                    );
                }
            }
        };
        (Self(sender), work)
    }
}

impl EventRecorder for ApiEvents {
    fn record(&self, event: Event) {
        if self.0.try_send(event).is_err() {
            tracing::debug!("event queue full, dropping event");
        }
    }
}

/// Sends an event. Kubernetes 1.20 and older (`old`) treat objects of unknown kinds as namespaced, and require the
/// event to be in that namespace.
async fn send(client: &Client, instance: &str, event: Event, old: &mut bool) -> Result<(), ApiError> {
    let namespace = event.about.namespace.as_deref().unwrap_or(NAMESPACE).to_owned();
    let api: Api<ApiEvent> = Api::namespaced(client.clone(), &namespace);
    let mut event = api_event(event, &namespace, instance, Timestamp::now());
    let about = |event: &mut ApiEvent, old: bool| {
        if let Some(about) = event.regarding.as_mut().filter(|_| old) {
            about.namespace = Some(namespace.clone());
        }
    };
    about(&mut event, *old);
    let params = PostParams::default();
    let sent = match api.create(&params, &event).await {
        Err(kube_client::Error::Api(status)) if !*old && status.is_invalid() => {
            about(&mut event, true);
            let sent = api.create(&params, &event).await;
            *old = sent.is_ok();
            sent
        }
        sent => sent,
    };
    sent.map(drop).map_err(|error| ApiError::new("send an event", error))
}

fn api_event(event: Event, namespace: &str, instance: &str, now: Timestamp) -> ApiEvent {
    let Event { about, warning, reason, message } = event;
    let name = about.name.as_deref().unwrap_or_default();
    let name = name.get(..MAX_NAME_BYTES).unwrap_or(name).trim_end_matches(['.', '-']);
    let metadata = ObjectMeta {
        name: Some(format!("{name}.{:x}", now.as_nanosecond())),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    };
    ApiEvent {
        metadata,
        event_time: Some(MicroTime(now)),
        regarding: Some(about),
        action: Some(reason.to_owned()),
        reason: Some(reason.to_owned()),
        note: Some(truncated(&message, MAX_METADATA_BYTES).to_owned()),
        type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
        reporting_controller: Some(FIELD_MANAGER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..ApiEvent::default()
    }
}

/// The longest beginning of `text` that has at most `bytes` bytes.
fn truncated(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;

    #[test]
    fn event_is_truncated_to_api_limits() {
        let about = ObjectReference { name: Some("a.".repeat(126)), ..ObjectReference::default() };
        let event = Event { about, warning: true, reason: "CacheFailed", message: "é".repeat(1000) };
        let event = api_event(event, NAMESPACE, "pod", Timestamp::UNIX_EPOCH);
        assert!(event.metadata.name.unwrap().len() <= 253);
        assert_eq!(event.note.unwrap().len(), MAX_METADATA_BYTES);
        assert_eq!(event.type_.as_deref(), Some("Warning"));
    }
}
