//! The settings of pushes: what may lack content, how many blobs may be on their way in, and how slowly.

use std::num::NonZeroUsize;

use kuik_proxy::push::{RegistryOptions, Sparse};

use super::{ConfigFile, Problems, quantity::Quantity, value::parsed};

/// What is said about pushes, before anybody has looked at it.
#[derive(Debug, Default, clap::Args)]
pub struct RawPushes {
    /// What may be pushed without all that it refers to: nothing, indexes (without some of their images), or images
    /// too (without some of their blobs) [default: indexes]
    #[arg(long, env = "KUIK_SPARSE", hide_env_values = true, value_name = "WHAT")]
    pub(super) sparse: Option<String>,
    /// How many blobs may be on their way in at one time; other clients are told to try again [default: 64]
    #[arg(long, env = "KUIK_MAX_UPLOADS", hide_env_values = true, value_name = "N")]
    pub(super) max_uploads: Option<String>,
    /// With how many bytes a second a push has to come, measured over 30 s: 500, 10Ki. A slower client is sent away,
    /// and may go on where it was; 0 lets everybody take their time [default: 1Ki]
    #[arg(long, env = "KUIK_MIN_UPLOAD_RATE", hide_env_values = true, value_name = "SIZE")]
    pub(super) min_upload_rate: Option<String>,
}

const SPARSE: &str = "sparse";
const MAX_UPLOADS: &str = "max-uploads";
const MIN_UPLOAD_RATE: &str = "min-upload-rate";

impl RawPushes {
    /// The settings that a file can have.
    pub(super) const KEYS: [&str; 3] = [SPARSE, MAX_UPLOADS, MIN_UPLOAD_RATE];

    /// What was given here, and for the rest what the file says.
    pub(super) fn over(self, file: &ConfigFile) -> Self {
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
                problems.add(SPARSE, format_args!("{other:?} is neither nothing, indexes nor images"));
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
