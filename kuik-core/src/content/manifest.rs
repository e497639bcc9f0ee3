//! Image manifests and indexes: stored byte for byte, decoded only to read their references.
//!
//! Invariant: [`Manifest::digest`] is the digest of [`Manifest::bytes`]. A manifest is never re-encoded, because
//! digests, signatures and referrers depend on the exact bytes.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Descriptor, Digest, DigestMismatch, Verifier};

/// The largest manifest that is accepted, in bytes: 4 MiB, as the OCI distribution specification suggests.
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;

/// A media type, such as `application/vnd.oci.image.index.v1+json`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MediaType(Cow<'static, str>);

impl MediaType {
    /// An OCI image manifest.
    pub const OCI_MANIFEST: Self = Self(Cow::Borrowed("application/vnd.oci.image.manifest.v1+json"));
    /// An OCI image index.
    pub const OCI_INDEX: Self = Self(Cow::Borrowed("application/vnd.oci.image.index.v1+json"));
    /// A Docker image manifest, version 2 schema 2.
    pub const DOCKER_MANIFEST: Self =
        Self(Cow::Borrowed("application/vnd.docker.distribution.manifest.v2+json"));
    /// A Docker manifest list.
    pub const DOCKER_LIST: Self =
        Self(Cow::Borrowed("application/vnd.docker.distribution.manifest.list.v2+json"));
    /// An OCI image configuration.
    pub const OCI_CONFIG: Self = Self(Cow::Borrowed("application/vnd.oci.image.config.v1+json"));
    /// A layer: a gzip-compressed tar archive.
    pub const OCI_LAYER_GZIP: Self = Self(Cow::Borrowed("application/vnd.oci.image.layer.v1.tar+gzip"));

    /// Every media type of manifests, in the order of the `Accept` header.
    pub const MANIFESTS: [Self; 4] =
        [Self::OCI_INDEX, Self::OCI_MANIFEST, Self::DOCKER_LIST, Self::DOCKER_MANIFEST];

    /// Parses a `Content-Type` header; parameters are dropped.
    #[must_use]
    pub fn from_header(value: &str) -> Self {
        let essence = value.split(';').next().unwrap_or_default().trim();
        Self::from(essence.to_ascii_lowercase())
    }

    /// The type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the type is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is the type of an index (a list of manifests).
    #[must_use]
    pub fn is_index(&self) -> bool {
        *self == Self::OCI_INDEX || *self == Self::DOCKER_LIST
    }
}

impl From<String> for MediaType {
    fn from(text: String) -> Self {
        Self::MANIFESTS.into_iter().find(|known| known.0 == text).unwrap_or(Self(Cow::Owned(text)))
    }
}

impl std::fmt::Display for MediaType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A manifest or an index, with the bytes as received from its registry. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    media_type: MediaType,
    digest: Digest,
    bytes: Bytes,
}

/// Error of parsing a manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidManifest {
    /// Larger than [`MAX_MANIFEST_BYTES`].
    #[error("the manifest has {0} bytes, the limit is {MAX_MANIFEST_BYTES}")]
    TooLarge(usize),
    /// Not JSON, or not a manifest as the OCI image specification defines it.
    #[error("the content is not a manifest")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The `mediaType` field contradicts the `Content-Type` header.
    #[error("the manifest was sent as {sent}, but its mediaType is {inside}")]
    TypeMismatch {
        /// The type of the response.
        sent: MediaType,
        /// The `mediaType` field.
        inside: MediaType,
    },
}

/// A decoded manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodedManifest {
    /// An image for one platform, or an artifact.
    Image(ImageManifest),
    /// A list of manifests.
    Index(ImageIndex),
}

/// An image manifest (OCI image specification, "Image Manifest"), reduced to its references.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// Always 2.
    pub schema_version: u64,
    /// The manifest's own type.
    #[serde(default, skip_serializing_if = "MediaType::is_empty")]
    pub media_type: MediaType,
    /// The artifact type, if set. A value of another JSON type is ignored.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, from the bottom up.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is a referrer of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Arbitrary annotations. A value of another JSON type is ignored.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image index (OCI image specification, "Image Index"), reduced to its references.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIndex {
    /// Always 2.
    pub schema_version: u64,
    /// The index's own type.
    #[serde(default, skip_serializing_if = "MediaType::is_empty")]
    pub media_type: MediaType,
    /// The artifact type, if set. A value of another JSON type is ignored.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The listed manifests.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this index is a referrer of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Arbitrary annotations. A value of another JSON type is ignored.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl ImageManifest {
    /// Creates an OCI image manifest without subject and annotations.
    #[must_use]
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        let media_type = MediaType::OCI_MANIFEST;
        let (artifact_type, annotations) = (None, BTreeMap::new());
        Self { schema_version: 2, media_type, artifact_type, config, layers, subject: None, annotations }
    }
}

impl ImageIndex {
    /// Creates an OCI image index without subject and annotations.
    #[must_use]
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        let media_type = MediaType::OCI_INDEX;
        let (artifact_type, annotations) = (None, BTreeMap::new());
        Self { schema_version: 2, media_type, artifact_type, manifests, subject: None, annotations }
    }
}

impl Manifest {
    /// Parses a manifest; its digest is the SHA-256 of `bytes`.
    ///
    /// `sent_as` is the type of the response, if any; the `mediaType` field must agree with it.
    ///
    /// # Errors
    /// Returns an error if `bytes` exceeds the size limit, or is not a manifest of that type.
    pub fn new(sent_as: Option<&MediaType>, bytes: Bytes) -> Result<Self, InvalidManifest> {
        let digest = Digest::sha256(&bytes);
        Self::with_digest(sent_as, digest, bytes)
    }

    /// Verifies the bytes against the requested digest and returns the manifest under that digest.
    ///
    /// # Errors
    /// Returns an error if the bytes have another digest. An unsupported algorithm is a mismatch too.
    pub fn verified_as(self, expected: &Digest) -> Result<Self, DigestMismatch> {
        if self.digest == *expected {
            return Ok(self);
        }
        let size = self.bytes.len() as u64;
        let Some(mut verifier) = Verifier::new(expected) else {
            return Err(DigestMismatch { expected: expected.clone(), actual: self.digest, size });
        };
        verifier.update(&self.bytes);
        let verified = verifier.finish()?;
        Ok(Self { digest: verified.digest().clone(), ..self })
    }

    fn with_digest(
        sent_as: Option<&MediaType>,
        digest: Digest,
        bytes: Bytes,
    ) -> Result<Self, InvalidManifest> {
        let decoded = decode(&bytes)?;
        let inside = match &decoded {
            DecodedManifest::Image(image) => &image.media_type,
            DecodedManifest::Index(index) => &index.media_type,
        };
        let sent_as = sent_as.filter(|sent| MediaType::MANIFESTS.contains(sent));
        let media_type = match (sent_as, inside) {
            (Some(sent), inside) if inside.is_empty() => sent.clone(),
            (Some(sent), inside) if sent != inside => {
                return Err(InvalidManifest::TypeMismatch { sent: sent.clone(), inside: inside.clone() });
            }
            (None, inside) if inside.is_empty() => decoded.default_type(),
            (_, inside) => inside.clone(),
        };
        if media_type.is_index() != matches!(decoded, DecodedManifest::Index(_)) {
            return Err(InvalidManifest::TypeMismatch { sent: media_type, inside: decoded.default_type() });
        }
        Ok(Self { media_type, digest, bytes })
    }

    /// Decodes the manifest.
    ///
    /// # Errors
    /// Does not fail for a manifest that passed [`Manifest::new`]; the error type is that of the parser.
    pub fn decode(&self) -> Result<DecodedManifest, InvalidManifest> {
        decode(&self.bytes)
    }

    /// The media type to send in `Content-Type`.
    #[must_use]
    pub fn media_type(&self) -> &MediaType {
        &self.media_type
    }

    /// The digest of the bytes.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The bytes as received from the registry.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The descriptor of this manifest.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.digest.clone(), self.bytes.len() as u64)
    }
}

impl DecodedManifest {
    /// The media type of a manifest without a `mediaType` field, which is optional in OCI.
    fn default_type(&self) -> MediaType {
        match self {
            Self::Image(_) => MediaType::OCI_MANIFEST,
            Self::Index(_) => MediaType::OCI_INDEX,
        }
    }
}

/// Deserializes an informational field leniently: a value of the wrong JSON type becomes the default, so that the
/// manifest can still be pulled.
fn lenient<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Field<T> {
        AsSpecified(T),
        Other(serde::de::IgnoredAny),
    }
    match Field::deserialize(deserializer)? {
        Field::AsSpecified(value) => Ok(value),
        Field::Other(_) => Ok(T::default()),
    }
}

/// The field that distinguishes an index from an image; its value is skipped.
#[derive(Deserialize)]
struct Shape {
    manifests: Option<serde::de::IgnoredAny>,
}

fn decode(bytes: &[u8]) -> Result<DecodedManifest, InvalidManifest> {
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(InvalidManifest::TooLarge(bytes.len()));
    }
    let malformed = |error: serde_json::Error| InvalidManifest::Malformed(error.into());
    let shape: Shape = serde_json::from_slice(bytes).map_err(malformed)?;
    let (decoded, version) = if shape.manifests.is_some() {
        let index: ImageIndex = serde_json::from_slice(bytes).map_err(malformed)?;
        let version = index.schema_version;
        (DecodedManifest::Index(index), version)
    } else {
        let image: ImageManifest = serde_json::from_slice(bytes).map_err(malformed)?;
        let version = image.schema_version;
        (DecodedManifest::Image(image), version)
    };
    match version {
        2 => Ok(decoded),
        other => Err(InvalidManifest::Malformed(format!("schemaVersion is {other}, not 2").into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json",
        "digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":5},"layers":[]}"#;
    const INDEX: &str =
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

    #[test]
    fn manifest_new_keeps_bytes_and_detects_media_type() {
        let image = Manifest::new(None, Bytes::from_static(IMAGE.as_bytes())).unwrap();
        assert_eq!(image.media_type(), &MediaType::OCI_MANIFEST);
        assert_eq!(image.bytes(), IMAGE.as_bytes());
        assert_eq!(image.digest(), &Digest::sha256(IMAGE.as_bytes()));

        let docker =
            Manifest::new(Some(&MediaType::DOCKER_MANIFEST), Bytes::from_static(IMAGE.as_bytes())).unwrap();
        assert_eq!(docker.media_type(), &MediaType::DOCKER_MANIFEST);
        let index = Manifest::new(Some(&MediaType::OCI_INDEX), Bytes::from_static(INDEX.as_bytes())).unwrap();
        assert!(matches!(index.decode(), Ok(DecodedManifest::Index(index)) if index.manifests.is_empty()));
    }

    #[test]
    fn manifest_new_ignores_generic_content_type() {
        let sent = MediaType::from_header("application/json; charset=utf-8");
        let image = Manifest::new(Some(&sent), Bytes::from_static(IMAGE.as_bytes())).unwrap();
        assert_eq!(image.media_type(), &MediaType::OCI_MANIFEST);
    }

    #[test]
    fn manifest_new_rejects_malformed_content() {
        for (sent, body) in [
            (None, "<html>hello</html>"),
            (None, "{}"),
            (None, "null"),
            (None, r#"{"schemaVersion":1,"manifests":[]}"#),
            (None, r#"{"schemaVersion":2,"manifests":{}}"#),
            (None, r#"{"schemaVersion":2,"config":{"digest":"sha256:abc","size":1},"layers":[]}"#),
            (Some(&MediaType::OCI_MANIFEST), INDEX),
            (Some(&MediaType::OCI_INDEX), IMAGE),
        ] {
            assert!(Manifest::new(sent, Bytes::from_static(body.as_bytes())).is_err(), "{body}");
        }
        let large = vec![b' '; MAX_MANIFEST_BYTES + 1];
        assert!(matches!(Manifest::new(None, large.into()), Err(InvalidManifest::TooLarge(_))));
    }

    #[test]
    fn manifest_decode_ignores_annotations_of_wrong_type() {
        let with = |fields: &str| Bytes::from(IMAGE.replacen('{', &format!("{{{fields},"), 1));
        let decoded = |fields: &str| match Manifest::new(None, with(fields)).unwrap().decode().unwrap() {
            DecodedManifest::Image(image) => (image.artifact_type, image.annotations),
            DecodedManifest::Index(_) => panic!("not an index"),
        };
        let (artifact_type, annotations) = decoded(r#""artifactType":"a/b","annotations":{"k":"v"}"#);
        assert_eq!(artifact_type.as_deref(), Some("a/b"));
        assert_eq!(annotations, BTreeMap::from([("k".to_owned(), "v".to_owned())]));
        for odd in [
            r#""artifactType":null,"annotations":null"#,
            r#""artifactType":1,"annotations":{"k":1}"#,
            r#""artifactType":[],"annotations":"k""#,
        ] {
            assert_eq!(decoded(odd), (None, BTreeMap::new()), "{odd}");
        }
    }

    #[test]
    fn verified_as_rejects_other_digest_and_unknown_algorithm() {
        let image = Manifest::new(None, Bytes::from_static(IMAGE.as_bytes())).unwrap();
        let wrong = Digest::sha256(b"another");
        assert!(image.clone().verified_as(&wrong).is_err());
        let unknown: Digest = "md5:d41d8cd98f00b204e9800998ecf8427e".parse().unwrap();
        assert!(image.verified_as(&unknown).is_err());
    }
}
