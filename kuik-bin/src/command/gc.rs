//! `kuik gc`: garbage collection of a data directory that no server has open, or of a bucket that may be in use.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use kuik_core::content::{RegistryStore, StoredBlob};
#[cfg(feature = "object-storage")]
use kuik_proxy::store::ObjectStorage;
use kuik_proxy::{
    maintenance::gc::{Collector, GcOptions, GcReport, Leases, NoticePeriod},
    store::FilesystemStore,
};

use crate::cli_error::CliError;
use crate::config::location::{Location, RawLocation};

/// Remove unreferenced content from a data directory or a bucket.
///
/// No server may have the directory open. A bucket may be served and pushed to at the same time by kuik-registry, to which
/// removals are announced in advance. Do not push to a bucket that Docker's registry serves.
///
/// Each removed blob is printed to standard output: size in bytes, a tab, digest. A summary follows on standard error. The
/// command can be interrupted and run again.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Data directory of kuik or of Docker's registry, instead of --storage
    #[arg(long, value_name = "DIR", required_unless_present = "storage", conflicts_with = "storage")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    location: RawLocation,
    /// List what would be removed, without removing it
    #[arg(long)]
    dry_run: bool,
    /// Minimum age of content to remove, such as 90s, 10m or 1h; for a bucket, it must exceed the duration of a push or pull
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    grace: Duration,
    /// How long removals from a bucket are announced to its servers in advance; must equal their --gc-notice
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    notice: Duration,
    /// Also remove manifests that no tag refers to
    #[arg(long)]
    delete_untagged: bool,
}

impl Arguments {
    /// Collects garbage and prints what was removed.
    ///
    /// # Errors
    /// Fails if the directory or bucket does not exist, the directory is in use, or the storage fails.
    pub fn run(self) -> Result<(), CliError> {
        let location = match self.data_dir {
            Some(dir) => Location::Directory(dir),
            None => self.location.validate().map_err(CliError::usage)?,
        };
        let (store, leases) = open(&location, NoticePeriod::new(self.notice))?;
        if let (Location::Bucket(bucket), false) = (&location, self.dry_run) {
            writeln!(io::stderr(), "{}", announcement(&bucket.name(), self.notice, self.grace))
                .map_err(CliError::new)?;
        }
        let mut options = GcOptions::default();
        (options.grace, options.delete_untagged, options.dry_run) =
            (self.grace, self.delete_untagged, self.dry_run);
        let collector = Collector::new(store, leases);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();

        let mut out = io::BufWriter::new(io::stdout());
        let mut listed = Ok(());
        let list = |blob: &StoredBlob| {
            if listed.is_ok() {
                listed = writeln!(out, "{}\t{}", blob.size, blob.digest);
            }
        };
        let report = runtime.map_err(CliError::new)?.block_on(collector.run(&options, list));
        let report = report.map_err(CliError::new)?;
        listed.and_then(|()| out.flush()).map_err(CliError::new)?;
        writeln!(io::stderr(), "{}", summary(&report, self.dry_run)).map_err(CliError::new)
    }
}

/// Opens the store, and its leases for announcing removals.
fn open(location: &Location, notice: NoticePeriod) -> Result<(Arc<dyn RegistryStore>, Leases), CliError> {
    match location {
        Location::Directory(dir) if !dir.is_dir() => {
            Err(CliError::usage(format!("no such directory: {}", dir.display())))
        }
        Location::Directory(dir) => {
            let store = FilesystemStore::open(dir).map_err(CliError::new)?;
            Ok((Arc::new(store), Leases::default()))
        }
        #[cfg(not(feature = "object-storage"))]
        Location::Bucket(_) => {
            let _ = notice;
            Err(CliError::no_object_storage())
        }
        #[cfg(feature = "object-storage")]
        Location::Bucket(options) => {
            // Nothing is fetched here.
            let scratch_dir = std::env::temp_dir();
            let store = ObjectStorage::open(options, &scratch_dir).map_err(CliError::usage)?;
            Ok((Arc::new(store.clone()), Leases::shared(Arc::new(store), notice)))
        }
    }
}

fn announcement(bucket: &str, notice: Duration, grace: Duration) -> String {
    let [notice, grace] =
        [notice, grace].map(|span| jiff::SignedDuration::try_from(span).unwrap_or(jiff::SignedDuration::MAX));
    format!(
        "removals are announced to the servers of {bucket} {notice:#} in advance (--notice); content written within \
         {grace:#} is kept (--grace)"
    )
}

fn summary(report: &GcReport, dry_run: bool) -> String {
    let verb = if dry_run { "would be removed" } else { "removed" };
    let GcReport { removed, reclaimed_bytes, kept, took, .. } = report;
    format!("{removed} blobs {verb}, {reclaimed_bytes} bytes; {kept} kept; {:.1} s", took.as_secs_f64())
}

fn duration(text: &str) -> Result<Duration, String> {
    let span = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    span.ok_or_else(|| "not a duration such as 90s, 10m or 1h30m".to_owned())
}
