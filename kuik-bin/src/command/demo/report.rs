//! Output of the demonstration.

use std::{io::Write, time::Duration};

use crate::cli_error::CliError;

use super::{REGISTRY, REPOSITORY, TAG, client::Pulled, image::DemoImage, upstream::Download};

/// Prints the progress of the demonstration.
pub(super) struct Report<W> {
    out: W,
    step: usize,
}

impl<W: Write> Report<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, step: 0 }
    }

    /// Prints the image, the upstream and the cache.
    pub(super) fn scene(&mut self, image: &DemoImage, upstream: u16, cache: u16) -> Result<(), CliError> {
        let (platforms, blobs, size) = (image.manifests.len(), image.blobs.len(), size(image.bytes()));
        self.line(&format!(
            "image     {REGISTRY}/{REPOSITORY}:{TAG}, {platforms} platforms, {blobs} blobs, {size}"
        ))?;
        self.line(&format!("upstream  {REGISTRY} is a registry on localhost:{upstream}"))?;
        self.line(&format!("cache     kuik on localhost:{cache}, empty"))
    }

    pub(super) fn step(&mut self, what: &str) -> Result<(), CliError> {
        self.step += 1;
        self.line(&format!("\n{}. {what}", self.step))
    }

    /// Prints what a node pulled, and the source of each part.
    pub(super) fn pull(&mut self, pulled: &[Pulled], downloads: &[Download]) -> Result<(), CliError> {
        self.row("what", "from", "bytes", "first byte", "whole", "digest")?;
        for thing in pulled {
            let digest = thing.digest.as_str();
            let tagged = thing.what.starts_with("index") && downloads.iter().any(|it| it.path.ends_with(TAG));
            let fetched = tagged || downloads.iter().any(|it| it.path.ends_with(digest));
            let from = if fetched { "upstream" } else { "cache" };
            let (first, whole) = (millis(thing.first_byte), millis(thing.took));
            self.row(&thing.what, from, &thing.bytes.to_string(), &first, &whole, digest)?;
        }
        Ok(())
    }

    /// Prints what all nodes received, and what the upstream sent.
    pub(super) fn totals(&mut self, pulls: &[Vec<Pulled>], downloads: &[Download]) -> Result<(), CliError> {
        let got: u64 = pulls.iter().flatten().map(|thing| thing.bytes).sum();
        let sent: u64 = downloads.iter().map(|download| download.bytes).sum();
        let (nodes, downloads) = (pulls.len(), downloads.len());
        self.line(&format!(
            "   {nodes} nodes got {} together; the upstream sent {} in {downloads} downloads",
            size(got),
            size(sent)
        ))
    }

    pub(super) fn done(&mut self, pulled: &[Pulled]) -> Result<(), CliError> {
        let count = pulled.len();
        self.line(&format!(
            "\nok: all {count} digests are those of the upstream, before and after it was stopped"
        ))
    }

    fn row(
        &mut self,
        what: &str,
        from: &str,
        bytes: &str,
        first: &str,
        whole: &str,
        digest: &str,
    ) -> Result<(), CliError> {
        self.line(&format!("   {what:<21} {from:<9} {bytes:>9} {first:>11} {whole:>9}  {digest}"))
    }

    fn line(&mut self, line: &str) -> Result<(), CliError> {
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).map_err(CliError::new)
    }
}

fn size(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
