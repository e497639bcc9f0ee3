//! `kuik gc`: collects the garbage of a data directory that nobody has open.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use kuik_core::content::StoredBlob;
use kuik_proxy::{
    gc::{Collector, GcOptions, GcReport, Leases},
    store::FilesystemStore,
};

use super::Failure;

/// Remove from a data directory what no tag and no manifest refers to.
///
/// The directory must not be in use by a server. What goes is listed on standard output, one
/// line each: size in bytes, a tab, digest. The sum follows on standard error. It can be interrupted and run again.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The directory: a volume of kuik or of Docker's registry
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// List what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep what was written more recently than so long ago, such as 90s, 10m, 1h
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    grace: Duration,
    /// Remove manifests too that no tag leads to
    #[arg(long)]
    delete_untagged: bool,
}

impl Arguments {
    /// Collects, and says what went.
    ///
    /// # Errors
    /// Where there is no such directory, it is in use, or its disk fails.
    pub fn run(self) -> Result<(), Failure> {
        if !self.data_dir.is_dir() {
            return Err(Failure::usage(format!("there is no directory {}", self.data_dir.display())));
        }
        let store = FilesystemStore::open(&self.data_dir).map_err(Failure::new)?;
        let mut options = GcOptions::default();
        (options.grace, options.delete_untagged, options.dry_run) =
            (self.grace, self.delete_untagged, self.dry_run);
        let collector = Collector::new(Arc::new(store), Leases::default());
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

fn summary(report: &GcReport, dry_run: bool) -> String {
    let verb = if dry_run { "would be removed" } else { "removed" };
    let GcReport { removed, reclaimed_bytes, kept, took, .. } = report;
    format!("{removed} blobs {verb}, {reclaimed_bytes} bytes; {kept} kept; {:.1} s", took.as_secs_f64())
}

fn duration(text: &str) -> Result<Duration, String> {
    let span = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    span.ok_or_else(|| "it is written like 90s, 10m or 1h30m".to_owned())
}
