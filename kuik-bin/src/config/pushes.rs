//! Push settings: sparse manifests, concurrent uploads, minimum upload rate.

use std::num::NonZeroUsize;

use kuik_proxy::registry::push::{RegistryOptions, Sparse};

use super::{ConfigFile, Problems, quantity::Quantity, value::parsed};

/// Unvalidated push settings.
#[derive(Debug, Default, clap::Args)]
pub struct RawPushes {
    /// Manifests that may be pushed before all content they refer to: nothing, indexes (some of their images missing), or
    /// images (some of their blobs missing, too) [default: indexes]
    #[arg(long, env = "KUIK_SPARSE", hide_env_values = true, value_name = "WHAT")]
    pub(super) sparse: Option<String>,
    /// Maximum number of concurrent blob uploads; further clients get a retryable error [default: 64]
    #[arg(long, env = "KUIK_MAX_UPLOADS", hide_env_values = true, value_name = "N")]
    pub(super) max_uploads: Option<String>,
    /// Minimum upload rate in bytes per second, such as 500 or 10Ki, averaged over 30 s; slower clients are disconnected
    /// and may resume; 0 disables the limit [default: 1Ki]
    #[arg(long, env = "KUIK_MIN_UPLOAD_RATE", hide_env_values = true, value_name = "SIZE")]
    pub(super) min_upload_rate: Option<String>,
}

const SPARSE: &str = "sparse";
const MAX_UPLOADS: &str = "max-uploads";
const MIN_UPLOAD_RATE: &str = "min-upload-rate";

impl RawPushes {
    /// Keys of these settings in the configuration file.
    pub(super) const KEYS: [&str; 3] = [SPARSE, MAX_UPLOADS, MIN_UPLOAD_RATE];

    /// Returns these values, with unset ones taken from the file.
    pub(super) fn merge_file(self, file: &ConfigFile) -> Self {
        Self {
            sparse: file.one(SPARSE, self.sparse),
            max_uploads: file.one(MAX_UPLOADS, self.max_uploads),
            min_upload_rate: file.one(MIN_UPLOAD_RATE, self.min_upload_rate),
        }
    }

    pub(super) fn read(self, problems: &mut Problems) -> RegistryOptions {
        let mut options = RegistryOptions::default();
        match self.sparse.as_deref() {
            None => {}
            Some("nothing") => options.sparse = Sparse::Nothing,
            Some("indexes") => options.sparse = Sparse::Indexes,
            Some("images") => options.sparse = Sparse::Images,
            Some(other) => {
                problems.add(SPARSE, format_args!("{other:?} is not nothing, indexes or images"));
            }
        }
        options.max_uploads = parsed(
            MAX_UPLOADS,
            self.max_uploads.as_deref(),
            NonZeroUsize::new(options.max_uploads).unwrap_or(NonZeroUsize::MIN),
            "a number of uploads, 1 or more",
            problems,
        )
        .get();
        if let Some(text) = self.min_upload_rate
            && let Some(Quantity(bytes)) = problems.check(MIN_UPLOAD_RATE, text.parse())
        {
            options.min_upload_rate = bytes;
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_quantity_and_none_is_no_limit() {
        for (text, expected) in [(None, 1024), (Some("0"), 0), (Some("10Ki"), 10 << 10)] {
            let mut problems = Problems::default();
            let raw = RawPushes { min_upload_rate: text.map(str::to_owned), ..RawPushes::default() };
            let options = raw.read(&mut problems);
            assert_eq!(problems.into_result(Some(options)).unwrap().min_upload_rate, expected, "{text:?}");
        }
    }
}
