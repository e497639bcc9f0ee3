//! Controller metrics: number of CachedImages, containers and Repositories by status.
//!
//! They are computed at each scrape from the leader's informers; other replicas report only that they do not lead.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use kuik_core::{
    controller::{Manager, View},
    crd::CachedImage,
    reference::ImageReference,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};
use tokio::sync::watch;

/// Collector of the controller metrics; register it with the prefix `controller`.
#[derive(Debug)]
pub struct ControllerMetrics {
    controllers: Arc<OnceLock<Arc<Manager>>>,
    leading: watch::Receiver<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct ImageLabels {
    status: String,
    cached: String,
    expiring: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct ContainerLabels {
    status: String,
    cached: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct RepositoryLabels {
    status: String,
}

impl ControllerMetrics {
    /// Creates a collector that reads `controllers` once they are set, and whether this replica leads.
    #[must_use]
    pub fn new(controllers: Arc<OnceLock<Arc<Manager>>>, leading: watch::Receiver<bool>) -> Self {
        Self { controllers, leading }
    }
}

impl Collector for ControllerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        single(&mut encoder, "up", "Whether the controllers run", 1)?;
        let leads = i64::from(*self.leading.borrow());
        single(&mut encoder, "is_leader", "Whether this replica leads", leads)?;
        let (images, containers, repositories) =
            self.controllers.get().and_then(|it| it.view()).map(|view| count(&view)).unwrap_or_default();
        family(&mut encoder, "cached_images", "CachedImages", &images)?;
        family(
            &mut encoder,
            "containers_with_cached_image",
            "Containers by the status of their image",
            &containers,
        )?;
        family(&mut encoder, "repositories", "RepositoryController", &repositories)
    }
}

type Counts = (BTreeMap<ImageLabels, i64>, BTreeMap<ContainerLabels, i64>, BTreeMap<RepositoryLabels, i64>);

fn count(view: &View) -> Counts {
    let (mut images, mut containers, mut repositories) = Counts::default();
    for image in view.images.state() {
        let (status, cached) = state(&image);
        let expiring = image.spec.expires_at.is_some().to_string();
        let labels = ImageLabels { status: status.clone(), cached: cached.clone(), expiring };
        *images.entry(labels).or_default() += 1;
        let used = ImageReference::parse(&image.spec.source_image).ok().and_then(|reference| {
            let normalized = reference.normalized();
            view.pods.read(|index| index.containers(&normalized))
        });
        let used = i64::try_from(used.unwrap_or_default()).unwrap_or(i64::MAX);
        *containers.entry(ContainerLabels { status, cached }).or_default() += used;
    }
    for repository in view.repositories.state() {
        let phase = repository.status.as_ref().and_then(|status| status.phase);
        let status = phase.map(|phase| format!("{phase:?}")).unwrap_or_default();
        *repositories.entry(RepositoryLabels { status }).or_default() += 1;
    }
    (images, containers, repositories)
}

/// The phase of an image, and whether it is in the cache.
fn state(image: &CachedImage) -> (String, String) {
    let status = image.status.as_ref();
    let phase = status.and_then(|status| status.phase).map(|phase| format!("{phase:?}")).unwrap_or_default();
    (phase, status.and_then(|status| status.is_cached).unwrap_or_default().to_string())
}

fn single(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: i64) -> Result<(), fmt::Error> {
    let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(encoder)
}

fn family<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    counts: &BTreeMap<L, i64>,
) -> Result<(), fmt::Error> {
    if counts.is_empty() {
        return Ok(());
    }
    let mut encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, count) in counts {
        ConstGauge::new(*count).encode(encoder.encode_family(labels)?)?;
    }
    Ok(())
}
