//! `kuik rewrite`: manifests in, the same manifests with their images rewritten out.
//!
//! Images are edited in place in the text: comments, order, quotes, indentation, line ends and whatever this build
//! has never heard of come out byte for byte as they went in. The way through: `input` reads, `chunk` and `tree`
//! parse, `value` says what a document means, `workload` finds its pod specs, `kuik_webhook::pod` decides about
//! their images, `shared` finds the texts to edit, `edit` edits and proves that nothing else changed; `plan`
//! puts these together for one text, and this file for all of them.
//!
//! Invariant: standard output gets every manifest, or, where anything is wrong with any of them, nothing.

mod chunk;
mod edit;
mod error;
mod input;
mod join;
mod plan;
mod scalar;
mod shared;
mod tree;
mod value;
mod workload;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use kuik_core::{
    reference::ProxyAuthority,
    rewrite::{ImagePatterns, InvalidPatterns, StandardPolicy},
};

use super::Failure;

use self::{
    input::{BadInput, BadInputs, Inputs},
    plan::Rewritten,
};

/// Rewrite the images in manifests to the proxy, and print the manifests.
///
/// Reads YAML or JSON, many documents: Pods, everything that holds a pod template, and Lists of these. Only images
/// change, where they are written; everything else comes out byte for byte. What became of each image is said on
/// standard error, one line a container. The exit code is 1 where a manifest cannot be read, and nothing is printed
/// then; it is 2 where the command line is wrong.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A manifest, or `-` for standard input; may be given several times.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The port of the proxy on every node.
    #[arg(long, default_value_t = 7439, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Keep the images that this regular expression matches; may be given several times.
    #[arg(long, value_name = "REGEX")]
    ignore_images: Vec<String>,
    /// Keep the images that none of these regular expressions matches; may be given several times.
    #[arg(long, value_name = "REGEX")]
    accept_images: Vec<String>,
    /// Keep images whose pull policy is Always, or becomes that because their tag is `latest` or none.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true")]
    ignore_pull_policy_always: bool,
}

/// What is wrong with the command line.
#[derive(Debug, thiserror::Error)]
enum Misuse {
    #[error("standard input (`-`) can be read once")]
    StandardInputTwice,
    #[error(transparent)]
    Patterns(#[from] InvalidPatterns),
}

impl Arguments {
    /// Rewrites the manifests and prints them.
    ///
    /// # Errors
    /// Where the command line is wrong, manifests cannot be rewritten, or output cannot be written.
    pub fn run(&self) -> Result<(), Failure> {
        let policy = self.policy().map_err(Failure::usage)?;
        let mut inputs = Inputs::new();
        let (mut rewritten, mut refused) = (Vec::with_capacity(self.files.len()), Vec::new());
        for path in &self.files {
            match rewrite(&mut inputs, path, &policy) {
                Ok(manifest) => rewritten.push(manifest),
                Err(error) => refused.push(error),
            }
        }
        if !refused.is_empty() {
            return Err(Failure::new(BadInputs(refused)));
        }
        print(&rewritten).map_err(Failure::new)
    }

    fn policy(&self) -> Result<StandardPolicy, Misuse> {
        if self.files.iter().filter(|path| *path == Path::new("-")).count() > 1 {
            return Err(Misuse::StandardInputTwice);
        }
        let patterns = ImagePatterns::new(&self.ignore_images, &self.accept_images)?;
        Ok(StandardPolicy::new(ProxyAuthority::localhost(self.port))
            .with_patterns(patterns)
            .with_always_kept(self.ignore_pull_policy_always))
    }
}

fn rewrite(inputs: &mut Inputs, path: &PathBuf, policy: &StandardPolicy) -> Result<Rewritten, BadInput> {
    let manifest = inputs.read(path)?;
    plan::rewrite(&manifest.text, policy).map_err(|bad| BadInput::Bad { name: manifest.name, bad })
}

fn print(manifests: &[Rewritten]) -> io::Result<()> {
    let mut decisions = io::BufWriter::new(io::stderr().lock());
    for line in manifests.iter().flat_map(|manifest| &manifest.lines) {
        writeln!(decisions, "{line}")?;
    }
    decisions.flush()?;
    let texts: Vec<_> = manifests.iter().map(|manifest| manifest.text.as_str()).collect();
    let mut output = io::stdout().lock();
    for piece in join::pieces(&texts) {
        output.write_all(piece.as_bytes())?;
    }
    output.flush()
}
