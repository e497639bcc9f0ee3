//! Worker client: pushes, pulls and deletes in its own repository until the registry is down, and maintains the model of the
//! responses. It shares images with other workers, so that they write the same digests concurrently; some images belong only
//! to other workers, and must never appear here.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use kuik_testkit::SampleImage;
use tokio::sync::watch;

use crate::support::{Failed, LeftUpload, Remote};

use super::model::{Certainty, Model};

const TAGS: u64 = 5;
/// Retries of a push whose blobs were collected before its manifest arrived.
const ATTEMPTS: u64 = 4;

/// Numbers by xorshift: the same for the same seed.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

/// One of so many images is for other workers alone.
const OTHERS: usize = 4;

/// Responses to a worker.
#[derive(Debug, Clone, Copy, Default)]
#[allow(dead_code, reason = "it is printed")]
pub(crate) struct Told {
    pub(crate) pushed: u64,
    pub(crate) refused: u64,
    pub(crate) pulled: u64,
    pub(crate) deleted: u64,
}

#[derive(Debug)]
pub(crate) struct Worker {
    repository: String,
    images: Arc<Vec<SampleImage>>,
    random: Random,
    model: Model,
    /// The images that are pushed here.
    ours: Vec<usize>,
    left: Option<LeftUpload>,
    told: Told,
}

/// The next operation.
#[derive(Debug)]
enum Change {
    Push { image: usize, tag: String },
    DeleteTag { tag: String },
    DeleteImage { image: usize },
    LeaveUpload { image: usize },
    Pull { tag: String },
}

impl Worker {
    pub(crate) fn new(number: u64, images: Arc<Vec<SampleImage>>, random: Random) -> Self {
        let repository = format!("team/worker-{number}");
        let others = usize::try_from(number).unwrap();
        let ours = (0..images.len()).filter(|image| image % OTHERS != others).collect();
        Self { repository, images, random, model: Model::default(), ours, left: None, told: Told::default() }
    }

    pub(crate) fn repository(&self) -> String {
        self.repository.clone()
    }

    pub(crate) fn told(&self) -> Told {
        self.told
    }

    /// The images that tags point at.
    pub(crate) fn kept(&self) -> Vec<SampleImage> {
        self.model.present().values().map(|number| self.images[*number].clone()).collect()
    }

    /// Works until the registry is down. Each push that was acknowledged is counted.
    pub(crate) async fn work(&mut self, address: SocketAddr, pushed: &watch::Sender<u64>) {
        let mut remote = Remote::new(address, &self.repository);
        loop {
            let change = self.next();
            match self.make(&mut remote, &change).await {
                Ok(()) if matches!(change, Change::Push { .. }) => pushed.send_modify(|pushed| *pushed += 1),
                Ok(()) => {}
                Err(Failed::Missing(_)) => self.told.refused += 1,
                Err(Failed::Lost(_)) => return self.in_flight(&change),
                Err(Failed::Refused(why)) => panic!("{change:?} in {}: {why}", self.repository),
            }
        }
    }

    fn next(&mut self) -> Change {
        let image = self.ours[usize::try_from(self.random.below(self.ours.len() as u64)).unwrap()];
        let tag = format!("tag-{}", self.random.below(TAGS));
        match self.random.below(10) {
            0..=4 => Change::Push { image, tag },
            5 | 6 => Change::Pull { tag },
            7 => Change::DeleteTag { tag },
            8 => Change::DeleteImage { image },
            _ => Change::LeaveUpload { image },
        }
    }

    async fn make(&mut self, remote: &mut Remote, change: &Change) -> Result<(), Failed> {
        match change {
            Change::Push { image, tag } => {
                self.push(remote, *image, tag).await?;
                self.model.set(tag, Some(*image), Certainty::Done);
                self.told.pushed += 1;
            }
            Change::DeleteTag { tag } => {
                let deleted = remote.delete(tag).await?;
                assert_eq!(
                    deleted,
                    self.model.get(tag).is_some(),
                    "{tag} of {} was deleted",
                    self.repository
                );
                self.model.set(tag, None, Certainty::Done);
                self.told.deleted += 1;
            }
            Change::DeleteImage { image } => {
                let deleted = remote.delete(self.images[*image].index().digest().as_str()).await?;
                // One without a tag may be there or not.
                let tagged = self.model.present().values().any(|tagged| tagged == image);
                assert!(deleted || !tagged, "image {image} of {} was not found", self.repository);
                self.model.delete(*image, Certainty::Done);
                self.told.deleted += 1;
            }
            Change::LeaveUpload { image } => {
                let content = self.images[*image].blobs().values().next().unwrap().clone();
                self.left = Some(remote.leave_upload(&content).await?);
            }
            Change::Pull { tag } => {
                self.see(remote, tag).await?;
                self.told.pulled += 1;
            }
        }
        Ok(())
    }

    async fn push(&mut self, remote: &mut Remote, image: usize, tag: &str) -> Result<(), Failed> {
        for _ in 1..ATTEMPTS {
            match remote.push(&self.images[image], tag).await {
                Err(Failed::Missing(_)) => self.told.refused += 1,
                pushed => return pushed,
            }
        }
        remote.push(&self.images[image], tag).await
    }

    /// The registry went away during this.
    fn in_flight(&mut self, change: &Change) {
        match change {
            Change::Push { image, tag } => self.model.set(tag, Some(*image), Certainty::InFlight),
            Change::DeleteTag { tag } => self.model.set(tag, None, Certainty::InFlight),
            Change::DeleteImage { image } => self.model.delete(*image, Certainty::InFlight),
            Change::LeaveUpload { .. } | Change::Pull { .. } => {}
        }
    }

    /// Compares a tag with the model, and pulls what it points at.
    async fn see(&mut self, remote: &mut Remote, tag: &str) -> Result<(), Failed> {
        let found = remote.resolve(tag).await?.map(|digest| {
            let number = self.images.iter().position(|image| image.index().digest().as_str() == digest);
            number.unwrap_or_else(|| panic!("{tag} of {} is {digest}, which is unexpected", self.repository))
        });
        self.model.saw(tag, found);
        match found {
            Some(number) => remote.pull(&self.images[number]).await,
            None => Ok(()),
        }
    }

    /// Compares the whole repository with the model, and resumes the last interrupted upload.
    pub(crate) async fn check(&mut self, address: SocketAddr) {
        let mut remote = Remote::new(address, &self.repository);
        for tag in self.model.known() {
            let seen = self.see(&mut remote, &tag).await;
            seen.unwrap_or_else(|error| panic!("{tag} of {}: {error:?}", self.repository));
        }
        let listed = remote.tags().await.unwrap();
        let expected: Vec<String> = self.model.present().into_keys().collect();
        assert_eq!(listed, expected, "the tags of {}", self.repository);
        let ours: BTreeSet<_> = self.ours.iter().map(|ours| self.images[*ours].index().digest()).collect();
        for digest in self.images.iter().map(|image| image.index().digest()).filter(|it| !ours.contains(it)) {
            let found = remote.resolve(digest.as_str()).await.unwrap();
            assert_eq!(found, None, "{} has what was never pushed there", self.repository);
        }
        if let Some(left) = self.left.take() {
            remote.resume(&left).await.unwrap();
        }
    }
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // All bits zero would stay so.
        Self(seed | 1 << 63)
    }

    /// Another one, which goes its own way.
    pub(crate) fn fork(&mut self) -> Self {
        Self::new(self.below(u64::MAX))
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
