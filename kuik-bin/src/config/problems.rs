//! List of all mistakes in a configuration.

use std::{error::Error, fmt};

use kuik_core::error::chain;

/// Collects mistakes while a configuration is validated.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

/// A configuration with at least one mistake.
#[derive(Debug)]
pub struct InvalidConfig(Vec<String>);

impl Problems {
    /// Adds a problem with the setting `key`.
    pub fn add(&mut self, key: &str, problem: impl fmt::Display) {
        self.0.push(format!("{key}: {problem}"));
    }

    /// Returns the value, or adds a problem with the setting `key`.
    pub fn check<T, E: Error + 'static>(&mut self, key: &str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(key, chain(&error));
                None
            }
        }
    }

    /// Returns the configuration if there are no problems.
    ///
    /// # Errors
    /// Returns an error that lists all problems.
    pub fn into_result<T>(self, config: Option<T>) -> Result<T, InvalidConfig> {
        match config {
            Some(config) if self.0.is_empty() => Ok(config),
            _ => Err(InvalidConfig(self.0)),
        }
    }
}

impl InvalidConfig {
    /// Returns the problems.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the configuration has {count} {}", if count == 1 { "mistake" } else { "mistakes" })?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl Error for InvalidConfig {}
