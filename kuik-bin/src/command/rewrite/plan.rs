//! What becomes of a manifest: its text with the images rewritten, and a line about each of them. Pure.

use std::fmt;

use kuik_core::rewrite::{Decision, KeepReason, RewritePolicy};
use kuik_webhook::pod::{self, OptedOut, Problem, SiteKind};

use super::{
    edit::{Edit, apply},
    error::{BadManifest, Position},
    shared::{Conflict, Wish, settle},
    tree::{Slot, Tree, documents},
    workload::workloads,
};

/// A manifest after its images were rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rewritten {
    pub(super) text: String,
    pub(super) lines: Vec<Line>,
}

/// What became of one image: `Pod/default/web, container web: nginx -> localhost:7439/nginx`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Kind, namespace and name of what holds the pod spec.
    object: String,
    kind: SiteKind,
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

/// Rewrites every image of every pod spec in `text` that `policy` wants rewritten.
pub(super) fn rewrite(text: &str, policy: &dyn RewritePolicy) -> Result<Rewritten, BadManifest> {
    let (mut edits, mut lines) = (Vec::new(), Vec::new());
    for tree in documents(text)? {
        document(text, &tree, policy, &mut edits, &mut lines)?;
    }
    Ok(Rewritten { text: apply(text, &edits)?, lines })
}

fn document(
    text: &str,
    tree: &Tree,
    policy: &dyn RewritePolicy,
    edits: &mut Vec<Edit>,
    lines: &mut Vec<Line>,
) -> Result<(), BadManifest> {
    let value = tree.to_value()?;
    // The slot of each line that wants one, and the line.
    let mut wishes: Vec<(Slot, usize)> = Vec::new();
    for workload in workloads(&value) {
        let object = workload.of.to_string();
        let policy = if workload.opts_out { &OptedOut } else { policy };
        let decisions = pod::decide(workload.pod_spec, &workload.pointer, policy);
        for decided in &decisions.decided {
            wishes.push((slot(tree, &decided.site)?, lines.len()));
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

/// Where in the tree an image is; it must say there what it says in the value that was made of the tree.
fn slot(tree: &Tree, site: &pod::ImageSite<'_>) -> Result<Slot, BadManifest> {
    let slot = tree.resolve(&site.pointer);
    let same = |slot: &Slot| tree.scalar(slot.node).is_some_and(|scalar| &*scalar.text == site.image);
    slot.filter(same).ok_or_else(|| {
        let at = tree.node(tree.root.node).map_or(Position::START, |root| root.at);
        at.bad(format!("in the document that starts here, {} is not to be found again", site.pointer))
    })
}

impl Line {
    fn decided(object: &str, decided: &pod::Decided<'_>) -> Self {
        let outcome = match (&decided.decision, decided.change()) {
            (Decision::Keep(reason), _) => Outcome::Kept(reason.clone()),
            (Decision::Rewrite { .. }, Some(to)) => Outcome::Rewritten { to: to.to_owned() },
            (Decision::Rewrite { .. }, None) => Outcome::Already,
        };
        Self {
            object: object.to_owned(),
            kind: decided.site.kind,
            name: decided.site.name.unwrap_or("-").to_owned(),
            image: Some(decided.site.image.to_owned()),
            outcome,
        }
    }

    fn skipped(object: &str, skipped: pod::Skipped) -> Self {
        Self {
            object: object.to_owned(),
            kind: skipped.kind,
            name: skipped.name.unwrap_or_else(|| "-".to_owned()),
            image: None,
            outcome: Outcome::Skipped { pointer: skipped.pointer, problem: skipped.problem },
        }
    }

    /// The image as it is to be.
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
            self.kind,
            Printable(&self.name),
            Printable(image)
        )?;
        match &self.outcome {
            Outcome::Rewritten { to } => write!(f, "-> {}", Printable(to)),
            Outcome::Already => f.write_str("kept: it points to the proxy already"),
            Outcome::Kept(reason) => write!(f, "kept: {}", Printable(&reason.to_string())),
            Outcome::Conflict(conflict) => write!(f, "kept: {conflict}"),
            Outcome::Skipped { pointer, problem } => write!(f, "kept: {} {problem}", Printable(pointer)),
        }
    }
}

/// A text from a manifest, in one line and without what a terminal would obey.
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
    use kuik_core::{reference::ProxyAuthority, rewrite::StandardPolicy};

    use super::*;

    fn policy() -> StandardPolicy {
        StandardPolicy::new(ProxyAuthority::localhost(7439))
    }

    const MANIFEST: &str = "\u{feff}x: &i 'nginx:1' # é\r\n\
        kind: Pod\n\
        spec:\n  containers:\n\
        \u{20} - {name: a, image: *i}\n\
        \u{20} - &c\n    name: \"b\"\n    image: >-\n      busybox:2\n\
        \u{20} - <<: *c\n\
        \u{20} - {\"image\":\"quay.io\\/app:1\"}\n\
        ---\n{\"kind\": \"Pod\"}\n";

    /// Whatever becomes of a manifest on its way here, it is an error or it is rewritten soundly.
    #[test]
    fn no_damage_to_a_manifest_makes_an_unsound_rewrite() {
        let policy = policy();
        assert_ne!(rewrite(MANIFEST, &policy).unwrap().text, MANIFEST);
        let cuts = MANIFEST.char_indices().map(|(at, _)| MANIFEST[..at].to_owned());
        let damages = MANIFEST.char_indices().flat_map(|(at, old)| {
            "\n\t :-*&!|>'\"{}[]#,%@\\é"
                .chars()
                .map(move |new| format!("{}{new}{}", &MANIFEST[..at], &MANIFEST[at + old.len_utf8()..]))
        });
        let mut sound = 0;
        for text in cuts.chain(damages) {
            if let Ok(once) = rewrite(&text, &policy) {
                let twice = rewrite(&once.text, &policy).unwrap();
                assert_eq!(twice.text, once.text, "{text:?}");
                sound += 1;
            }
        }
        assert!(sound > 100, "{sound}");
    }

    #[test]
    fn a_pod_that_opts_out_is_left_alone() {
        let pod = |labels: &str| {
            format!(
                "metadata: {{labels: {{{labels}}}}}\nspec: {{containers: [{{name: a, image: 'nginx:1'}}]}}\n"
            )
        };
        let label = "kube-image-keeper.enix.io/image-caching-policy: ignore";
        let text = format!("kind: Pod\n{}", pod(label));
        let kept = rewrite(&text, &policy()).unwrap();
        assert_eq!(kept.text, text);
        assert!(kept.lines[0].to_string().ends_with("kept: its pod opts out by label"), "{}", kept.lines[0]);
        // A Deployment's own labels are not those of its pods.
        let text = format!(
            "kind: Deployment\nmetadata: {{labels: {{{label}}}}}\nspec: {{template: {{spec: {{containers: [{{name: a, image: 'nginx:1'}}]}}}}}}\n"
        );
        assert_ne!(rewrite(&text, &policy()).unwrap().text, text);
    }

    #[test]
    fn a_line_is_one_line_and_obeyed_by_no_terminal() {
        let text = "kind: \"Po\\nd\"\nspec: {template: {spec: {containers: [{name: \"\\e[2J\", image: \"\\u009b1m\"}]}}}";
        let rewritten = rewrite(text, &policy()).unwrap();
        let line = rewritten.lines[0].to_string();
        assert!(line.starts_with("Po\\nd/-/-, container \\u{1b}[2J: \\u{9b}1m kept: "), "{line}");
        assert!(!line.contains(char::is_control));
    }
}
