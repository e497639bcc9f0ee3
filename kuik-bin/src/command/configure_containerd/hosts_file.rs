//! A `hosts.toml` of containerd as text: our entry goes in and comes out, and every other byte stays.
//!
//! Our entry is a block between two comments, before the first host of the file, because containerd asks hosts in the
//! order in which they are written. The first comment says what was made for it, so that all of that can go again.
//! Invariant: `remove(insert(text)) == text`, and what `insert` returns is TOML.

use std::fmt;

use toml_edit::{Document, Item, Table};

const BEGIN: &str = "# >>> kuik (made: ";
const END: &str = "# <<< kuik";

/// What was made to hold our entry, each with all that stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Made {
    /// The entry alone: the file was there.
    Entry,
    /// The entry, and the end of the line before it, which had none.
    LineEnd,
    /// The file: the folder was there.
    File,
    /// The folder of the registry.
    Folder,
    /// The folder of all registries.
    CertsDir,
}

/// Why a file is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Unusable {
    /// The file is not TOML, so nobody knows what containerd makes of it.
    #[error("it is not TOML (line {line}): mend it, then run this again")]
    NotToml {
        /// The line of the mistake, from 1.
        line: usize,
    },
    /// Its hosts are written in a way that takes no further table.
    #[error("its hosts are not written as [host.\"URL\"] tables: write them so, then run this again")]
    NotTables,
    /// The comment that ends our entry is gone.
    #[error("the line {END:?} that ended kuik's entry is gone: take the entry out by hand")]
    Unended,
}

/// What becomes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Inserted {
    /// Its new text.
    Text(String),
    /// Somebody else has written an entry for our endpoint: it stays theirs.
    Theirs,
}

/// The text with an entry for `endpoint` before every other host, in place of any entry of ours that it has.
/// `text` is `None` where there is no file; `made` is then what has to be made for it.
pub(super) fn insert(text: Option<&str>, endpoint: &str, made: Made) -> Result<Inserted, Unusable> {
    let Some(text) = text else { return Ok(Inserted::Text(block(endpoint, made))) };
    let (bare, earlier) = remove(text)?;
    let document = parsed(&bare)?;
    if names(document.as_table(), endpoint) {
        return Ok(Inserted::Theirs);
    }
    if !are_tables(document.as_table()) {
        return Err(Unusable::NotTables);
    }
    let at =
        first_header(document.as_table()).map_or(bare.len(), |header| before_its_comments(&bare, header));
    // Where it was is as good, as long as nothing has been written in between.
    let at = line_starting(text, BEGIN)
        .filter(|&before| bare.get(before..at).is_some_and(|between| between.trim().is_empty()))
        .unwrap_or(at);
    let (before, after) = bare.split_at_checked(at).unwrap_or((&bare, ""));
    let unended = !before.is_empty() && !before.ends_with('\n');
    // A file that is ours stays ours, whatever has been added to it since.
    let made = match earlier {
        Some(earlier) if earlier >= Made::File => earlier,
        _ if unended => Made::LineEnd,
        _ => Made::Entry,
    };
    let line_end = if made == Made::LineEnd { "\n" } else { "" };
    let merged = format!("{before}{line_end}{}{after}", block(endpoint, made));
    parsed(&merged).map_err(|_| Unusable::NotTables)?;
    Ok(Inserted::Text(merged))
}

/// The text without our entry, and what was made for it; `None` where it has none.
pub(super) fn remove(text: &str) -> Result<(String, Option<Made>), Unusable> {
    let Some(begin) = line_starting(text, BEGIN) else { return Ok((text.to_owned(), None)) };
    let (before, rest) = text.split_at_checked(begin).unwrap_or((text, ""));
    let made = Made::read(rest.strip_prefix(BEGIN).unwrap_or_default());
    let end = line_starting(rest, END).ok_or(Unusable::Unended)?;
    let last = rest.get(end..).unwrap_or_default();
    let after = last.split_once('\n').map_or("", |(_, after)| after);
    let before = if made == Made::LineEnd { before.strip_suffix('\n').unwrap_or(before) } else { before };
    Ok((format!("{before}{after}"), Some(made)))
}

fn block(endpoint: &str, made: Made) -> String {
    format!(
        "{BEGIN}{made}). Written by `kuik-proxy configure-containerd`, and taken out again with --remove.\n\
         # Where kuik does not answer, containerd goes on with the next host, and with the registry itself at last.\n\
         [host.\"{endpoint}\"]\n  capabilities = [\"pull\", \"resolve\"]\n{END}\n"
    )
}

impl Made {
    const ALL: [Self; 5] = [Self::Entry, Self::LineEnd, Self::File, Self::Folder, Self::CertsDir];

    /// What the rest of the first comment says. What cannot be read made nothing but the entry.
    fn read(rest: &str) -> Self {
        let said = rest.split_once(')').map_or("", |(said, _)| said);
        Self::ALL.into_iter().find(|made| made.to_string() == said).unwrap_or(Self::Entry)
    }
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entry => "this entry",
            Self::LineEnd => "this entry, and the line end before it",
            Self::File => "this file",
            Self::Folder => "this file and its folder",
            Self::CertsDir => "this file, its folder and the folder above",
        })
    }
}

fn parsed(text: &str) -> Result<Document<&str>, Unusable> {
    Document::parse(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.get(..start).unwrap_or(text).matches('\n').count() + 1;
        Unusable::NotToml { line }
    })
}

/// Whether the file has a host at `endpoint`.
fn names(root: &Table, endpoint: &str) -> bool {
    let same = |url: &str| url.trim_end_matches('/').eq_ignore_ascii_case(endpoint);
    let hosts = root.get("host").and_then(Item::as_table_like);
    hosts.is_some_and(|hosts| hosts.iter().any(|(url, _)| same(url)))
}

/// Whether every host is a table with a header, so that another can stand before it.
fn are_tables(root: &Table) -> bool {
    let has_header = |item: &Item| item.as_table().is_some_and(|table| !table.is_dotted());
    root.get("host").is_none_or(|hosts| {
        has_header(hosts)
            && hosts.as_table().is_some_and(|hosts| hosts.iter().all(|(_, host)| has_header(host)))
    })
}

/// Where the first `[table]` of a document begins.
fn first_header(table: &Table) -> Option<usize> {
    let own = |table: &Table| (!table.is_dotted()).then(|| table.span()).flatten().map(|span| span.start);
    let of = |table: &Table| own(table).into_iter().chain(first_header(table)).min();
    let first = |item: &Item| match item {
        Item::Table(table) => of(table),
        Item::ArrayOfTables(tables) => tables.iter().filter_map(of).min(),
        _ => None,
    };
    table.iter().filter_map(|(_, item)| first(item)).min()
}

/// The beginning of the line of `header`, or of the comments that stand directly above it and belong to it.
fn before_its_comments(text: &str, header: usize) -> usize {
    let above = text.get(..header).unwrap_or(text);
    let mut at = above.rfind('\n').map_or(0, |end| end + 1);
    for line in text.get(..at).unwrap_or_default().split_inclusive('\n').rev() {
        if !line.trim_start().starts_with('#') {
            break;
        }
        at -= line.len();
    }
    at
}

/// Where the first line begins that starts with `start`.
fn line_starting(text: &str, start: &str) -> Option<usize> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.starts_with(start) {
            return Some(at);
        }
        at += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENDPOINT: &str = "http://127.0.0.1:7439";

    fn inserted(text: &str) -> String {
        match insert(Some(text), ENDPOINT, Made::Entry).unwrap() {
            Inserted::Text(text) => text,
            Inserted::Theirs => panic!("{text} is taken for ours"),
        }
    }

    /// The hosts of a file in the order in which they are written.
    fn hosts(text: &str) -> Vec<String> {
        let document = Document::parse(text).unwrap();
        let table = document.get("host").and_then(Item::as_table).unwrap();
        let mut hosts: Vec<_> = table
            .iter()
            .map(|(url, item)| (item.as_table().unwrap().span().unwrap().start, url.to_owned()))
            .collect();
        hosts.sort();
        hosts.into_iter().map(|(_, url)| url).collect()
    }

    const FILES: [&str; 10] = [
        "",
        "server = \"https://registry-1.docker.io\"\n",
        "server = \"https://registry-1.docker.io\"",
        "# mine\nserver = \"https://r.example\"\n\n# the mirror\n#  of the house\n[host.\"https://m.example\"]\n  \
         capabilities = [\"pull\"]\n",
        "[host.\"https://m.example\"]\n[host.\"https://n.example\".header]\nx-a = \"b\"\n",
        "[host]\n[host.\"https://m.example\"]\nskip_verify = true",
        "client = [\n[\"a.cert\", \"a.key\"],\n]\n[host.\"https://m.example\"]\n",
        "server = \"\"\"\n[host.\\\"x\\\"]\n\"\"\"\n\n  [host.\"https://m.example\"]\n",
        "server = \"https://r.example\"\r\n\r\n[host.\"https://m.example\"]\r\n",
        "\n\n# only a comment",
    ];

    #[test]
    fn ours_is_first_and_everything_else_stays() {
        for text in FILES {
            let merged = inserted(text);
            assert_eq!(hosts(&merged)[0], ENDPOINT, "{merged}");
            let kept = Document::parse(merged.as_str()).unwrap();
            let before = Document::parse(text).unwrap();
            assert_eq!(
                kept.get("server").map(|item| item.as_str()),
                before.get("server").map(|item| item.as_str())
            );
            assert_eq!(remove(&merged).unwrap().0, text, "{merged}");
            assert_eq!(inserted(&merged), merged, "it is idempotent");
        }
        let merged = inserted(FILES[3]);
        let comment = merged.find("# the mirror").unwrap();
        assert!(merged.find(END).unwrap() < comment, "comments stay with what they are about: {merged}");
    }

    #[test]
    fn another_endpoint_takes_the_place_of_the_first() {
        let once = inserted(FILES[3]);
        let Inserted::Text(twice) = insert(Some(&once), "http://127.0.0.1:9", Made::Entry).unwrap() else {
            panic!("it is not theirs")
        };
        assert_eq!(hosts(&twice), ["http://127.0.0.1:9", "https://m.example"]);
        assert_eq!(remove(&twice).unwrap().0, FILES[3]);
    }

    #[test]
    fn a_file_that_is_ours_stays_ours() {
        let Inserted::Text(new) = insert(None, ENDPOINT, Made::Folder).unwrap() else { panic!() };
        assert_eq!(remove(&new).unwrap(), (String::new(), Some(Made::Folder)));
        let grown = format!("{new}\n[host.\"https://m.example\"]\n");
        assert_eq!(inserted(&grown), grown);
        assert_eq!(
            remove(&grown).unwrap(),
            ("\n[host.\"https://m.example\"]\n".to_owned(), Some(Made::Folder))
        );
    }

    #[test]
    fn what_others_wrote_for_our_endpoint_is_theirs() {
        for url in ["http://127.0.0.1:7439", "http://127.0.0.1:7439/", "HTTP://127.0.0.1:7439"] {
            let text = format!("[host.\"{url}\"]\n");
            assert_eq!(insert(Some(&text), ENDPOINT, Made::Entry), Ok(Inserted::Theirs), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_merged_is_left_alone() {
        for (text, expected) in [
            ("server = \n", Unusable::NotToml { line: 1 }),
            ("a = 1\na = 2\n", Unusable::NotToml { line: 2 }),
            ("host.\"https://m.example\".skip_verify = true\n", Unusable::NotTables),
            ("host = {}\n", Unusable::NotTables),
            ("# >>> kuik (made: this entry)\n[host.\"x\"]\n", Unusable::Unended),
        ] {
            assert_eq!(insert(Some(text), ENDPOINT, Made::Entry), Err(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn taking_out_undoes_putting_in(
            before in "(\\PC{0,20}\r?\n){0,3}",
            hosts in prop::collection::btree_set("[a-z]{1,8}", 0..4),
            end in prop::bool::ANY,
        ) {
            let tables: String = hosts.iter().map(|host| format!("# {host}\n[host.\"https://{host}\"]\n")).collect();
            let comments: String = before.lines().map(|line| format!("#{line}\n")).collect();
            let mut text = format!("{comments}{tables}");
            if end && text.ends_with('\n') {
                text.pop();
            }
            if let Ok(Inserted::Text(merged)) = insert(Some(&text), ENDPOINT, Made::Entry) {
                prop_assert_eq!(remove(&merged).unwrap().0, text);
            }
        }
    }
}
