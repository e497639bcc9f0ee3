//! Concatenation of manifests, with a document separator between them if needed.

use super::chunk::is_json;

/// Returns the pieces to print in sequence. A single manifest is unchanged, byte for byte.
pub(super) fn pieces<'t>(texts: &[&'t str]) -> Vec<&'t str> {
    let mut pieces = Vec::new();
    let mut before: Option<&str> = None;
    for text in texts {
        // A byte order mark is valid only at the start of the output.
        let text = if before.is_some() { text.trim_start_matches('\u{feff}') } else { text };
        if let Some(before) = before {
            pieces.extend(between(before, text));
        }
        pieces.push(text);
        before = Some(text);
    }
    pieces
}

fn between(before: &str, after: &str) -> Vec<&'static str> {
    let mut pieces = Vec::new();
    if !before.is_empty() && !before.ends_with('\n') {
        pieces.push("\n");
    }
    let first = after.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#'));
    match first {
        // JSON documents need no separator.
        _ if is_json(before) && is_json(after) => {}
        Some(line) if line.starts_with("---") => {}
        // A directive is valid only after the end of the previous document.
        Some(line) if line.starts_with('%') => pieces.push("...\n"),
        _ => pieces.push("---\n"),
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(texts: &[&str]) -> String {
        pieces(texts).concat()
    }

    #[test]
    fn single_manifest_is_unchanged() {
        for text in ["", "\u{feff}a: b", "---\r\na: b\r\n...\r\n", "{}"] {
            assert_eq!(joined(&[text]), text);
        }
    }

    #[test]
    fn manifests_are_separated() {
        assert_eq!(joined(&["a: b", "c: d\n"]), "a: b\n---\nc: d\n");
        assert_eq!(joined(&["a: b\n", "# c\n---\nd: e\n"]), "a: b\n# c\n---\nd: e\n");
        assert_eq!(joined(&["a: b\n", "%YAML 1.2\n---\nd: e\n"]), "a: b\n...\n%YAML 1.2\n---\nd: e\n");
        assert_eq!(joined(&["\u{feff}a: b\n", "\u{feff}c: d\n"]), "\u{feff}a: b\n---\nc: d\n");
        assert_eq!(joined(&["{}", "{}\n"]), "{}\n{}\n");
        assert_eq!(joined(&["{}", "a: b\n"]), "{}\n---\na: b\n");
        assert_eq!(joined(&["a: b\n", "", "c: d\n"]), "a: b\n---\n---\nc: d\n");
    }
}
