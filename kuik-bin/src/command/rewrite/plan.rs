//! Rewrite plan of a manifest: its text with the images rewritten, and a report line for each image. Pure.

use std::fmt;

use kuik_core::rewrite::{ImageRewrite, KeepReason, Rewriter};
use kuik_webhook::pod::{self, ImageField, KeepAll, Problem};

use super::{
    edit::{Edit, apply},
    error::{BadManifest, Position},
    scope::Scope,
    shared::{Conflict, Wish, settle},
    tree::{Slot, Tree, documents},
    workload::workloads,
};

/// A rewritten manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rewritten {
    pub(super) text: String,
    pub(super) lines: Vec<Line>,
}

/// Report about one image: `Pod/default/web, container web: nginx -> localhost:7439/nginx`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Kind, namespace and name of the object with the pod spec.
    object: String,
    field: ImageField,
    name: String,
    image: Option<String>,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Rewritten { to: String },
    Already,
    Kept(KeepReason),
    Conflict(Conflict),
    Skipped { pointer: String, problem: Problem },
}

/// Rewrites the images of every pod spec in `text` that is in scope with `rewriter`.
pub(super) fn rewrite(text: &str, scope: &Scope, rewriter: &Rewriter) -> Result<Rewritten, BadManifest> {
    let (mut edits, mut lines) = (Vec::new(), Vec::new());
    for tree in documents(text)? {
        document(text, &tree, (scope, rewriter), &mut edits, &mut lines)?;
    }
    Ok(Rewritten { text: apply(text, &edits)?, lines })
}

fn document(
    text: &str,
    tree: &Tree,
    (scope, rewriter): (&Scope, &Rewriter),
    edits: &mut Vec<Edit>,
    lines: &mut Vec<Line>,
) -> Result<(), BadManifest> {
    let value = tree.to_value()?;
    // Slots of the lines whose image may change, with the lines.
    let mut wishes: Vec<(Slot, usize)> = Vec::new();
    for workload in workloads(&value) {
        let object = workload.of.to_string();
        let kept = scope.excludes(&workload).map(|reason| rewriter.clone().with_policy(KeepAll(reason)));
        let rewriter = kept.as_ref().unwrap_or(rewriter);
        let decisions =
            pod::decide(workload.pod_spec, &workload.pointer, workload.metadata.context(), rewriter);
        for decided in &decisions.decided {
            wishes.push((slot(tree, &decided.source)?, lines.len()));
            lines.push(Line::decided(&object, decided));
        }
        lines.extend(decisions.skipped.into_iter().map(|skipped| Line::skipped(&object, skipped)));
    }
    let (granted, conflicts) = {
        let wish = |(slot, line): &(Slot, usize)| Wish {
            slot: *slot,
            image: lines.get(*line).map(Line::result).unwrap_or_default(),
        };
        settle(text, tree, &wishes.iter().map(wish).collect::<Vec<_>>())
    };
    edits.extend(granted);
    for (wish, conflict) in conflicts {
        if let Some(line) = wishes.get(wish).and_then(|(_, line)| lines.get_mut(*line)) {
            line.outcome = Outcome::Conflict(conflict);
        }
    }
    Ok(())
}

/// Returns the position of an image in the tree; the text there must equal the value made from the tree.
fn slot(tree: &Tree, source: &pod::PodImage<'_>) -> Result<Slot, BadManifest> {
    let slot = tree.resolve(&source.pointer);
    let same = |slot: &Slot| tree.scalar(slot.node).is_some_and(|scalar| &*scalar.text == source.image);
    slot.filter(same).ok_or_else(|| {
        let at = tree.node(tree.root.node).map_or(Position::START, |root| root.at);
        at.bad(format!("cannot find {} in the document that starts here", source.pointer))
    })
}

impl Line {
    fn decided(object: &str, decided: &pod::Decided<'_>) -> Self {
        let outcome = match (&decided.rewrite, decided.change()) {
            (_, Some(image)) => Outcome::Rewritten { to: image.to_owned() },
            (ImageRewrite::Kept(reason), None) => Outcome::Kept(reason.clone()),
            (ImageRewrite::AlreadyRewritten | ImageRewrite::Rewritten { .. }, None) => Outcome::Already,
        };
        Self {
            object: object.to_owned(),
            field: decided.source.field,
            name: decided.source.name.unwrap_or("-").to_owned(),
            image: Some(decided.source.image.to_owned()),
            outcome,
        }
    }

    fn skipped(object: &str, skipped: pod::Skipped) -> Self {
        Self {
            object: object.to_owned(),
            field: skipped.field,
            name: skipped.name.unwrap_or_else(|| "-".to_owned()),
            image: None,
            outcome: Outcome::Skipped { pointer: skipped.pointer, problem: skipped.problem },
        }
    }

    /// Returns the resulting image.
    fn result(&self) -> &str {
        match &self.outcome {
            Outcome::Rewritten { to } => to,
            _ => self.image.as_deref().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let image = self.image.as_deref().unwrap_or("-");
        write!(
            f,
            "{}, {} {}: {} ",
            Printable(&self.object),
            self.field,
            Printable(&self.name),
            Printable(image)
        )?;
        match &self.outcome {
            Outcome::Rewritten { to } => write!(f, "-> {}", Printable(to)),
            Outcome::Already => f.write_str("kept: already points to the proxy"),
            Outcome::Kept(reason) => write!(f, "kept: {}", Printable(&reason.to_string())),
            Outcome::Conflict(conflict) => write!(f, "kept: {conflict}"),
            Outcome::Skipped { pointer, problem } => write!(f, "kept: {} {problem}", Printable(pointer)),
        }
    }
}

/// A string from a manifest, on one line and without control characters.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                fmt::Write::write_char(f, character)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kuik_core::{
        reference::ProxyAuthority,
        rewrite::{Rewriter, StandardPolicy},
    };

    use super::*;

    fn rewriter() -> Rewriter {
        Rewriter::new(ProxyAuthority::localhost(7439), StandardPolicy::new())
    }

    fn rewrite(text: &str, rewriter: &Rewriter) -> Result<Rewritten, BadManifest> {
        super::rewrite(text, &Scope::default(), rewriter)
    }

    const MANIFEST: &str = "\u{feff}x: &i 'nginx:1' # é\r\n\
        kind: Pod\n\
        spec:\n  containers:\n\
        \u{20} - {name: a, image: *i}\n\
        \u{20} - &c\n    name: \"b\"\n    image: >-\n      busybox:2\n\
        \u{20} - <<: *c\n\
        \u{20} - {\"image\":\"quay.io\\/app:1\"}\n\
        ---\n{\"kind\": \"Pod\"}\n";

    /// A damaged manifest either causes an error or is rewritten correctly.
    #[test]
    fn damaged_manifests_fail_or_are_rewritten_correctly() {
        let rewriter = rewriter();
        assert_ne!(rewrite(MANIFEST, &rewriter).unwrap().text, MANIFEST);
        let cuts = MANIFEST.char_indices().map(|(at, _)| MANIFEST[..at].to_owned());
        let damages = MANIFEST.char_indices().flat_map(|(at, old)| {
            "\n\t :-*&!|>'\"{}[]#,%@\\é"
                .chars()
                .map(move |new| format!("{}{new}{}", &MANIFEST[..at], &MANIFEST[at + old.len_utf8()..]))
        });
        let mut sound = 0;
        for text in cuts.chain(damages) {
            if let Ok(once) = rewrite(&text, &rewriter) {
                let twice = rewrite(&once.text, &rewriter).unwrap();
                assert_eq!(twice.text, once.text, "{text:?}");
                sound += 1;
            }
        }
        assert!(sound > 100, "{sound}");
    }

    #[test]
    fn pod_with_opt_out_label_is_not_rewritten() {
        let pod = |labels: &str| {
            format!(
                "metadata: {{labels: {{{labels}}}}}\nspec: {{containers: [{{name: a, image: 'nginx:1'}}]}}\n"
            )
        };
        let label = "kube-image-keeper.enix.io/image-caching-policy: ignore";
        let text = format!("kind: Pod\n{}", pod(label));
        let kept = rewrite(&text, &rewriter()).unwrap();
        assert_eq!(kept.text, text);
        assert!(kept.lines[0].to_string().ends_with("kept: pod opted out by label"), "{}", kept.lines[0]);
        // The labels of a Deployment are not those of its pods.
        let text = format!(
            "kind: Deployment\nmetadata: {{labels: {{{label}}}}}\nspec: {{template: {{spec: {{containers: [{{name: a, image: 'nginx:1'}}]}}}}}}\n"
        );
        assert_ne!(rewrite(&text, &rewriter()).unwrap().text, text);
    }

    #[test]
    fn report_lines_escape_control_characters() {
        let text = "kind: \"Po\\nd\"\nspec: {template: {spec: {containers: [{name: \"\\e[2J\", image: \"\\u009b1m\"}]}}}";
        let rewritten = rewrite(text, &rewriter()).unwrap();
        let line = rewritten.lines[0].to_string();
        assert!(line.starts_with("Po\\nd/-/-, container \\u{1b}[2J: \\u{9b}1m kept: "), "{line}");
        assert!(!line.contains(char::is_control));
    }
}
