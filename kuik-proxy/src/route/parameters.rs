//! Query parameters, decoded lazily.

use std::borrow::Cow;

use super::RouteError;

/// The parameters of a query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameters<'a>(&'a str);

impl<'a> Parameters<'a> {
    pub(crate) fn new(query: Option<&'a str>) -> Self {
        Self(query.unwrap_or_default())
    }

    /// Returns the value of the first parameter called `key`.
    pub(crate) fn get(&self, key: &'static str) -> Result<Option<Cow<'a, str>>, RouteError> {
        self.all(key).next().transpose()
    }

    /// Returns the values of every parameter called `key`.
    pub(crate) fn all(
        &self,
        key: &'static str,
    ) -> impl Iterator<Item = Result<Cow<'a, str>, RouteError>> + use<'a> {
        let values = self.0.split('&').filter_map(move |pair| match pair.split_once('=') {
            Some((name, value)) if name == key => Some(value),
            None if pair == key => Some(""),
            _ => None,
        });
        values.map(move |value| percent_decoded(value).ok_or(RouteError::Parameter(key)))
    }
}

fn percent_decoded(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains(['%', '+']) {
        return Some(Cow::Borrowed(value));
    }
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high << 4 | low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}
