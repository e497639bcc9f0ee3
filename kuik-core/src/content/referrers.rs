//! Referrers of a manifest, as in the OCI distribution specification, section "Listing Referrers".
//!
//! Pure functions: they compute a manifest's subject and its descriptor in a referrers list. Each store decides how it
//! persists its index.

use bytes::Bytes;
use serde::Serialize;

use super::{DecodedManifest, Descriptor, Digest, Manifest, MediaType, Referrers};
use crate::reference::Tag;

impl Manifest {
    /// The digest of the manifest that this manifest refers to as its `subject`.
    #[must_use]
    pub fn subject(&self) -> Option<Digest> {
        let subject = match self.decode().ok()? {
            DecodedManifest::Image(image) => image.subject,
            DecodedManifest::Index(index) => index.subject,
        };
        subject.map(|subject| subject.digest)
    }

    /// The descriptor of this manifest in a referrers list: with its annotations and its artifact type, which defaults
    /// to the media type of the configuration for an image.
    #[must_use]
    pub fn referrer_descriptor(&self) -> Descriptor {
        let (artifact_type, annotations) = match self.decode() {
            Ok(DecodedManifest::Image(image)) => {
                let config = image.config.media_type;
                let named = image.artifact_type.filter(|named| !named.is_empty());
                (named.or_else(|| Some(config.as_str().to_owned())), image.annotations)
            }
            Ok(DecodedManifest::Index(index)) => (index.artifact_type, index.annotations),
            Err(_) => Default::default(),
        };
        let artifact_type = artifact_type.filter(|artifact_type| !artifact_type.is_empty());
        Descriptor { artifact_type, annotations, ..self.descriptor() }
    }
}

impl Referrers {
    /// Creates an index of `descriptors`, filtered by `artifact_type` if given. Entries are sorted by digest, so that
    /// equal lists have equal bytes.
    #[must_use]
    pub fn list(mut descriptors: Vec<Descriptor>, artifact_type: Option<&str>) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Listed {
            schema_version: u64,
            media_type: MediaType,
            manifests: Vec<Descriptor>,
        }
        if let Some(wanted) = artifact_type {
            descriptors.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(wanted));
        }
        descriptors.sort_by(|one, other| one.digest.cmp(&other.digest));
        let index = Listed { schema_version: 2, media_type: MediaType::OCI_INDEX, manifests: descriptors };
        // Strings and numbers under string keys always serialize.
        let bytes = serde_json::to_vec(&index).unwrap_or_default();
        Self { index: Bytes::from(bytes), filtered: artifact_type.is_some() }
    }
}

/// The tag under which clients store an index of the referrers of `subject` if a registry has no referrers API (OCI
/// distribution specification, "Referrers Tag Schema"): `sha256-…`.
#[must_use]
pub fn fallback_tag(subject: &Digest) -> Option<Tag> {
    let cut = |text: &str, bytes: usize| text.get(..bytes).unwrap_or(text).to_owned();
    let text = format!("{}-{}", cut(subject.algorithm_name(), 32), cut(subject.encoded(), 64));
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    text.replace(|c| !allowed(c), "-").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn image(fields: &str) -> Manifest {
        let text = format!(
            r#"{{"schemaVersion":2{fields},"config":{{"mediaType":"application/vnd.config","digest":"{SUBJECT}","size":5}},
               "layers":[],"subject":{{"mediaType":"a/b","digest":"{SUBJECT}","size":1}}}}"#
        );
        Manifest::new(None, text.into()).unwrap()
    }

    #[test]
    fn referrer_descriptor_defaults_artifact_type_to_config_media_type() {
        for (fields, expected) in [
            ("", "application/vnd.config"),
            (r#","artifactType":"""#, "application/vnd.config"),
            (r#","artifactType":"application/sbom""#, "application/sbom"),
        ] {
            let manifest = image(fields);
            assert_eq!(manifest.subject(), Some(SUBJECT.parse().unwrap()));
            assert_eq!(manifest.referrer_descriptor().artifact_type.as_deref(), Some(expected));
        }
    }

    #[test]
    fn referrers_list_is_filtered_and_sorted_by_digest() {
        let sbom = image(r#","artifactType":"application/sbom","annotations":{"k":"v"}"#);
        let descriptors = vec![image("").referrer_descriptor(), sbom.referrer_descriptor()];
        let backwards = descriptors.iter().rev().cloned().collect();
        let all = Referrers::list(descriptors.clone(), None);
        assert_eq!(all, Referrers::list(backwards, None));
        assert!(!all.filtered);
        let some = Referrers::list(descriptors, Some("application/sbom"));
        assert!(some.filtered);
        let index = Manifest::new(Some(&MediaType::OCI_INDEX), some.index).unwrap().decode().unwrap();
        let DecodedManifest::Index(index) = index else { panic!("not an index") };
        assert_eq!(index.manifests, [sbom.referrer_descriptor()]);
        assert_eq!(index.manifests[0].annotations.get("k").map(String::as_str), Some("v"));
    }

    #[test]
    fn fallback_tag_truncates_and_replaces_invalid_characters() {
        let tag = |digest: &str| fallback_tag(&digest.parse().unwrap()).unwrap().to_string();
        assert_eq!(tag(SUBJECT), SUBJECT.replace(':', "-"));
        let sha512 = format!("sha512:{}", "a".repeat(128));
        assert_eq!(tag(&sha512), format!("sha512-{}", "a".repeat(64)));
        assert_eq!(tag("a+b:c=d"), "a-b-c-d");
    }
}
