//! `kuik gc`: collects the garbage of a data directory that nobody has open, or of a bucket that servers may use meanwhile.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use kuik_core::content::{ManagedStore, StoredBlob};
use kuik_proxy::{
    gc::{Collector, GcOptions, GcReport, Leases, Notice},
    store::{FilesystemStore, ObjectStorage},
};

use super::Failure;
use crate::config::location::{Location, RawLocation};

/// Remove from a data directory or a bucket what no tag and no manifest refers to.
///
/// A directory must not be in use by a server. A bucket may be served and pushed to meanwhile by servers that are told
/// what is about to go: kuik's own. They are given notice before it does. A bucket that Docker's registry serves must
/// not be pushed to.
///
/// What goes is listed on standard output, one line each: size in bytes, a tab, digest. The sum follows on standard
/// error. It can be interrupted and run again.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The directory: a volume of kuik or of Docker's registry, in place of --storage
    #[arg(long, value_name = "DIR", required_unless_present = "storage", conflicts_with = "storage")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    location: RawLocation,
    /// List what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep what was written more recently than so long ago, such as 90s, 10m, 1h: for a bucket, longer than a push or
    /// pull takes
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    grace: Duration,
    /// How long servers of a bucket are given notice before anything is removed: their --gc-notice
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    notice: Duration,
    /// Remove manifests too that no tag leads to
    #[arg(long)]
    delete_untagged: bool,
}

impl Arguments {
    /// Collects, and says what went.
    ///
    /// # Errors
    /// Where there is no such directory or bucket, the directory is in use, or what keeps it fails.
    pub fn run(self) -> Result<(), Failure> {
        let location = match self.data_dir {
            Some(dir) => Location::Directory(dir),
            None => self.location.validate().map_err(Failure::usage)?,
        };
        let (store, leases) = open(&location, Notice::new(self.notice))?;
        if let (Location::Bucket(bucket), false) = (&location, self.dry_run) {
            writeln!(io::stderr(), "{}", told(&bucket.name(), self.notice, self.grace))
                .map_err(Failure::new)?;
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
        let report = runtime.map_err(Failure::new)?.block_on(collector.run(&options, list));
        let report = report.map_err(Failure::new)?;
        listed.and_then(|()| out.flush()).map_err(Failure::new)?;
        writeln!(io::stderr(), "{}", summary(&report, self.dry_run)).map_err(Failure::new)
    }
}

/// The store, and what its other processes are told by.
fn open(location: &Location, notice: Notice) -> Result<(Arc<dyn ManagedStore>, Leases), Failure> {
    match location {
        Location::Directory(dir) if !dir.is_dir() => {
            Err(Failure::usage(format!("there is no directory {}", dir.display())))
        }
        Location::Directory(dir) => {
            let store = FilesystemStore::open(dir).map_err(Failure::new)?;
            Ok((Arc::new(store), Leases::default()))
        }
        Location::Bucket(options) => {
            // Nothing is fetched here.
            let scratch_dir = std::env::temp_dir();
            let store = ObjectStorage::open(options, &scratch_dir).map_err(Failure::usage)?;
            Ok((Arc::new(store.clone()), Leases::shared(Arc::new(store), notice)))
        }
    }
}

fn told(bucket: &str, notice: Duration, grace: Duration) -> String {
    let [notice, grace] =
        [notice, grace].map(|span| jiff::SignedDuration::try_from(span).unwrap_or(jiff::SignedDuration::MAX));
    format!(
        "servers of {bucket} are told what is about to go, and have {notice:#} to keep it (--notice); what was written \
         within {grace:#} stays (--grace)"
    )
}

fn summary(report: &GcReport, dry_run: bool) -> String {
    let verb = if dry_run { "would be removed" } else { "removed" };
    let GcReport { removed, reclaimed_bytes, kept, took, .. } = report;
    format!("{removed} blobs {verb}, {reclaimed_bytes} bytes; {kept} kept; {:.1} s", took.as_secs_f64())
}

fn duration(text: &str) -> Result<Duration, String> {
    let span = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    span.ok_or_else(|| "it is written like 90s, 10m or 1h30m".to_owned())
}
