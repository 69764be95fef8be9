//! A value that must not be seen: it prints as `<secret>` wherever it goes by accident.

use std::fmt;

use crate::error::{Error, Result};

/// A key or a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// A new random token of 256 bits, as 64 hexadecimal digits. Errors: the system gives no randomness.
    pub fn random() -> Result<Self> {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::other("there are no random numbers").because(error))?;
        Ok(Self(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Secrets on their way through a pipe to another process of ours, and nowhere else: `#[serde(with = "secret::handed")]`.
pub mod handed {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Secret;

    pub fn serialize<S: Serializer>(
        secrets: &BTreeMap<String, Secret>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let exposed: BTreeMap<&str, &str> = secrets
            .iter()
            .map(|(name, secret)| (name.as_str(), secret.expose()))
            .collect();
        exposed.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<String, Secret>, D::Error> {
        let exposed = BTreeMap::<String, String>::deserialize(from)?;
        Ok(exposed
            .into_iter()
            .map(|(name, secret)| (name, Secret::new(secret)))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints_and_never_repeats() {
        let one = Secret::random().expect("random");
        let other = Secret::random().expect("random");
        assert_ne!(one, other);
        assert_eq!(one.expose().len(), 64);
        assert_eq!(format!("{one} {one:?}"), "<secret> <secret>");
    }
}
