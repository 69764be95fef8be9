//! The architectures of the catalogue's models, so that there are plans before anything is downloaded: `architectures.json`, embedded.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;

use super::architecture::Architecture;

/// What is known of a model without its files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Whether at least two independent sources agree on all that decides the size of its cache.
    pub certain: bool,
    /// Where the values come from.
    pub source: String,
    /// The part of its `config.json` that matters here.
    pub config: Value,
}

/// What is known of the model of a hub id. The hub does not tell upper from lower case.
pub fn known(id: &str) -> Option<&'static Known> {
    all()
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(id))
        .map(|(_, known)| known)
}

/// A model's architecture, and whether it is only estimated: from its own `config.json` if that is on this disk, else from what is known.
pub fn architecture(id: &str, config: Option<&Value>) -> Option<(Architecture, bool)> {
    if let Some(read) = config.and_then(Architecture::of) {
        let estimated = !read.known;
        return Some((read, estimated));
    }
    let known = known(id)?;
    Some((Architecture::of(&known.config)?, !known.certain))
}

fn all() -> &'static BTreeMap<String, Known> {
    static ALL: OnceLock<BTreeMap<String, Known>> = OnceLock::new();
    ALL.get_or_init(
        || match serde_json::from_str(include_str!("architectures.json")) {
            Ok(all) => all,
            // The file is part of the binary and parsed by a unit test, so this cannot reach a user.
            Err(error) => unreachable!("architectures.json is not valid: {error}"),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::catalog;
    use crate::memory::cache::Stored;

    #[test]
    fn every_model_of_the_catalogue_is_known_and_no_other() {
        for entry in &catalog().models {
            let (architecture, _) = architecture(&entry.id, None).expect(&entry.id);
            assert!(architecture.known, "{}", entry.flag);
            assert!(architecture.longest_context.is_some(), "{}", entry.flag);
        }
        assert_eq!(all().len(), catalog().models.len());
    }

    #[test]
    fn what_a_token_and_a_conversation_of_them_take() {
        let figures: Vec<String> = catalog()
            .models
            .iter()
            .filter_map(|entry| {
                let (architecture, _) = architecture(&entry.id, None)?;
                Some(format!(
                    "{}: {} + {} a token, {} for 65536",
                    entry.flag,
                    architecture.constant_bytes(),
                    architecture.bytes_per_token(),
                    architecture.stored_bytes(65_536, Stored::Plain),
                ))
            })
            .collect();
        insta::assert_snapshot!(figures.join("\n"), @"
        gemma-light: 20971520 + 16384 a token, 1094713344 for 65536
        gemma: 209715200 + 20480 a token, 1551892480 for 65536
        review: 0 + 54144 a token, 3548381184 for 65536
        coder: 0 + 98304 a token, 6442450944 for 65536
        qwen3: 51511296 + 32768 a token, 2198994944 for 65536
        coder7b: 0 + 57344 a token, 3758096384 for 65536
        ");
    }

    #[test]
    fn a_model_s_own_configuration_goes_before_what_is_known() {
        let own = serde_json::json!({"model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1,
            "intermediate_size": 64, "vocab_size": 320});
        let id = "mlx-community/glm-4.7-flash-4BIT";
        let read = architecture(id, Some(&own)).expect("an architecture");
        assert_eq!((read.0.hidden, read.1), (64, false));
        let useless = serde_json::json!({});
        let read = architecture(id, Some(&useless)).expect("an architecture");
        assert_eq!(read.0.hidden, 2_048);
        assert_eq!(architecture("a/b", Some(&useless)), None);
    }
}
