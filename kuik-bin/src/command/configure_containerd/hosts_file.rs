//! Editor of containerd's `hosts.toml`: inserts and removes kuik's entry, and preserves every other byte.
//!
//! The entry is a block between two comments, before the first host of the file, because containerd tries hosts in file
//! order. The first comment records what was created for the entry, so that all of it can be removed.
//! Invariant: `remove(insert(text)) == text`, and what `insert` returns is TOML.

use std::fmt;

use toml_edit::{Document, Item, Table};

const BEGIN: &str = "# >>> kuik (made: ";
const END: &str = "# <<< kuik";

/// Extent of what was created for the entry; each variant includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Made {
    /// The entry: the file existed.
    Entry,
    /// The entry, and a missing line ending before it.
    LineEnd,
    /// The file: the directory existed.
    File,
    /// The directory of the registry.
    Folder,
    /// The directory of all registries.
    CertsDir,
}

/// Error of a file that cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Unusable {
    /// The file is not TOML, so its meaning to containerd is unknown.
    #[error("it is not TOML (line {line}): fix it, then run this command again")]
    NotToml {
        /// The line of the mistake, from 1.
        line: usize,
    },
    /// Its hosts are written in a form that no table can be added to.
    #[error(
        "its hosts are not written as [host.\"URL\"] tables: rewrite them as tables, then run this command again"
    )]
    NotTables,
    /// The comment that ends kuik's entry is missing.
    #[error("the line {END:?} that ends kuik's entry is missing: remove the entry by hand")]
    Unended,
}

/// Result of an insertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Inserted {
    /// Its new text.
    Text(String),
    /// The file has an entry for the endpoint that kuik did not write.
    Foreign,
}

/// The hosts of kuik's entry, as URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoints {
    /// The proxy on the node.
    pub(super) proxy: String,
    /// Tried in this order if the proxy does not respond.
    pub(super) fallbacks: Vec<String>,
}

/// Inserts an entry for `endpoints` before every other host, replacing an existing entry of kuik. `text` is `None` if there
/// is no file; `made` is then what has to be created for it. A fallback that the file already has keeps its place.
pub(super) fn insert(text: Option<&str>, endpoints: &Endpoints, made: Made) -> Result<Inserted, Unusable> {
    let Some(text) = text else { return Ok(Inserted::Text(block(&endpoints.all(&Table::new()), made))) };
    let (bare, earlier) = remove(text)?;
    let document = parsed(&bare)?;
    if names(document.as_table(), &endpoints.proxy) {
        return Ok(Inserted::Foreign);
    }
    let hosts = endpoints.all(document.as_table());
    if !are_tables(document.as_table()) {
        return Err(Unusable::NotTables);
    }
    let at =
        first_header(document.as_table()).map_or(bare.len(), |header| before_its_comments(&bare, header));
    // Keep the previous position, unless something has been written in between.
    let at = line_starting(text, BEGIN)
        .filter(|&before| bare.get(before..at).is_some_and(|between| between.trim().is_empty()))
        .unwrap_or(at);
    let (before, after) = bare.split_at_checked(at).unwrap_or((&bare, ""));
    let unended = !before.is_empty() && !before.ends_with('\n');
    // A file that kuik created stays marked as such, whatever has been added to it since.
    let made = match earlier {
        Some(earlier) if earlier >= Made::File => earlier,
        _ if unended => Made::LineEnd,
        _ => Made::Entry,
    };
    let line_end = if made == Made::LineEnd { "\n" } else { "" };
    let merged = format!("{before}{line_end}{}{after}", block(&hosts, made));
    parsed(&merged).map_err(|_| Unusable::NotTables)?;
    Ok(Inserted::Text(merged))
}

/// Removes kuik's entry, and returns what was created for it; `None` if there is no entry.
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

fn block(hosts: &[&str], made: Made) -> String {
    let table = |url: &&str| format!("[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    format!(
        "{BEGIN}{made}). Written by `kuik-proxy configure-containerd`; remove it with --remove.\n\
         # If kuik does not respond, containerd tries the next host, and finally the registry itself.\n\
         {}{END}\n",
        hosts.iter().map(table).collect::<String>()
    )
}

impl Endpoints {
    /// Returns the hosts to write into a file with these tables: the proxy, and the fallbacks that the file lacks.
    fn all(&self, file: &Table) -> Vec<&str> {
        let mut all = vec![self.proxy.as_str()];
        for fallback in &self.fallbacks {
            if !all.contains(&fallback.as_str()) && !names(file, fallback) {
                all.push(fallback);
            }
        }
        all
    }
}

impl Made {
    const ALL: [Self; 5] = [Self::Entry, Self::LineEnd, Self::File, Self::Folder, Self::CertsDir];

    /// Parses the rest of the first comment; falls back to [`Self::Entry`].
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

/// Returns whether the file has a host at `endpoint`.
fn names(root: &Table, endpoint: &str) -> bool {
    let same = |url: &str| url.trim_end_matches('/').eq_ignore_ascii_case(endpoint);
    let hosts = root.get("host").and_then(Item::as_table_like);
    hosts.is_some_and(|hosts| hosts.iter().any(|(url, _)| same(url)))
}

/// Returns whether every host is a table with a header, so that another can be inserted before it.
fn are_tables(root: &Table) -> bool {
    let has_header = |item: &Item| item.as_table().is_some_and(|table| !table.is_dotted());
    root.get("host").is_none_or(|hosts| {
        has_header(hosts)
            && hosts.as_table().is_some_and(|hosts| hosts.iter().all(|(_, host)| has_header(host)))
    })
}

/// Returns the offset of the first `[table]` of a document.
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

/// Returns the start of the line of `header`, or of the comments directly above it.
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

/// Returns the offset of the first line that starts with `start`.
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

    fn at(proxy: &str) -> Endpoints {
        Endpoints { proxy: proxy.to_owned(), fallbacks: Vec::new() }
    }

    fn inserted(text: &str) -> String {
        match insert(Some(text), &at(ENDPOINT), Made::Entry).unwrap() {
            Inserted::Text(text) => text,
            Inserted::Foreign => panic!("{text} is treated as an entry of kuik"),
        }
    }

    /// Returns the hosts of a file in file order.
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
    fn entry_is_inserted_first_and_removal_restores_the_file() {
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
            assert_eq!(inserted(&merged), merged, "not idempotent");
        }
        let merged = inserted(FILES[3]);
        let comment = merged.find("# the mirror").unwrap();
        assert!(merged.find(END).unwrap() < comment, "comments stay with their table: {merged}");
    }

    #[test]
    fn new_endpoint_replaces_the_previous_one() {
        let once = inserted(FILES[3]);
        let Inserted::Text(twice) = insert(Some(&once), &at("http://127.0.0.1:9"), Made::Entry).unwrap()
        else {
            panic!("a foreign entry")
        };
        assert_eq!(hosts(&twice), ["http://127.0.0.1:9", "https://m.example"]);
        assert_eq!(remove(&twice).unwrap().0, FILES[3]);
    }

    #[test]
    fn fallbacks_follow_the_proxy_and_precede_other_hosts() {
        let fallbacks = ["http://10.96.0.7:5000", ENDPOINT, "https://m.example"].map(str::to_owned).to_vec();
        let endpoints = Endpoints { proxy: ENDPOINT.to_owned(), fallbacks };
        for (text, expected) in [
            (None, vec![ENDPOINT, "http://10.96.0.7:5000", "https://m.example"]),
            (Some(FILES[3]), vec![ENDPOINT, "http://10.96.0.7:5000", "https://m.example"]),
        ] {
            let Inserted::Text(merged) = insert(text, &endpoints, Made::File).unwrap() else {
                panic!("{text:?}")
            };
            assert_eq!(hosts(&merged), expected, "{merged}");
            assert_eq!(insert(Some(&merged), &endpoints, Made::File), Ok(Inserted::Text(merged.clone())));
            assert_eq!(remove(&merged).unwrap().0, text.unwrap_or_default());
        }
    }

    #[test]
    fn created_file_stays_marked_as_created() {
        let Inserted::Text(new) = insert(None, &at(ENDPOINT), Made::Folder).unwrap() else { panic!() };
        assert_eq!(remove(&new).unwrap(), (String::new(), Some(Made::Folder)));
        let grown = format!("{new}\n[host.\"https://m.example\"]\n");
        assert_eq!(inserted(&grown), grown);
        assert_eq!(
            remove(&grown).unwrap(),
            ("\n[host.\"https://m.example\"]\n".to_owned(), Some(Made::Folder))
        );
    }

    #[test]
    fn foreign_entry_for_the_endpoint_is_kept() {
        for url in ["http://127.0.0.1:7439", "http://127.0.0.1:7439/", "HTTP://127.0.0.1:7439"] {
            let text = format!("[host.\"{url}\"]\n");
            assert_eq!(insert(Some(&text), &at(ENDPOINT), Made::Entry), Ok(Inserted::Foreign), "{url}");
        }
    }

    #[test]
    fn files_that_cannot_be_merged_are_rejected() {
        for (text, expected) in [
            ("server = \n", Unusable::NotToml { line: 1 }),
            ("a = 1\na = 2\n", Unusable::NotToml { line: 2 }),
            ("host.\"https://m.example\".skip_verify = true\n", Unusable::NotTables),
            ("host = {}\n", Unusable::NotTables),
            ("# >>> kuik (made: this entry)\n[host.\"x\"]\n", Unusable::Unended),
        ] {
            assert_eq!(insert(Some(text), &at(ENDPOINT), Made::Entry), Err(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn remove_reverts_insert(
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
            if let Ok(Inserted::Text(merged)) = insert(Some(&text), &at(ENDPOINT), Made::Entry) {
                prop_assert_eq!(remove(&merged).unwrap().0, text);
            }
        }
    }
}
