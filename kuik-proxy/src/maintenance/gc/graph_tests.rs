//! Tables and properties of reachability.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn digest(name: &str) -> Digest {
    Digest::sha256(name.as_bytes())
}

fn graph(edges: &[(&str, &str)], roots: &[&str]) -> Graph {
    let mut graph = Graph::default();
    edges.iter().for_each(|(from, to)| graph.add_edge(&digest(from), &digest(to)));
    roots.iter().for_each(|root| graph.add_root(&digest(root)));
    graph
}

#[test]
fn reachable_follows_edges_from_roots() {
    let shared = [("i1", "base"), ("i1", "top"), ("i2", "base"), ("x", "y"), ("y", "x"), ("s", "s")];
    for (what, edges, roots, kept, gone) in [
        ("a shared layer stays", &shared[..], &["i2"][..], &["i2", "base"][..], &["i1", "top"][..]),
        ("an unreferenced cycle is collected", &shared, &["i1"], &["base", "top"], &["x", "y", "s"]),
        ("the walk of a referenced cycle ends", &shared, &["x", "s"], &["x", "y", "s"], &["i1", "base"]),
        ("two roots on one digest", &shared, &["i1", "i1"], &["i1", "top"], &["i2"]),
        ("a sparse index", &[("index", "absent")], &["index"], &["index", "absent"], &["other"]),
        ("no roots", &shared, &[], &[], &["i1", "i2", "base"]),
    ] {
        let reachable = graph(edges, roots).reachable();
        let has = |name: &str| reachable.contains(Key::from(&digest(name)));
        assert!(kept.iter().all(|name| has(name)), "{what}: {kept:?} stay");
        assert!(!gone.iter().any(|name| has(name)), "{what}: {gone:?} go");
    }
}

#[test]
fn manifest_keeps_its_references_and_referrers() {
    let entry = |name: &str| format!(r#"{{"mediaType":"a/b","digest":"{}","size":1}}"#, digest(name));
    let parse = |text: String| Manifest::new(None, text.into()).unwrap();
    let platforms: Vec<_> = (0..1000).map(|n| entry(&format!("p{n}"))).collect();
    let index = parse(format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, platforms.join(",")));
    let signature = parse(format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}],"subject":{}}}"#,
        entry("config"),
        entry("layer"),
        entry("p999")
    ));
    let mut graph = Graph::default();
    for manifest in [&signature, &index] {
        graph.add_manifest(manifest.digest(), manifest);
    }
    graph.add_root(index.digest());
    let reachable = graph.reachable();
    assert_eq!(reachable.len(), 1 + 1000 + 3);
    assert!(reachable.contains(Key::from(signature.digest())), "the referrer of a platform stays");
    // A referrer that is a root does not keep its subject.
    let mut graph = Graph::default();
    graph.add_manifest(signature.digest(), &signature);
    graph.add_root(signature.digest());
    assert!(!graph.reachable().contains(Key::from(&digest("p999"))));
}

#[test]
fn key_differs_between_digest_algorithms() {
    let sha512: Digest = format!("sha512:{}", "a".repeat(128)).parse().unwrap();
    let sha256: Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
    assert_eq!(Key::from(&sha256), Key([0xaa; 32]));
    assert_ne!(Key::from(&sha512), Key::from(&sha256));
}

#[test]
fn very_deep_graph_does_not_overflow_the_stack() {
    let names: Vec<_> = (0..100_000).map(|n| n.to_string()).collect();
    let edges: Vec<_> = names.windows(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let graph = graph(&edges, &["0"]);
    assert_eq!(graph.reachable().len(), names.len());
    assert_eq!(graph.top_down()[&Key::from(&digest("99999"))].level, 99_999);
}

/// An index may list a referrer of its own subject: then each of them keeps the next, in a cycle.
#[test]
fn cycle_has_one_rank() {
    let edges = [("above", "x"), ("x", "y"), ("y", "z"), ("z", "x"), ("z", "below"), ("s", "s")];
    let order = graph(&edges, &[]).top_down();
    let rank = |name: &str| order[&Key::from(&digest(name))];
    assert_eq!([rank("x"), rank("y")], [rank("z"); 2]);
    assert!(rank("above") < rank("x") && rank("x") < rank("below"));
    assert_ne!(rank("s"), rank("x"));
    assert_eq!([rank("above").level, rank("x").level, rank("below").level, rank("s").level], [0, 1, 2, 0]);
}

proptest! {
    /// Two nodes have the same rank if each leads to the other; otherwise the one that leads to the other comes
    /// first.
    #[test]
    fn cycles_have_one_rank(edges in prop::collection::vec((0_u8..12, 0_u8..12), 0..40)) {
        let name = |n: u8| digest(&n.to_string());
        let mut graph = Graph::default();
        edges.iter().for_each(|&(from, to)| graph.add_edge(&name(from), &name(to)));
        let order = graph.top_down();
        let leads = |from: u8, to: u8| {
            let mut reachable = Reachable::default();
            graph.extend(&mut reachable, [Key::from(&name(from))]);
            reachable.contains(Key::from(&name(to)))
        };
        let known: BTreeSet<u8> = edges.iter().flat_map(|&(from, to)| [from, to]).collect();
        for &from in &known {
            for &to in &known {
                let (from_at, to_at) = (order[&Key::from(&name(from))], order[&Key::from(&name(to))]);
                match (leads(from, to), leads(to, from)) {
                    (true, true) => prop_assert_eq!(from_at, to_at),
                    (true, false) => prop_assert!(from_at.level < to_at.level),
                    _ => prop_assert_ne!(from_at, to_at),
                }
            }
        }
    }

    /// Compares with the definition, computed another way: grow the set until nothing changes.
    #[test]
    fn reachable_equals_closure_of_the_roots(
        edges in prop::collection::vec((0_u8..24, 0_u8..24), 0..60),
        roots in prop::collection::vec(0_u8..24, 0..4),
    ) {
        let name = |n: u8| n.to_string();
        let mut expected: BTreeSet<u8> = roots.iter().copied().collect();
        while let Some(&(_, to)) = edges.iter().find(|(from, to)| expected.contains(from) && !expected.contains(to)) {
            expected.insert(to);
        }
        let mut graph = Graph::default();
        edges.iter().for_each(|&(from, to)| graph.add_edge(&digest(&name(from)), &digest(&name(to))));
        roots.iter().for_each(|&root| graph.add_root(&digest(&name(root))));
        let reachable = graph.reachable();
        for n in 0..24 {
            prop_assert_eq!(reachable.contains(Key::from(&digest(&name(n)))), expected.contains(&n), "{}", n);
        }
    }

    /// Without cycles, referrers come first.
    #[test]
    fn top_down_orders_acyclic_graphs(edges in prop::collection::vec((0_u8..24, 0_u8..24), 0..60)) {
        let edges: Vec<_> = edges.into_iter().filter(|(from, to)| from < to).collect();
        let name = |n: u8| digest(&n.to_string());
        let mut graph = Graph::default();
        edges.iter().for_each(|&(from, to)| graph.add_edge(&name(from), &name(to)));
        let order = graph.top_down();
        for (from, to) in edges {
            prop_assert!(order[&Key::from(&name(from))].level < order[&Key::from(&name(to))].level);
        }
    }
}
