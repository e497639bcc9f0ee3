//! Plan execution: carries out the steps of a plan, in order.
//!
//! Invariant: every write uses optimistic concurrency. It applies to the version of the object that the plan was made
//! for, or to the result of the previous write of the same plan. On a conflict nothing is written, and the object is
//! planned again.

use jiff::Timestamp;
use kube_client::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use kube_core::{ObjectMeta, Resource as _, ResourceExt as _};
use serde_json::Value;

use super::{
    Context,
    error::ReconcileError,
    events,
    observe::{Snapshot, share_tag},
    patch,
};
use crate::{
    controller::cached_image::plan::{JobResult, Step},
    copy::SourceImage,
    crd::{CachedImage, CachedImageSpec, Repository, RepositorySpec},
    reference::{ImageReference, RepositoryName},
};

/// Carries out `steps` on `object`. Returns when to plan again.
pub(super) async fn execute(
    context: &Context,
    object: &CachedImage,
    snapshot: &Snapshot,
    steps: Vec<Step>,
    now: Timestamp,
) -> Result<Option<Timestamp>, ReconcileError> {
    let api: Api<CachedImage> = Api::all(context.client.clone());
    let mut work = Work {
        context,
        api,
        snapshot,
        object: object.clone(),
        outcome: snapshot.observed.outcome.clone(),
        now,
    };
    let mut wake = None;
    for step in steps {
        if let Step::WakeAt(at) = step {
            wake = Some(at);
        } else {
            work.carry_out(step).await?;
        }
    }
    Ok(wake)
}

struct Work<'a> {
    context: &'a Context,
    api: Api<CachedImage>,
    snapshot: &'a Snapshot,
    /// The object after the writes so far.
    object: CachedImage,
    outcome: Option<JobResult>,
    now: Timestamp,
}

impl Work<'_> {
    async fn carry_out(&mut self, step: Step) -> Result<(), ReconcileError> {
        let name = self.object.name_any();
        let version = self.object.resource_version().unwrap_or_default();
        match step {
            Step::Adopt { finalizer, label, owner } => {
                let repository = &self.snapshot.observed.siblings.repository_name;
                let owner = owner.as_deref().map(|uid| (repository.as_str(), uid));
                let patch = patch::adopt(&self.object, &version, finalizer, label.as_deref(), owner);
                self.patch("adopt", &patch).await?;
            }
            Step::SetExpiry(date) => self.patch("set expiresAt of", &patch::expiry(&version, date)).await?,
            Step::ClearForceUpdate => {
                self.patch("remove the forceUpdate annotation of", &patch::clear_force_update(&version))
                    .await?;
            }
            Step::RemoveFinalizer => {
                self.patch("remove the finalizer of", &patch::release(&self.object, &version)).await?;
                self.context.jobs.forget(&name);
            }
            Step::SetStatus(status) => {
                let patch = patch::status(&self.object, &version, &status, self.now);
                if let Some(patch) = patch.map_err(|error| ReconcileError::encode(&name, error))? {
                    let params = PatchParams::default();
                    let written = self.api.patch_status(&name, &params, &Patch::Merge(&patch)).await;
                    self.object =
                        written.map_err(|error| ReconcileError::api("set the status of", &name, error))?;
                }
            }
            Step::Recreate { name: right } => self.recreate(&right).await?,
            Step::Untag { image } => self.untag(&image),
            Step::DeleteDuplicate => self.delete().await?,
            Step::Expire => self.expire().await?,
            Step::CreateRepository { name } => self.create_repository(&name).await?,
            Step::Start(job) => {
                if let (Some(image), Some(reference)) = (&self.snapshot.image, &self.snapshot.observed.image)
                {
                    self.context.jobs.start(&name, job, image.clone(), reference);
                }
            }
            Step::Abandon => self.context.jobs.abandon(&name),
            Step::Remember(memory) => self.context.jobs.remember(&name, self.outcome.as_ref(), memory),
            Step::EmitEvent(kind) => {
                let registry = self.snapshot.repository.as_ref().map_or("", RepositoryName::registry);
                let Context { events, metrics, .. } = self.context;
                events::record(&**events, metrics, &self.object, registry, &kind);
            }
            Step::WakeAt(_) => {}
        }
        Ok(())
    }

    async fn patch(&mut self, what: &'static str, patch: &Value) -> Result<(), ReconcileError> {
        let name = self.object.name_any();
        let written = self.api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        self.object = written.map_err(|error| ReconcileError::api(what, &name, error))?;
        Ok(())
    }

    /// Deletes the object if it has not changed since it was read.
    async fn delete(&self) -> Result<(), ReconcileError> {
        let name = self.object.name_any();
        let preconditions =
            Preconditions { resource_version: self.object.resource_version(), uid: self.object.uid() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.api.delete(&name, &params).await {
            Err(kube_client::Error::Api(status)) if status.is_not_found() => Ok(()),
            deleted => deleted.map(drop).map_err(|error| ReconcileError::api("delete", &name, error)),
        }
    }

    async fn expire(&self) -> Result<(), ReconcileError> {
        let emit = |warning, reason, message: String| {
            events::event(&*self.context.events, &self.object, warning, reason, &message);
        };
        let image = &self.object.spec.source_image;
        emit(false, "Expiring", format!("{image} is unused and past its expiry date"));
        let deleted = self.delete().await;
        match &deleted {
            Ok(()) => {
                emit(false, "Expired", format!("deleted {image}: unused past its expiry date"));
            }
            // Another writer changed the object, and the image may be needed again.
            Err(error) if error.is_conflict() => {}
            Err(error) => emit(true, "ExpiringFailed", format!("failed to delete expired {image}: {error}")),
        }
        deleted
    }

    /// Creates the object of the same image under its canonical name, unless it exists already.
    async fn recreate(&self, right: &str) -> Result<(), ReconcileError> {
        let CachedImageSpec { source_image, expires_at, retain } = self.object.spec.clone();
        let annotations = self.object.meta().annotations.clone().map(|mut annotations| {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            annotations
        });
        let owners = self.object.meta().owner_references.iter().flatten();
        let owners: Vec<_> = owners.filter(|owner| !patch::is_repository(owner)).cloned().collect();
        let metadata = ObjectMeta {
            name: Some(right.to_owned()),
            annotations,
            labels: self.object.meta().labels.clone(),
            owner_references: (!owners.is_empty()).then_some(owners),
            ..ObjectMeta::default()
        };
        let spec = CachedImageSpec { source_image, expires_at, retain };
        let created = CachedImage { metadata, spec, status: None };
        match self.api.create(&PostParams::default(), &created).await {
            Ok(_) => Ok(()),
            Err(kube_client::Error::Api(status))
                if status.is_already_exists() && self.is_of_this_image(right).await =>
            {
                Ok(())
            }
            Err(error) => Err(ReconcileError::create("CachedImage", right, error)),
        }
    }

    /// Removes an image's tag in the background, unless an object still needs it or a pod uses it (and will get an
    /// object soon).
    fn untag(&self, normalized: &str) {
        let parsed = ImageReference::parse(normalized).ok();
        let Some(image) = parsed.and_then(|reference| SourceImage::new(&reference).ok()) else { return };
        let (images, usage) = (self.context.images.store(), self.context.usage.clone());
        let (normalized, wanted) = (normalized.to_owned(), image.clone());
        let is_needed = move || {
            let is_used = usage.of(&normalized).is_none_or(|usage| usage.count > 0);
            is_used || share_tag(&images, None, &wanted)
        };
        self.context.jobs.untag(image, is_needed);
    }

    async fn is_of_this_image(&self, name: &str) -> bool {
        let Ok(Some(object)) = self.api.get_opt(name).await else { return false };
        let same = ImageReference::parse(&object.spec.source_image)
            .is_ok_and(|reference| Some(reference.normalized()) == self.snapshot.observed.image);
        same && object.meta().deletion_timestamp.is_none()
    }

    async fn create_repository(&self, name: &str) -> Result<(), ReconcileError> {
        let Some(repository) = &self.snapshot.repository else { return Ok(()) };
        let spec = RepositorySpec { name: repository.to_string(), ..RepositorySpec::default() };
        let api: Api<Repository> = Api::all(self.context.client.clone());
        match api.create(&PostParams::default(), &Repository::new(name, spec)).await {
            Err(kube_client::Error::Api(status)) if status.is_already_exists() => Ok(()),
            created => created.map(drop).map_err(|error| ReconcileError::create("Repository", name, error)),
        }
    }
}
