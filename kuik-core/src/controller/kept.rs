//! Every image that pods use has its CachedImage, and that one its Repository.
//!
//! Objects are made where they are missing, and never changed: what people write into them stays. An image that has its
//! object costs no request, so neither a start nor an election causes any writes for what is there.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube_client::{Api, Client, api::PostParams};
use kube_core::Resource as _;
use tokio::{sync::Mutex, time::Instant};

use super::{
    ApiError, ApiErrorKind, FIELD_MANAGER, Informer, Outcome, Queue,
    accounts::SlimAccount,
    objects::{self, Place},
    pods::{PodChange, PodTracker, WantedImage},
    repository,
};
use crate::{
    crd::{
        CACHED_IMAGE_FINALIZER, CachedImage, CachedImageSpec, REPOSITORY_FINALIZER, REPOSITORY_LABEL,
        Repository, RepositorySpec, RepositoryStatus, cached_image_name, disambiguated, repository_label,
    },
    reference::{ImageReference, RepositoryName},
};

/// How many objects are made at a time.
const WORKERS: usize = 8;

/// How long a Repository that was made may not be seen: after that it is asked for.
const NOT_SEEN_YET: Duration = Duration::from_secs(10);

/// How soon it is looked again whether an object that is being deleted is gone.
const GOING: Duration = Duration::from_secs(5);

/// Makes the objects of the images that pods use.
pub struct KeptImages {
    client: Client,
    pods: PodTracker,
    accounts: Informer<SlimAccount>,
    images: Informer<CachedImage>,
    repositories: Informer<Repository>,
    /// The Repositories that were made, until the informer knows them, and when: what is not seen for long is no more.
    made: Mutex<HashMap<RepositoryName, (OwnerReference, Instant)>>,
}

/// What an image's Repository is like.
enum Owner {
    There(OwnerReference),
    /// It is being deleted: nothing is made in it.
    Going,
}

impl KeptImages {
    /// Makes objects through `client`, for the images that `pods` use.
    #[must_use]
    pub fn new(
        client: Client,
        pods: PodTracker,
        accounts: Informer<SlimAccount>,
        images: Informer<CachedImage>,
        repositories: Informer<Repository>,
    ) -> Self {
        Self { client, pods, accounts, images, repositories, made: Mutex::default() }
    }

    /// Makes what is missing, for ever.
    pub async fn run(&self) {
        // Not before all is known: what is only not seen yet would be made a second time.
        let (images, repositories, accounts) =
            (self.images.store(), self.repositories.store(), self.accounts.store());
        let known = futures::future::try_join3(
            images.wait_until_ready(),
            repositories.wait_until_ready(),
            accounts.wait_until_ready(),
        );
        if known.await.is_err() {
            return;
        }
        let queue = Queue::default();
        let work = queue.work(WORKERS, |image: Arc<str>| async move { self.reconcile(&image).await });
        tokio::select! {
            () = work => {}
            () = self.listen(&queue) => {}
        }
    }

    async fn listen(&self, queue: &Queue<Arc<str>>) {
        let mut pods = Box::pin(self.pods.changes());
        let mut images = self.images.changes();
        loop {
            tokio::select! {
                Some(change) = pods.next() => match change {
                    PodChange::Image(image) => queue.push(image),
                    PodChange::Known => self.push_where(queue, |_| true),
                    PodChange::Repository(_) => {}
                },
                // One that is gone is made again, where a pod uses its image.
                Some(object) = images.next() => {
                    if self.images.store().get(&object).is_none() {
                        self.push_where(queue, |image| image.can_be_called(&object.name));
                    }
                },
                else => return,
            }
        }
    }

    fn push_where(&self, queue: &Queue<Arc<str>>, chosen: impl Fn(&WantedImage) -> bool) {
        self.pods.read(|index| {
            let images = index.images().filter(|image| chosen(image));
            images.for_each(|image| queue.push(image.normalized.clone()));
        });
    }

    async fn reconcile(&self, image: &str) -> Outcome {
        let Some(wanted) = self.pods.read(|index| index.image(image).cloned()).flatten() else {
            return Outcome::Done;
        };
        match self.ensure(&wanted).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::warn!(%image, error = &error as &dyn std::error::Error, "an image is not kept");
                error.outcome()
            }
        }
    }

    async fn ensure(&self, wanted: &WantedImage) -> Result<Outcome, ApiError> {
        let Ok(reference) = ImageReference::parse(&wanted.written) else { return Ok(Outcome::Done) };
        let name = match objects::cached_image(&self.images.store(), &reference) {
            // Where it is being deleted, its end is heard of.
            Place::Here(_) => return Ok(Outcome::Done),
            Place::Free(name) => name,
        };
        let owner = match self.repository(&wanted.repository).await? {
            Owner::There(owner) => owner,
            Owner::Going => return Ok(Outcome::Again(GOING)),
        };
        if self.create_image(&name, wanted, &owner).await? {
            return Ok(Outcome::Done);
        }
        // Another image has got the name since.
        let hashed = disambiguated(&wanted.normalized);
        Ok(if self.create_image(&hashed, wanted, &owner).await? { Outcome::Done } else { Outcome::Failed })
    }

    /// Makes a CachedImage; whether it is there then, and that of this image.
    async fn create_image(
        &self,
        name: &str,
        wanted: &WantedImage,
        owner: &OwnerReference,
    ) -> Result<bool, ApiError> {
        let api: Api<CachedImage> = Api::all(self.client.clone());
        let attempted = || format!("create the CachedImage {name}");
        match api.create(&params(), &cached_image(name, wanted, owner)).await {
            Ok(_) => return Ok(true),
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

    /// The Repository, which is made where it is missing.
    async fn repository(&self, repository: &RepositoryName) -> Result<Owner, ApiError> {
        // One at a time: the images of one repository tend to come together.
        let mut made = self.made.lock().await;
        let name = match objects::repository(&self.repositories.store(), repository) {
            Place::Here(object) => {
                made.remove(repository);
                return Ok(owner(&object));
            }
            Place::Free(name) => name,
        };
        made.retain(|_, (_, at)| at.elapsed() < NOT_SEEN_YET);
        if let Some((owner, _)) = made.get(repository) {
            return Ok(Owner::There(owner.clone()));
        }
        let mut found = self.create_repository(&name, repository).await?;
        if found.is_none() {
            let hashed = disambiguated(&repository.to_string());
            found = self.create_repository(&hashed, repository).await?;
        }
        let Some(object) = found else { return Ok(Owner::Going) };
        let owner = owner(&object);
        if let Owner::There(owner) = &owner {
            made.insert(repository.clone(), (owner.clone(), Instant::now()));
        }
        Ok(owner)
    }

    /// The Repository of that name, made where there is none; `None` where it is another one's.
    async fn create_repository(
        &self,
        name: &str,
        repository: &RepositoryName,
    ) -> Result<Option<Repository>, ApiError> {
        let api: Api<Repository> = Api::all(self.client.clone());
        let attempted = || format!("create the Repository {name}");
        match api.create(&params(), &repository_object(name, repository)).await {
            Ok(object) => {
                self.name_secrets(name, repository).await?;
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

    /// Says which secrets open a new Repository, before anybody pulls from it. One that needs none costs no request.
    async fn name_secrets(&self, name: &str, repository: &RepositoryName) -> Result<(), ApiError> {
        let secrets = repository::pull_secrets(&self.pods, &self.accounts.store(), repository);
        let Some(secrets) = secrets.filter(|secrets| !secrets.is_empty()) else { return Ok(()) };
        let status = RepositoryStatus { pull_secrets: Some(secrets), ..RepositoryStatus::default() };
        repository::write_status(&self.client, name, None, None, &status).await
    }
}

impl WantedImage {
    /// Whether the image's CachedImage can have this name.
    fn can_be_called(&self, name: &str) -> bool {
        let plain = ImageReference::parse(&self.written).is_ok_and(|image| cached_image_name(&image) == name);
        plain || disambiguated(&self.normalized) == name
    }
}

fn owner(object: &Repository) -> Owner {
    match object.owner_ref(&()) {
        Some(owner) if object.metadata.deletion_timestamp.is_none() => Owner::There(owner),
        _ => Owner::Going,
    }
}

fn cached_image(name: &str, wanted: &WantedImage, owner: &OwnerReference) -> CachedImage {
    let label = (REPOSITORY_LABEL.to_owned(), repository_label(&wanted.repository));
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some([label].into()),
        finalizers: Some(vec![CACHED_IMAGE_FINALIZER.to_owned()]),
        owner_references: Some(vec![owner.clone()]),
        ..ObjectMeta::default()
    };
    let spec = CachedImageSpec { source_image: wanted.written.to_string(), ..CachedImageSpec::default() };
    CachedImage { metadata, spec, status: None }
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

impl fmt::Debug for KeptImages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptImages").field("pods", &self.pods).finish_non_exhaustive()
    }
}
