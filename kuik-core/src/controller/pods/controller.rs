//! Wanted image controller: creates the CachedImage and the Repository of every wanted image, by default of those that
//! pods use.
//!
//! Missing objects are created, existing ones never changed: user edits are preserved. An image that has its object
//! costs no request, so that neither a start nor an election causes writes for existing objects.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube_client::{Api, Client, api::PostParams};
use kube_core::Resource as _;
use kube_runtime::reflector::ObjectRef;
use tokio::{sync::Mutex, time::Instant};

use super::{WantedImage, WantedImages};
use crate::controller::{
    ApiError, ApiErrorKind, FIELD_MANAGER, Informer, Outcome, WorkQueue, repository,
    runtime::objects::{self, Lookup},
};
use crate::{
    crd::{
        CachedImage, REPOSITORY_FINALIZER, Repository, RepositorySpec, RepositoryStatus, cached_image_name,
        disambiguated,
    },
    reference::{ImageReference, RepositoryName},
};

/// Number of concurrent creations.
const WORKERS: usize = 8;

/// How long a created object may be missing from the informer before it is looked up or created again.
const NOT_SEEN_YET: Duration = Duration::from_secs(10);

/// Delay before checking again whether an object being deleted is gone.
const GOING: Duration = Duration::from_secs(5);

/// Creates the objects of the images that pods use, or another source of [`WantedImages`].
pub struct PodImageController {
    client: Client,
    wanted: Arc<dyn WantedImages>,
    images: Informer<CachedImage>,
    repositories: Informer<Repository>,
    /// Created Repositories that the informer has not received yet, with their creation time. One missing for too long
    /// was deleted.
    made: Mutex<HashMap<RepositoryName, (OwnerReference, Instant)>>,
    /// Likewise the names of created CachedImages: pods of one image tend to arrive together.
    made_images: parking_lot::Mutex<HashMap<String, Instant>>,
}

/// State of the owning Repository.
enum Owner {
    Active(OwnerReference),
    /// It is being deleted: no image is added to it.
    Terminating,
}

impl PodImageController {
    /// Creates a controller that creates objects through `client` for the `wanted` images: those of pods
    /// ([`PodImages`](super::PodImages)), or of your own source.
    #[must_use]
    pub fn new(
        client: Client,
        wanted: Arc<dyn WantedImages>,
        images: Informer<CachedImage>,
        repositories: Informer<Repository>,
    ) -> Self {
        Self {
            client,
            wanted,
            images,
            repositories,
            made: Mutex::default(),
            made_images: parking_lot::Mutex::default(),
        }
    }

    /// Creates missing objects, forever.
    pub async fn run(&self) {
        // Wait until everything is synced: otherwise an object not yet received would be created again.
        let (images, repositories) = (self.images.store(), self.repositories.store());
        let known = futures::future::try_join(images.wait_until_ready(), repositories.wait_until_ready());
        if known.await.is_err() {
            return;
        }
        self.wanted.ready().await;
        let queue = WorkQueue::default();
        let work = queue.work(WORKERS, |image: Arc<str>| async move { self.reconcile(&image).await });
        tokio::select! {
            () = work => {}
            () = self.listen(&queue) => {}
        }
    }

    async fn listen(&self, queue: &WorkQueue<Arc<str>>) {
        let mut wanted = self.wanted.changes();
        let mut images = self.images.changes();
        loop {
            tokio::select! {
                Some(change) = wanted.next() => match change {
                    Some(image) => queue.push(image),
                    None => self.push_where(queue, |_| true),
                },
                // A deleted object is recreated if its image is wanted.
                Some(object) = images.next() => {
                    self.made_images.lock().remove(&object.name);
                    if self.images.store().get(&object).is_none() {
                        self.push_where(queue, |image| image.can_be_called(&object.name));
                    }
                },
                else => return,
            }
        }
    }

    fn push_where(&self, queue: &WorkQueue<Arc<str>>, chosen: impl Fn(&WantedImage) -> bool) {
        let images = self.wanted.all();
        images.iter().filter(|image| chosen(image)).for_each(|image| queue.push(image.normalized.clone()));
    }

    async fn reconcile(&self, image: &str) -> Outcome {
        let Some(wanted) = self.wanted.get(image) else { return Outcome::Done };
        match self.ensure(&wanted).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::warn!(%image, error = &error as &dyn std::error::Error, "failed to create CachedImage, retrying");
                error.outcome()
            }
        }
    }

    async fn ensure(&self, wanted: &WantedImage) -> Result<Outcome, ApiError> {
        let Ok(reference) = ImageReference::parse(&wanted.written) else { return Ok(Outcome::Done) };
        let name = match objects::cached_image(&self.images.store(), &reference) {
            // If it is being deleted, the informer reports when it is gone.
            Lookup::Existing(_) => return Ok(Outcome::Done),
            Lookup::Vacant(name) if self.is_just_made(&name) => return Ok(Outcome::Again(NOT_SEEN_YET)),
            Lookup::Vacant(name) => name,
        };
        let owner = match self.repository(&wanted.repository).await? {
            Owner::Active(owner) => owner,
            Owner::Terminating => return Ok(Outcome::Again(GOING)),
        };
        if self.create_image(&name, wanted, &owner).await? {
            return Ok(Outcome::Done);
        }
        // Another image has taken the name since.
        let hashed = disambiguated(&wanted.normalized);
        Ok(if self.create_image(&hashed, wanted, &owner).await? { Outcome::Done } else { Outcome::Failed })
    }

    /// Whether the informer may still receive a CachedImage that was created under this name.
    fn is_just_made(&self, name: &str) -> bool {
        self.made_images.lock().get(name).is_some_and(|at| at.elapsed() < NOT_SEEN_YET)
    }

    /// Creates a CachedImage. Returns whether the object of that name now exists and has this image.
    async fn create_image(
        &self,
        name: &str,
        wanted: &WantedImage,
        owner: &OwnerReference,
    ) -> Result<bool, ApiError> {
        let api: Api<CachedImage> = Api::all(self.client.clone());
        let attempted = || format!("create the CachedImage {name}");
        let Some(object) = cached_image(name, wanted, owner) else { return Ok(true) };
        match api.create(&params(), &object).await {
            Ok(_) => {
                self.note_made(name);
                return Ok(true);
            }
            Err(error) => {
                let error = ApiError::new(attempted(), error);
                if error.kind() != ApiErrorKind::AlreadyExists {
                    return Err(error);
                }
            }
        }
        let there = api.get_opt(name).await;
        let there = there.map_err(|error| ApiError::new(format!("read the CachedImage {name}"), error))?;
        Ok(there.is_some_and(|object| objects::is_of_image(&object, &wanted.normalized)))
    }

    /// Remembers a created CachedImage until the informer receives it.
    fn note_made(&self, name: &str) {
        let mut made = self.made_images.lock();
        made.retain(|_, at| at.elapsed() < NOT_SEEN_YET);
        if self.images.store().get(&ObjectRef::new(name)).is_none() {
            made.insert(name.to_owned(), Instant::now());
        }
    }

    /// Returns the Repository, creating it if it is missing.
    async fn repository(&self, repository: &RepositoryName) -> Result<Owner, ApiError> {
        // Serialized: the images of one repository tend to arrive together.
        let mut made = self.made.lock().await;
        let name = match objects::repository(&self.repositories.store(), repository) {
            Lookup::Existing(object) => {
                made.remove(repository);
                return Ok(owner(&object));
            }
            Lookup::Vacant(name) => name,
        };
        made.retain(|_, (_, at)| at.elapsed() < NOT_SEEN_YET);
        if let Some((owner, _)) = made.get(repository) {
            return Ok(Owner::Active(owner.clone()));
        }
        let mut found = self.create_repository(&name, repository).await?;
        if found.is_none() {
            let hashed = disambiguated(&repository.to_string());
            found = self.create_repository(&hashed, repository).await?;
        }
        let Some(object) = found else { return Ok(Owner::Terminating) };
        let owner = owner(&object);
        if let Owner::Active(owner) = &owner {
            made.insert(repository.clone(), (owner.clone(), Instant::now()));
        }
        Ok(owner)
    }

    /// Returns the Repository object of that name, creating it if missing; `None` if it belongs to another repository.
    async fn create_repository(
        &self,
        name: &str,
        repository: &RepositoryName,
    ) -> Result<Option<Repository>, ApiError> {
        let api: Api<Repository> = Api::all(self.client.clone());
        let attempted = || format!("create the Repository {name}");
        match api.create(&params(), &repository_object(name, repository)).await {
            Ok(object) => {
                self.write_secrets(name, repository).await?;
                return Ok(Some(object));
            }
            Err(error) => {
                let error = ApiError::new(attempted(), error);
                if error.kind() != ApiErrorKind::AlreadyExists {
                    return Err(error);
                }
            }
        }
        let there = api.get_opt(name).await;
        let there = there.map_err(|error| ApiError::new(format!("read the Repository {name}"), error))?;
        Ok(there.filter(|object| objects::is_of_repository(object, repository)))
    }

    /// Writes the pull secrets of a new Repository into its status, before the first pull. Costs no request if there
    /// are none.
    async fn write_secrets(&self, name: &str, repository: &RepositoryName) -> Result<(), ApiError> {
        let secrets = self.wanted.pull_secrets(repository);
        if secrets.is_empty() {
            return Ok(());
        }
        let status = RepositoryStatus { pull_secrets: Some(secrets), ..RepositoryStatus::default() };
        repository::write_status(&self.client, name, None, None, &status).await
    }
}

impl WantedImage {
    /// Returns whether a CachedImage of the image can have this name.
    fn can_be_called(&self, name: &str) -> bool {
        let plain = ImageReference::parse(&self.written).is_ok_and(|image| cached_image_name(&image) == name);
        plain || disambiguated(&self.normalized) == name
    }
}

fn owner(object: &Repository) -> Owner {
    match object.owner_ref(&()) {
        Some(owner) if object.metadata.deletion_timestamp.is_none() => Owner::Active(owner),
        _ => Owner::Terminating,
    }
}

/// Returns the object of an image; `None` if the image does not parse.
fn cached_image(name: &str, wanted: &WantedImage, owner: &OwnerReference) -> Option<CachedImage> {
    let mut object = CachedImage::of(&ImageReference::parse(&wanted.written).ok()?);
    object.metadata.name = Some(name.to_owned());
    object.metadata.owner_references = Some(vec![owner.clone()]);
    Some(object)
}

fn repository_object(name: &str, repository: &RepositoryName) -> Repository {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        finalizers: Some(vec![REPOSITORY_FINALIZER.to_owned()]),
        ..ObjectMeta::default()
    };
    let spec = RepositorySpec { name: repository.to_string(), ..RepositorySpec::default() };
    Repository { metadata, spec, status: None }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

impl fmt::Debug for PodImageController {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodImageController").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}
