//! Byte range of a value within the source of a YAML scalar, so that only the value is replaced.
//!
//! The parser's range of a scalar includes its anchor and tag, and blanks and a comment after a closing quote; that of a
//! block scalar consists of its lines. The replacement is an image reference, in which no character needs quoting or
//! escaping in any style, so quotes, block headers, indentation and line endings are preserved.

use std::ops::Range;

use saphyr_parser::ScalarStyle;

/// Returns the bytes of `source` (the parser's range of the scalar) to replace with a new value; `None` if the value is not
/// found there.
pub(super) fn value_range(source: &str, style: ScalarStyle, value: &str) -> Option<Range<usize>> {
    let start = after_properties(source);
    let body = source.get(start..)?;
    let inner = match style {
        ScalarStyle::Plain => 0..body.trim_end().len(),
        ScalarStyle::SingleQuoted => 1..closing(body, '\'')?,
        ScalarStyle::DoubleQuoted => 1..closing(body, '"')?,
        ScalarStyle::Literal | ScalarStyle::Folded => {
            let lines = after_header(body);
            let text = body.get(lines..)?;
            let indent = text.len() - text.trim_start().len();
            lines + indent..lines + text.trim_end().len()
        }
    };
    let written = body.get(inner.clone())?;
    // A quoted value may contain escapes or line breaks, so everything between the quotes is replaced.
    let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
    (quoted || written == value).then_some(start + inner.start..start + inner.end)
}

/// Returns the offset after the anchor and the tag, and the blanks and comments that follow them.
fn after_properties(source: &str) -> usize {
    let mut rest = source;
    loop {
        let trimmed = rest.trim_start();
        let skip = match trimmed.chars().next() {
            Some('&' | '!') => trimmed.find(char::is_whitespace),
            Some('#') => trimmed.find(['\n', '\r']),
            _ => None,
        };
        match skip.and_then(|end| trimmed.get(end..)) {
            Some(tail) => rest = tail,
            None => return source.len() - trimmed.len(),
        }
    }
}

/// Returns the offset after the header of a block scalar (`>-`), if there is one.
fn after_header(body: &str) -> usize {
    if !body.starts_with(['|', '>']) {
        return 0;
    }
    body.find('\n').map_or(body.len(), |end| end + 1)
}

/// Returns the offset of the quote that closes the one at the start of `body`.
fn closing(body: &str, quote: char) -> Option<usize> {
    let mut characters = body.char_indices();
    let (_, opening) = characters.next()?;
    if opening != quote {
        return None;
    }
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' if quote == '"' => {
                characters.next();
            }
            found if found == quote => {
                let doubled =
                    quote == '\'' && characters.clone().next().is_some_and(|(_, next)| next == '\'');
                if !doubled {
                    return Some(at);
                }
                characters.next();
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use saphyr_parser::ScalarStyle::{DoubleQuoted, Folded, Literal, Plain, SingleQuoted};

    use super::*;

    fn replaced(source: &str, style: ScalarStyle, value: &str) -> Option<String> {
        let range = value_range(source, style, value)?;
        let mut text = source.to_owned();
        text.replace_range(range, "NEW");
        Some(text)
    }

    #[test]
    fn value_range_excludes_everything_but_the_value() {
        let cases = [
            ("nginx", Plain, "nginx", "NEW"),
            ("&nginx nginx", Plain, "nginx", "&nginx NEW"),
            ("&a !!str\n  # why\n  nginx", Plain, "nginx", "&a !!str\n  # why\n  NEW"),
            ("'nginx'  # it's", SingleQuoted, "nginx", "'NEW'  # it's"),
            ("'a''b' ", SingleQuoted, "a'b", "'NEW' "),
            ("\"nginx\\u003a1\" # \"x\"", DoubleQuoted, "nginx:1", "\"NEW\" # \"x\""),
            ("\"a\\\"b\"", DoubleQuoted, "a\"b", "\"NEW\""),
            ("\"ngi\\\n   nx\"", DoubleQuoted, "nginx", "\"NEW\""),
            ("&a \"nginx\"", DoubleQuoted, "nginx", "&a \"NEW\""),
            ("  nginx\r\n\r\n", Folded, "nginx", "  NEW\r\n\r\n"),
            ("&a |- # c\n    nginx\n", Literal, "nginx", "&a |- # c\n    NEW\n"),
        ];
        for (source, style, value, expected) in cases {
            assert_eq!(replaced(source, style, value).as_deref(), Some(expected), "{source:?}");
        }
    }

    #[test]
    fn value_range_is_none_if_the_source_differs() {
        for (source, style, value) in [
            ("foo\n  bar", Plain, "foo bar"),
            ("  a\n  b\n", Folded, "a b"),
            ("nginx", SingleQuoted, "nginx"),
            ("'nginx", SingleQuoted, "nginx"),
            ("\"nginx\\\"", DoubleQuoted, "nginx"),
            ("", Plain, "nginx"),
            ("", DoubleQuoted, "nginx"),
        ] {
            assert_eq!(replaced(source, style, value), None, "{source:?}");
        }
    }
}
