//! A label selector, as Kubernetes writes one in `objectSelector`: YAML, or JSON.
//!
//! What Kubernetes would pass over (a field of another name) is a mistake here, for a selector that says less than it was
//! meant to say has more pods.

use std::collections::BTreeMap;

use kube_client::core::{Expression, Selector};
use serde::Deserialize;

/// Why a text is no selector.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSelector {
    #[error(
        "{text} is no label selector ({{\"matchExpressions\": [{{\"key\": …, \"operator\": …}}]}}): {problem}"
    )]
    Malformed { text: String, problem: String },
    #[error("{operator:?} of {key:?} needs values")]
    NoValues { key: String, operator: Operator },
    #[error("{operator:?} of {key:?} takes no values")]
    Values { key: String, operator: Operator },
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Written {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Requirement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

/// What the values of a label are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// Reads a selector.
pub(super) fn selector(text: &str) -> Result<Selector, NoSelector> {
    let written: Written = serde_saphyr::from_str(text)
        .map_err(|error| NoSelector::Malformed { text: text.to_owned(), problem: error.to_string() })?;
    let mut selector: Selector = written.match_labels.into_iter().collect();
    for requirement in written.match_expressions {
        selector.extend(requirement.expression()?);
    }
    Ok(selector)
}

impl Requirement {
    fn expression(self) -> Result<Expression, NoSelector> {
        let Self { key, operator, values } = self;
        match (operator, values.is_empty()) {
            (Operator::In, false) => Ok(Expression::In(key, values.into_iter().collect())),
            (Operator::NotIn, false) => Ok(Expression::NotIn(key, values.into_iter().collect())),
            (Operator::Exists, true) => Ok(Expression::Exists(key)),
            (Operator::DoesNotExist, true) => Ok(Expression::DoesNotExist(key)),
            (Operator::In | Operator::NotIn, true) => Err(NoSelector::NoValues { key, operator }),
            (Operator::Exists | Operator::DoesNotExist, false) => Err(NoSelector::Values { key, operator }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_kubernetes_writes_it() {
        for (text, expected) in [
            ("{}", ""),
            ("matchLabels: {app: web}", "app=web"),
            (
                "matchExpressions:\n- {key: team, operator: In, values: [a, b]}\n- {key: x, operator: NotIn, values: ['1']}",
                "team in (a,b),x notin (1)",
            ),
            (
                r#"{"matchExpressions":[{"key":"a","operator":"Exists"},{"key":"b","operator":"DoesNotExist"}]}"#,
                "a,!b",
            ),
        ] {
            assert_eq!(selector(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_says_less_than_it_means_is_a_mistake() {
        for text in [
            "team in (a)",
            "matchExpression: []",
            "matchExpressions: [{key: a, operator: in, values: [b]}]",
            "matchExpressions: [{key: a, operator: In}]",
            "matchExpressions: [{key: a, operator: Exists, values: [b]}]",
            "matchExpressions: [{operator: Exists}]",
        ] {
            assert!(selector(text).is_err(), "{text}");
        }
    }
}
