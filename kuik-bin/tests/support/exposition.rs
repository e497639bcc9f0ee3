//! Prometheus metrics: those that a process exposes, and those in docs/metrics.md.

/// Returns the sample names of a metric, from its name and its kind in a line `# TYPE`.
pub(crate) fn sample_name(name: &str, kind: &str) -> String {
    match kind {
        "counter" => format!("{name}_total"),
        "info" => format!("{name}_info"),
        _ => name.to_owned(),
    }
}

/// The names and kinds of all metrics.
pub(crate) fn types(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
}

/// The names of all metrics, in their order.
pub(crate) fn exposed(text: &str) -> Vec<String> {
    let mut names: Vec<_> = types(text).map(|(name, kind)| sample_name(name, kind)).collect();
    names.sort();
    names
}

/// The names in the tables of the document that are `wanted`, in their order.
pub(crate) fn documented(wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let document = include_str!("../../../docs/metrics.md");
    let names = document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let names = names.filter(|name| name.starts_with("kube_image_keeper_") && wanted(name));
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    names.sort();
    names
}
