//! The retention document of a cluster, built from memory.

use kube_runtime::reflector::Store;

use crate::{
    content::TagOrDigest,
    controller::Usage,
    copy::SourceImage,
    crd::CachedImage,
    reference::ImageReference,
    retention::{ImageRetention, RetentionDocument},
};

/// Returns the document for these images; `None` while it is not known which pods use them.
pub(super) fn build(images: &Store<CachedImage>, usage: &dyn Usage) -> Option<RetentionDocument> {
    let mut document = RetentionDocument::default();
    for object in images.state() {
        let Ok(reference) = ImageReference::parse(&object.spec.source_image) else { continue };
        let Ok(image) = SourceImage::new(&reference) else { continue };
        let used = usage.of(&reference.normalized())?.count > 0;
        // An object that is being deleted no longer keeps its image.
        if object.metadata.deletion_timestamp.is_some() && !used {
            continue;
        }
        let retention = retention(&object, used);
        for name in names(&image) {
            document.insert(image.repository(), &name, retention);
        }
    }
    Some(document)
}

/// Returns the names of an image in the cache: its tag there, and the tag or digest of pulls.
pub(super) fn names(image: &SourceImage) -> [TagOrDigest; 2] {
    [TagOrDigest::Tag(image.cache_tag().clone()), image.at().clone()]
}

fn retention(object: &CachedImage, used: bool) -> ImageRetention {
    if used {
        return ImageRetention::in_use();
    }
    if object.spec.retain == Some(true) {
        return ImageRetention::retained();
    }
    let expires_at = object.spec.expires_at.as_ref();
    ImageRetention::unused(expires_at.map(|at| u64::try_from(at.0.as_second()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use futures::{StreamExt as _, stream, stream::BoxStream};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube_runtime::{reflector, watcher::Event};

    use super::*;
    use crate::{controller::ImageUsage, crd::CachedImageSpec};

    /// Pods by image; `None` before they are listed.
    #[derive(Debug)]
    struct Pods(Option<HashMap<&'static str, usize>>);

    impl Usage for Pods {
        fn of(&self, image: &str) -> Option<ImageUsage> {
            let count = self.0.as_ref()?.get(image).copied().unwrap_or_default();
            Some(ImageUsage { count, pods: Vec::new() })
        }

        fn changes(&self) -> BoxStream<'static, Option<String>> {
            stream::pending().boxed()
        }
    }

    fn object(name: &str, image: &str) -> CachedImage {
        CachedImage::new(
            name,
            CachedImageSpec { source_image: image.to_owned(), ..CachedImageSpec::default() },
        )
    }

    fn second(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn document_has_every_image_by_usage_retention_and_expiry() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let mut retained = object("retained", "nginx:2");
        retained.spec.retain = Some(true);
        let mut expiring = object("expiring", "nginx:3");
        expiring.spec.expires_at = Some(second(7));
        let mut ancient = object("ancient", "nginx:4");
        ancient.spec.expires_at = Some(second(-7));
        let mut deleted = object("deleted", "nginx:5");
        deleted.metadata.deletion_timestamp = Some(second(1));
        let mut deleted_and_used = object("deleted-and-used", "nginx:6");
        deleted_and_used.metadata.deletion_timestamp = Some(second(1));
        let objects = [
            object("used", "nginx:1"),
            retained,
            expiring,
            ancient,
            deleted,
            deleted_and_used,
            object("by-digest", &format!("registry:5000/app@{digest}")),
            object("invalid", "Not An Image"),
        ];
        let (store, mut writer) = reflector::store();
        for object in objects {
            writer.apply_watcher_event(&Event::Apply(object));
        }
        assert_eq!(build(&store, &Pods(None)), None, "the pods are not listed yet");
        let used = HashMap::from([("docker.io/library/nginx:1", 2), ("docker.io/library/nginx:6", 1)]);
        let document = build(&store, &Pods(Some(used))).unwrap();
        let nginx = |tag| document.get("docker.io/library/nginx", tag);
        assert_eq!(nginx("1"), Some(ImageRetention::in_use()));
        assert_eq!(nginx("2"), Some(ImageRetention::retained()));
        assert_eq!(nginx("3"), Some(ImageRetention::unused(Some(7))));
        assert_eq!(nginx("4"), Some(ImageRetention::unused(Some(0))));
        assert_eq!(nginx("5"), None);
        assert_eq!(nginx("6"), Some(ImageRetention::in_use()));
        for name in [digest.as_str(), &format!("kuik-sha256-{}", "a".repeat(64))] {
            assert_eq!(
                document.get("registry__5000/app", name),
                Some(ImageRetention::unused(None)),
                "{name}"
            );
        }
        assert_eq!(document.len(), 7);
    }
}
