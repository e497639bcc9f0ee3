//! Reconciler of Repositories: watches their dependencies and carries out their plans.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use kube_client::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use kube_core::Resource as _;
use kube_runtime::reflector::{ObjectRef, Store};
use serde_json::{Value, json};

use super::{
    plan::{Finalizer, Happened, Observed, Plan, plan},
    secrets,
};
use crate::{
    controller::{
        ApiError, ApiErrorKind, Event, EventRecorder, FIELD_MANAGER, Informer, Outcome, WorkQueue,
        pods::{PodChange, PodTracker, service_accounts::SlimAccount},
        runtime::objects,
    },
    crd::{CachedImage, REPOSITORY_FINALIZER, Repository, RepositoryStatus},
    reference::{ImageReference, RepositoryName},
};

/// Debounce interval of the status.
const PAUSE: Duration = Duration::from_secs(3);

/// Number of concurrent reconciles.
const WORKERS: usize = 4;

/// Reconciles Repositories. Cheap to clone.
#[derive(Clone)]
pub struct RepositoryController {
    client: Client,
    repositories: Informer<Repository>,
    images: Informer<CachedImage>,
    accounts: Informer<SlimAccount>,
    pods: PodTracker,
    events: Arc<dyn EventRecorder>,
}

impl RepositoryController {
    /// Creates a controller that writes through `client`.
    #[must_use]
    pub fn new(
        client: Client,
        repositories: Informer<Repository>,
        images: Informer<CachedImage>,
        accounts: Informer<SlimAccount>,
        pods: PodTracker,
        events: Arc<dyn EventRecorder>,
    ) -> Self {
        Self { client, repositories, images, accounts, pods, events }
    }

    /// Reconciles Repositories, forever.
    pub async fn run(&self) {
        let queue = WorkQueue::default();
        // Wait until everything is synced: otherwise the status would omit images not yet received.
        let (repositories, images, accounts) =
            (self.repositories.store(), self.images.store(), self.accounts.store());
        let known = futures::future::try_join3(
            repositories.wait_until_ready(),
            images.wait_until_ready(),
            accounts.wait_until_ready(),
        );
        if known.await.is_err() {
            return;
        }
        let work = queue.work(WORKERS, |name: String| self.reconcile(name));
        tokio::select! {
            () = work => {}
            () = self.listen(&queue) => {}
        }
    }

    /// Queues the Repositories that a change concerns.
    async fn listen(&self, queue: &WorkQueue<String>) {
        let mut repositories = self.repositories.changes();
        let mut images = self.images.changes();
        let mut accounts = self.accounts.changes();
        let mut pods = Box::pin(self.pods.changes());
        // Remembers the Repository of each image, for images that are deleted.
        let mut of_image: BTreeMap<String, String> = BTreeMap::new();
        loop {
            tokio::select! {
                Some(object) = repositories.next() => match self.repositories.store().get(&object) {
                    Some(repository) if is_new(&repository) => queue.push_after(object.name, PAUSE),
                    _ => queue.push(object.name),
                },
                Some(object) = images.next() => {
                    let image = self.images.store().get(&object);
                    let repository = match &image {
                        Some(image) => self.repository_of(image),
                        None => of_image.remove(&object.name),
                    };
                    let Some(repository) = repository else { continue };
                    queue.push_after(repository.clone(), PAUSE);
                    if image.is_some() {
                        of_image.insert(object.name, repository);
                    }
                },
                Some(account) = accounts.next() => {
                    let namespace = account.namespace.unwrap_or_default();
                    let of = self.pods.read(|index| index.repositories_of(&namespace, &account.name));
                    for repository in of.into_iter().flatten() {
                        self.push(queue, &repository);
                    }
                },
                Some(change) = pods.next() => match change {
                    PodChange::Repository(repository) => self.push(queue, &repository),
                    PodChange::Known => {
                        for repository in self.repositories.store().state() {
                            queue.push(repository.metadata.name.clone().unwrap_or_default());
                        }
                    }
                    PodChange::Image(_) => {}
                },
                else => return,
            }
        }
    }

    fn push(&self, queue: &WorkQueue<String>, repository: &RepositoryName) {
        if let objects::Lookup::Existing(object) = objects::repository(&self.repositories.store(), repository)
        {
            queue.push(object.metadata.name.clone().unwrap_or_default());
        }
    }

    /// Returns the name of the Repository that an image belongs to.
    fn repository_of(&self, image: &CachedImage) -> Option<String> {
        let repository = ImageReference::parse(&image.spec.source_image).ok()?.repository();
        match objects::repository(&self.repositories.store(), &repository) {
            objects::Lookup::Existing(object) => object.metadata.name.clone(),
            objects::Lookup::Vacant(_) => None,
        }
    }

    async fn reconcile(&self, name: String) -> Outcome {
        let Some(repository) = self.repositories.store().get(&ObjectRef::new(&name)) else {
            return Outcome::Done;
        };
        let images = self.images_of(&repository);
        let images: Vec<&CachedImage> = images.iter().map(AsRef::as_ref).collect();
        let own = repository.spec.name.parse::<RepositoryName>().ok();
        let pull_secrets = own.and_then(|own| pull_secrets(&self.pods, &self.accounts.store(), &own));
        let plan =
            plan(&Observed { repository: &repository, images: &images, pull_secrets }, Timestamp::now());
        match self.carry_out(&repository, &plan).await {
            Ok(()) => plan.again.map_or(Outcome::Done, Outcome::Again),
            // It was deleted or changed: it is planned again from the new state.
            Err(error) if error.kind() == ApiErrorKind::NotFound => Outcome::Done,
            Err(error) if error.kind() == ApiErrorKind::Conflict => Outcome::Again(Duration::from_secs(1)),
            Err(error) => {
                tracing::warn!(repository = %name, error = &error as &dyn std::error::Error, "failed to reconcile Repository, retrying");
                error.outcome()
            }
        }
    }

    /// Returns its CachedImages. If several objects are of one repository, only one owns the images; deleting the
    /// others does not affect them.
    fn images_of(&self, repository: &Repository) -> Vec<Arc<CachedImage>> {
        let Ok(own) = repository.spec.name.parse::<RepositoryName>() else { return Vec::new() };
        match objects::repository(&self.repositories.store(), &own) {
            objects::Lookup::Existing(object) if object.metadata.name == repository.metadata.name => {}
            _ => return Vec::new(),
        }
        let mut images = self.images.store().state_filter(|image| {
            ImageReference::parse(&image.spec.source_image).is_ok_and(|image| image.repository() == own)
        });
        images.sort_unstable_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        images
    }

    async fn carry_out(&self, repository: &Repository, plan: &Plan) -> Result<(), ApiError> {
        let name = repository.metadata.name.as_deref().unwrap_or_default();
        let api: Api<Repository> = Api::all(self.client.clone());
        let mut version = repository.metadata.resource_version.clone();
        if let Some(change) = plan.finalizer {
            let patch = Patch::Merge(finalizers(repository, change));
            let patched = api.patch(name, &writes(), &patch).await.map_err(|error| {
                ApiError::new(format!("change the finalizers of the Repository {name}"), error)
            })?;
            version = patched.metadata.resource_version;
        }
        // The event precedes the write that would prevent its repetition: it may be sent twice but is not lost.
        if let Some(happened) = plan.event {
            self.events.record(event(repository, happened));
        }
        if let Some(status) = &plan.status {
            write_status(&self.client, name, version.as_deref(), repository.status.as_ref(), status).await?;
        }
        let images: Api<CachedImage> = Api::all(self.client.clone());
        for image in &plan.delete {
            match images.delete(image, &DeleteParams::default()).await {
                Err(kube_client::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(ApiError::new(format!("delete the CachedImage {image}"), error)),
                Ok(_) => {}
            }
        }
        Ok(())
    }
}

/// Returns whether it was created a moment ago and needs no change: its images are being created too, and its first
/// status should cover all of them.
fn is_new(repository: &Repository) -> bool {
    let metadata = &repository.metadata;
    let is_ours = metadata.finalizers.iter().flatten().any(|finalizer| finalizer == REPOSITORY_FINALIZER);
    let says = repository.status.as_ref().and_then(|status| status.phase);
    is_ours && metadata.deletion_timestamp.is_none() && says.is_none()
}

/// Returns the pull secrets that pods use for a repository; `None` if unknown.
pub(in crate::controller) fn pull_secrets(
    pods: &PodTracker,
    accounts: &Store<SlimAccount>,
    repository: &RepositoryName,
) -> Option<Vec<crate::crd::PullSecret>> {
    pods.read(|index| secrets::of_pods(index, accounts, repository)).flatten()
}

/// Writes the changed fields of a Repository's status. With a `version`, only to that version: lists are replaced as a
/// whole.
pub(in crate::controller) async fn write_status(
    client: &Client,
    name: &str,
    version: Option<&str>,
    before: Option<&RepositoryStatus>,
    status: &RepositoryStatus,
) -> Result<(), ApiError> {
    let api: Api<Repository> = Api::all(client.clone());
    let status = difference(before, status);
    let patch = Patch::Merge(match version {
        Some(version) => json!({ "metadata": { "resourceVersion": version }, "status": status }),
        None => json!({ "status": status }),
    });
    let written = api.patch_status(name, &writes(), &patch).await;
    written.map_err(|error| ApiError::new(format!("write the status of the Repository {name}"), error))?;
    Ok(())
}

/// Returns the fields of `after` that differ from `before` as a merge patch; fields only in `before` are not included.
fn difference(before: Option<&RepositoryStatus>, after: &RepositoryStatus) -> Value {
    let fields = |status: &RepositoryStatus| match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let before = before.map(fields).unwrap_or_default();
    let after = fields(after);
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let gone: Vec<_> = gone.collect();
    after.into_iter().filter(|(key, value)| before.get(key) != Some(value)).chain(gone).collect()
}

fn finalizers(repository: &Repository, change: Finalizer) -> Value {
    let old = repository.metadata.finalizers.iter().flatten();
    let mut finalizers: Vec<&str> =
        old.map(String::as_str).filter(|finalizer| *finalizer != REPOSITORY_FINALIZER).collect();
    if change == Finalizer::Add {
        finalizers.push(REPOSITORY_FINALIZER);
    }
    // Only for this version: a list is replaced as a whole.
    let version = &repository.metadata.resource_version;
    json!({ "metadata": { "resourceVersion": version, "finalizers": finalizers } })
}

fn writes() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

fn event(repository: &Repository, happened: Happened) -> Event {
    let (reason, message) = match happened {
        Happened::Terminating => ("Terminating", "deleting its CachedImages first"),
        Happened::UpToDate => ("UpToDate", "all matching images have been checked"),
    };
    Event { about: repository.object_ref(&()), warning: false, reason, message: message.to_owned() }
}

impl fmt::Debug for RepositoryController {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepositoryController")
            .field("repositories", &self.repositories)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::RepositoryPhase;

    #[test]
    fn status_patch_contains_only_changed_fields() {
        let before = RepositoryStatus {
            images: Some(1),
            phase: Some(RepositoryPhase::Pulling),
            pull_secrets: Some(Vec::new()),
            ..RepositoryStatus::default()
        };
        let after = RepositoryStatus {
            images: Some(1),
            phase: Some(RepositoryPhase::Ready),
            ..RepositoryStatus::default()
        };
        assert_eq!(difference(Some(&before), &after), json!({ "phase": "Ready", "pullSecrets": null }));
        assert_eq!(difference(None, &after), json!({ "phase": "Ready", "images": 1 }));
    }
}
