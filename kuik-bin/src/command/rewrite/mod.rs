//! `kuik rewrite`: rewrites the images in Kubernetes manifests.
//!
//! Images are edited in place in the text: comments, order, quotes, indentation, line endings and unknown fields are
//! preserved byte for byte. Pipeline: `input` reads, `chunk` and `tree` parse, `value` evaluates a document, `workload`
//! finds its pod specs, `scope` selects pods, `kuik_webhook::pod` decides about their images, `shared` finds the text
//! ranges to edit, `edit` edits and verifies that nothing else changed; `plan` combines these for one text, and this file
//! for all.
//!
//! Invariant: standard output gets every manifest, or nothing if there is an error in any of them.

mod chunk;
mod edit;
mod error;
mod input;
mod join;
mod plan;
mod scalar;
mod scope;
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
    rewrite::{ImagePatterns, InvalidPatterns, Rewriter, StandardPolicy},
};

use crate::{cli_error::CliError, config::origins::insecure_hosts};

use self::{
    input::{BadInput, BadInputs, Inputs},
    plan::Rewritten,
    scope::Scope,
};

/// Rewrite the images in manifests to the proxy, and print the manifests.
///
/// Reads YAML or JSON with any number of documents: Pods, every resource with a pod template, and Lists of these. Pods are
/// selected as by the webhook: by namespace, opt-out label and the annotation kuik.enix.io/rewrite-images. Only
/// image values are edited, in place; everything else is preserved byte for byte. The decision about each image is printed
/// to standard error, one line per container. If a manifest cannot be rewritten, nothing is printed, and the exit code is
/// 1; it is 2 if the arguments are invalid.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Manifest file, or `-` for standard input; repeatable.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Port of the proxy on every node.
    #[arg(long, default_value_t = 7439, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Do not rewrite images that match this regular expression; repeatable.
    #[arg(long, value_name = "REGEX")]
    ignore_images: Vec<String>,
    /// Rewrite only images that match one of these regular expressions; repeatable [default: all]
    #[arg(long, value_name = "REGEX")]
    accept_images: Vec<String>,
    /// Do not rewrite images whose pull policy is Always, or defaults to it because the tag is latest or missing.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true")]
    ignore_pull_policy_always: bool,
    /// Do not rewrite pods that a node may need before it can run the proxy: those with the priority class
    /// system-node-critical, and those on the host network that tolerate the taint node.kubernetes.io/not-ready.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true")]
    ignore_node_critical_pods: bool,
    /// Namespace whose pods are not rewritten, in addition to kube-system; repeatable.
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    ignore_namespaces: Vec<String>,
    /// Namespace of the objects that set none, as for `kubectl apply`.
    #[arg(short = 'n', long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Insecure registry of the proxies, HOST[:PORT] or http(s)://HOST[:PORT]: its images are rewritten even if it is on
    /// a loopback address; repeatable.
    #[arg(long, value_name = "REGISTRY", value_delimiter = ',')]
    insecure_registries: Vec<String>,
}

/// An invalid combination of arguments.
#[derive(Debug, thiserror::Error)]
enum Misuse {
    #[error("standard input (`-`) can be given only once")]
    StandardInputTwice,
    #[error(transparent)]
    Patterns(#[from] InvalidPatterns),
}

impl Arguments {
    /// Rewrites the manifests and prints them.
    ///
    /// # Errors
    /// Fails if the arguments are invalid, a manifest cannot be rewritten, or output cannot be written.
    pub fn run(&self) -> Result<(), CliError> {
        let rewriter = self.rewriter().map_err(CliError::usage)?;
        let scope = Scope {
            ignored: self.ignore_namespaces.iter().cloned().collect(),
            default_namespace: self.namespace.clone(),
        };
        let mut inputs = Inputs::new();
        let (mut rewritten, mut refused) = (Vec::with_capacity(self.files.len()), Vec::new());
        for path in &self.files {
            match rewrite(&mut inputs, path, &scope, &rewriter) {
                Ok(manifest) => rewritten.push(manifest),
                Err(error) => refused.push(error),
            }
        }
        if !refused.is_empty() {
            return Err(CliError::new(BadInputs(refused)));
        }
        print(&rewritten).map_err(CliError::new)
    }

    fn rewriter(&self) -> Result<Rewriter, Misuse> {
        if self.files.iter().filter(|path| *path == Path::new("-")).count() > 1 {
            return Err(Misuse::StandardInputTwice);
        }
        let patterns = ImagePatterns::new(&self.ignore_images, &self.accept_images)?;
        let policy = StandardPolicy::new()
            .with_patterns(patterns)
            .with_always_kept(self.ignore_pull_policy_always)
            .with_node_critical_kept(self.ignore_node_critical_pods)
            .with_loopback_registries(insecure_hosts(&self.insecure_registries));
        Ok(Rewriter::new(ProxyAuthority::localhost(self.port), policy))
    }
}

fn rewrite(
    inputs: &mut Inputs,
    path: &PathBuf,
    scope: &Scope,
    rewriter: &Rewriter,
) -> Result<Rewritten, BadInput> {
    let manifest = inputs.read(path)?;
    plan::rewrite(&manifest.text, scope, rewriter).map_err(|bad| BadInput::Bad { name: manifest.name, bad })
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
