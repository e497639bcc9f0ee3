//! Events go to the Kubernetes API, one after the other, and are lost where it cannot take them.

use k8s_openapi::{
    api::events::v1::Event as ApiEvent,
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube_client::{Api, Client, api::PostParams};
use tokio::sync::mpsc;

use super::{ApiError, Event, EventRecorder, FIELD_MANAGER};

/// How many events wait to be sent; further ones are lost.
const MOST_WAITING: usize = 1024;

/// The longest message that the API takes, in bytes.
const MAX_NOTE_BYTES: usize = 1024;

/// How much of an object's name is in the name of its event, which may have 253 bytes.
const MAX_NAME_BYTES: usize = 220;

/// Where events about objects of no namespace are kept, as everybody does.
const NAMESPACE: &str = "default";

/// Sends events to the Kubernetes API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiEvents(mpsc::Sender<Event>);

impl ApiEvents {
    /// Takes events, and the work of sending them through `client` in the name of `instance`, the process: a future
    /// that is polled for as long as there may be events.
    pub fn new(client: Client, instance: impl Into<String>) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut receiver) = mpsc::channel(MOST_WAITING);
        let instance = instance.into();
        let work = async move {
            // Until one is refused, the API is taken to be of a recent release.
            let mut old = false;
            while let Some(event) = receiver.recv().await {
                if let Err(error) = send(&client, &instance, event, &mut old).await {
                    tracing::debug!(error = &error as &dyn std::error::Error, "an event is lost");
                }
            }
        };
        (Self(sender), work)
    }
}

impl EventRecorder for ApiEvents {
    fn record(&self, event: Event) {
        if self.0.try_send(event).is_err() {
            tracing::debug!("an event is lost: too many wait");
        }
    }
}

/// Sends an event. To releases as `old` as Kubernetes 1.20 every object of a kind that they do not know is in a namespace,
/// which has to be that of the event.
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
        note: Some(message.get(..message.floor_char_boundary(MAX_NOTE_BYTES)).unwrap_or_default().to_owned()),
        type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
        reporting_controller: Some(FIELD_MANAGER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..ApiEvent::default()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;

    #[test]
    fn an_event_fits_into_the_limits_of_the_api() {
        let about = ObjectReference { name: Some("a.".repeat(126)), ..ObjectReference::default() };
        let event = Event { about, warning: true, reason: "CacheFailed", message: "é".repeat(1000) };
        let event = api_event(event, NAMESPACE, "pod", Timestamp::UNIX_EPOCH);
        assert!(event.metadata.name.unwrap().len() <= 253);
        assert_eq!(event.note.unwrap().len(), MAX_NOTE_BYTES);
        assert_eq!(event.type_.as_deref(), Some("Warning"));
    }
}
