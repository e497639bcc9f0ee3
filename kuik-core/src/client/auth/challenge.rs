//! Parser for `WWW-Authenticate` (RFC 9110, section 11.6.1), lenient to what registries send.
//!
//! Pure, bounded and total: any bytes give a list of challenges, possibly empty. Accepted deviations: any case, spaces
//! around `=`, missing quotes, a comma in an unquoted scope, several challenges in one header or in several.

/// The longest header that is parsed, in bytes; the rest is ignored.
const MAX_HEADER: usize = 8 * 1024;
/// The maximum number of challenges.
const MAX_CHALLENGES: usize = 16;
/// The maximum number of parameters of a challenge.
const MAX_PARAMETERS: usize = 32;

/// One challenge: a scheme and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Returns all challenges of the values of `WWW-Authenticate`, in order.
    ///
    /// ```
    /// use kuik_core::client::Challenge;
    ///
    /// let all = Challenge::parse_all([br#"Bearer realm="https://auth.example/token",service="r""#.as_slice()]);
    /// assert_eq!(all.len(), 1);
    /// assert!(all[0].is("bearer"));
    /// assert_eq!(all[0].parameter("realm"), Some("https://auth.example/token"));
    /// ```
    pub fn parse_all<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Vec<Self> {
        let mut challenges = Vec::new();
        for value in values {
            let text = String::from_utf8_lossy(value.get(..MAX_HEADER).unwrap_or(value));
            Scanner::new(&text).read_into(&mut challenges);
        }
        challenges
    }

    /// Returns whether the challenge has this scheme; case-insensitive.
    #[must_use]
    pub fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// Returns the scheme in lower case.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns the first parameter with this name; case-insensitive.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

/// Parses one header from left to right.
struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    fn read_into(&mut self, challenges: &mut Vec<Challenge>) {
        // Whether this header has named a scheme; parameters before the first scheme are dropped.
        let mut open = false;
        // Whether the last value had no quotes, so that it may continue after a comma.
        let mut unquoted = false;
        loop {
            let separator = self.skip(|c| c == ',' || c.is_whitespace());
            let token = self.take(|c| !(c.is_whitespace() || matches!(c, ',' | '=' | '"')));
            if token.is_empty() {
                // Skip a stray quote or equals sign; at the end of the text there is nothing to skip.
                if self.skip_one().is_none() {
                    return;
                }
                continue;
            }
            self.skip(|c| c == ' ' || c == '\t');
            if let Some(rest) = self.rest.strip_prefix('=') {
                self.rest = rest;
                self.skip(|c| c == ' ' || c == '\t');
                let (value, quoted) = self.value();
                unquoted = !quoted;
                if open && let Some(challenge) = challenges.last_mut() {
                    challenge.add(token, value);
                }
            } else if unquoted
                && open
                && separator == ","
                && (self.rest.is_empty() || self.rest.starts_with(','))
            {
                // `scope=repository:app:pull,push`: the value continues.
                if let Some((_, value)) = challenges.last_mut().and_then(|last| last.parameters.last_mut()) {
                    value.push(',');
                    value.push_str(token);
                }
            } else {
                unquoted = false;
                open = challenges.len() < MAX_CHALLENGES;
                if open {
                    let scheme = token.to_ascii_lowercase();
                    challenges.push(Challenge { scheme, parameters: Vec::new() });
                }
            }
        }
    }

    /// Reads a quoted string without its quotes and escapes, or everything up to a comma or a space.
    fn value(&mut self) -> (String, bool) {
        let Some(rest) = self.rest.strip_prefix('"') else {
            return (self.take(|c| !(c == ',' || c.is_whitespace())).trim_end_matches('"').to_owned(), false);
        };
        let mut value = String::new();
        let mut characters = rest.chars();
        while let Some(character) = characters.next() {
            match character {
                '"' => break,
                '\\' => value.extend(characters.next()),
                other => value.push(other),
            }
        }
        self.rest = characters.as_str();
        (value, true)
    }

    fn skip(&mut self, skipped: impl Fn(char) -> bool) -> &'a str {
        self.take(skipped)
    }

    fn skip_one(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let skipped = characters.next();
        self.rest = characters.as_str();
        skipped
    }

    fn take(&mut self, taken: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !taken(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        token
    }
}

impl Challenge {
    fn add(&mut self, name: &str, value: String) {
        if self.parameters.len() < MAX_PARAMETERS {
            self.parameters.push((name.to_ascii_lowercase(), value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &str) -> Vec<(String, Vec<(String, String)>)> {
        Challenge::parse_all([header.as_bytes()])
            .into_iter()
            .map(|challenge| (challenge.scheme, challenge.parameters))
            .collect()
    }

    fn bearer(parameters: &[(&str, &str)]) -> (String, Vec<(String, String)>) {
        let owned = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ("bearer".to_owned(), owned.collect())
    }

    #[test]
    fn parses_challenges_of_real_registries() {
        let realm = ("realm", "https://auth.example/token");
        let service = ("service", "registry.example");
        for (header, expected) in [
            // Docker Hub, GitHub, Quay.
            (
                r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull""#,
                vec![bearer(&[realm, service, ("scope", "repository:a/b:pull")])],
            ),
            (
                r#"bearer  Realm = "https://auth.example/token" , SERVICE="registry.example""#,
                vec![bearer(&[realm, service])],
            ),
            (
                "BEARER realm=https://auth.example/token,service=registry.example",
                vec![bearer(&[realm, service])],
            ),
            (
                "Bearer realm=https://auth.example/token,scope=repository:a:pull,push,service=registry.example",
                vec![bearer(&[realm, ("scope", "repository:a:pull,push"), service])],
            ),
            (
                r#"Bearer realm="https://auth.example/token" service="registry.example""#,
                vec![bearer(&[realm, service])],
            ),
            (
                r#"Bearer realm="https://auth.example/token",,, unknown=1,"#,
                vec![bearer(&[realm, ("unknown", "1")])],
            ),
            (r#"Bearer realm="a\"b\\c""#, vec![bearer(&[("realm", r#"a"b\c"#)])]),
            (r#"Bearer realm="never closed"#, vec![bearer(&[("realm", "never closed")])]),
            (r#"Bearer realm="""#, vec![bearer(&[("realm", "")])]),
            ("Bearer", vec![bearer(&[])]),
            ("", vec![]),
            (r#"realm="x""#, vec![]),
            (",,==\"\"", vec![]),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    #[test]
    fn parses_several_challenges() {
        let schemes = |header: &str| parse(header).into_iter().map(|(scheme, _)| scheme).collect::<Vec<_>>();
        assert_eq!(schemes(r#"Basic realm="r", Bearer realm="https://a/t""#), ["basic", "bearer"]);
        assert_eq!(schemes(r#"Negotiate, Basic realm="r""#), ["negotiate", "basic"]);
        assert_eq!(schemes("Negotiate YII=, Basic realm=r"), ["negotiate", "basic"]);
        let headers = [br#"Basic realm="r""#.as_slice(), br#"realm="lost""#, br#"Bearer realm="x""#];
        let all = Challenge::parse_all(headers);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].parameter("REALM"), Some("r"));
        assert_eq!(all[1].parameter("realm"), Some("x"));
    }

    #[test]
    fn parser_output_is_bounded() {
        let many = "a ".repeat(100_000);
        assert_eq!(parse(&many).len(), MAX_CHALLENGES);
        let wide = format!("Bearer {}", "a=b,".repeat(100_000));
        assert_eq!(parse(&wide)[0].1.len(), MAX_PARAMETERS);
        assert_eq!(Challenge::parse_all([b"\xff\xfe Bearer realm=\"\xff\"".as_slice()]).len(), 2);
    }
}
