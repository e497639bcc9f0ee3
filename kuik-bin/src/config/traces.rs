//! Trace export settings: a flag, or the standard environment variables of OpenTelemetry.

use std::env;

use http::Uri;
use kuik_core::client::Guard;

use super::Problems;

/// Key of the setting.
pub(super) const KEY: &str = "otlp-endpoint";

/// Validated trace export settings.
#[derive(Debug, Clone)]
pub struct TracesConfig {
    /// URL of the collector.
    pub endpoint: Uri,
    /// Service name of the traces.
    pub service: String,
}

impl TracesConfig {
    /// Returns a guard that allows the collector at any address, because the configuration names it.
    #[must_use]
    pub fn guard(&self) -> Guard {
        let authority = self.endpoint.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        match authority.parse() {
            Ok(host) => Guard::default().naming(host, true),
            Err(_) => Guard::default(),
        }
    }
}

/// Environment variables that OpenTelemetry specifies.
#[derive(Debug, Default)]
pub(super) struct Environment {
    disabled: Option<String>,
    traces: Option<String>,
    base: Option<String>,
    service: Option<String>,
}

impl Environment {
    pub(super) fn read() -> Self {
        let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            disabled: set("OTEL_SDK_DISABLED"),
            traces: set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
            base: set("OTEL_EXPORTER_OTLP_ENDPOINT"),
            service: set("OTEL_SERVICE_NAME"),
        }
    }
}

/// Returns the export settings; `None` if traces are not exported. `given` is a base URL, and `/v1/traces` is appended.
pub(super) fn read(
    given: Option<&str>,
    environment: Environment,
    problems: &mut Problems,
) -> Option<TracesConfig> {
    if environment.disabled.as_deref().is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return None;
    }
    let based = |base: &str| format!("{}/v1/traces", base.trim_end_matches('/'));
    let endpoint =
        given.map(based).or(environment.traces).or_else(|| environment.base.as_deref().map(based))?;
    let usable = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    };
    let Some(endpoint) = endpoint.parse().ok().filter(usable) else {
        problems.add(KEY, "not an http or https URL such as http://localhost:4318");
        return None;
    };
    let service = environment.service.unwrap_or_else(program);
    Some(TracesConfig { endpoint, service })
}

/// Returns the name that the program was started under.
fn program() -> String {
    let called = env::args_os().next().map(std::path::PathBuf::from);
    let name = called.as_deref().and_then(std::path::Path::file_name);
    name.map_or_else(|| "kuik".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_environment_and_off_is_off() {
        let text = |text: &str| Some(text.to_owned());
        let environment = || Environment {
            disabled: None,
            traces: text("http://traces:4318/custom"),
            base: text("http://base:4318/"),
            service: text("cache"),
        };
        let endpoint = |given: Option<&str>, environment| {
            let mut problems = Problems::default();
            let config = read(given, environment, &mut problems);
            let said = problems.into_result(Some(())).map_err(|error| error.to_string());
            said.map(|()| config.map(|config| config.endpoint.to_string()))
        };
        assert_eq!(endpoint(Some("http://flag:4318"), environment()), Ok(text("http://flag:4318/v1/traces")));
        assert_eq!(endpoint(None, environment()), Ok(text("http://traces:4318/custom")));
        let base = Environment { traces: None, ..environment() };
        assert_eq!(endpoint(None, base), Ok(text("http://base:4318/v1/traces")));
        assert_eq!(endpoint(None, Environment::default()), Ok(None));
        let off = Environment { disabled: text("true"), ..environment() };
        assert_eq!(endpoint(Some("http://flag:4318"), off), Ok(None));
        for wrong in ["collector:4318", "ftp://a", "", "http://"] {
            let said = endpoint(Some(wrong), Environment::default()).unwrap_err();
            assert!(said.contains("otlp-endpoint: not an"), "{wrong}: {said}");
        }
    }
}
