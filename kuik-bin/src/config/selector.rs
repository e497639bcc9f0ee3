//! Label selector parser: the YAML or JSON form of a Kubernetes `objectSelector`.
//!
//! Unknown fields, which Kubernetes would ignore, are errors here: a selector with a misspelled field would match more
//! pods than intended.

use std::collections::BTreeMap;

use kube_client::core::{Expression, Selector};
use serde::Deserialize;

/// An invalid label selector.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidSelector {
    #[error(
        "{text} is not a label selector ({{\"matchExpressions\": [{{\"key\": …, \"operator\": …}}]}}): {problem}"
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

/// Operator of a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// Parses a selector.
pub(super) fn selector(text: &str) -> Result<Selector, InvalidSelector> {
    let written: Written = serde_saphyr::from_str(text)
        .map_err(|error| InvalidSelector::Malformed { text: text.to_owned(), problem: error.to_string() })?;
    let mut selector: Selector = written.match_labels.into_iter().collect();
    for requirement in written.match_expressions {
        selector.extend(requirement.expression()?);
    }
    Ok(selector)
}

impl Requirement {
    fn expression(self) -> Result<Expression, InvalidSelector> {
        let Self { key, operator, values } = self;
        match (operator, values.is_empty()) {
            (Operator::In, false) => Ok(Expression::In(key, values.into_iter().collect())),
            (Operator::NotIn, false) => Ok(Expression::NotIn(key, values.into_iter().collect())),
            (Operator::Exists, true) => Ok(Expression::Exists(key)),
            (Operator::DoesNotExist, true) => Ok(Expression::DoesNotExist(key)),
            (Operator::In | Operator::NotIn, true) => Err(InvalidSelector::NoValues { key, operator }),
            (Operator::Exists | Operator::DoesNotExist, false) => {
                Err(InvalidSelector::Values { key, operator })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selector_accepts_the_kubernetes_forms() {
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
    fn selector_rejects_unknown_fields_and_wrong_values() {
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
