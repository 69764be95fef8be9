//! The shape of `catalog.json`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Form;

/// How the engine is run for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineProfile {
    /// For models whose KV cache can be trimmed: continuous batching with one sequence at a time, so that each turn computes only new tokens.
    Batched,
    /// The same for the text part of a multimodal model, and for caches that cannot be trimmed: they are kept at places where the next turn still
    /// agrees (see `engine/text_route.py`, `engine/snapshots.py`).
    Text,
    /// For the rest, and for pictures and sound: one request at a time, a second one waits for the first.
    Simple,
}

impl EngineProfile {
    /// Whether the engine schedules requests in batches (of one).
    pub fn is_batched(self) -> bool {
        matches!(self, EngineProfile::Batched | EngineProfile::Text)
    }

    /// In words, for people.
    pub fn words(self) -> &'static str {
        match self {
            EngineProfile::Batched => "each turn computes only new tokens",
            EngineProfile::Text => "text part only; each turn computes only new tokens",
            EngineProfile::Simple => "each turn computes the whole conversation",
        }
    }
}

/// One model of the catalogue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The command-line flag without its dashes.
    pub flag: String,
    /// The Hugging Face hub id, `org/name`.
    pub id: String,
    /// The name a person reads.
    pub name: String,
    /// Download size, in GB (10⁹ bytes). Source: what another project lists of the same files on its disk; of Qwen3-Coder's, those of
    /// Qwen3-30B-A3B-Instruct-2507, which has the same layers; of GLM-4.7-Flash and Qwen2.5-Coder, their parameters at 4.5 bits each.
    pub download_gb: f64,
    /// The RAM of the smallest Mac that holds a session with it, in GB as Apple counts it (2³⁰ bytes). Source: the plan (`memory/fit.rs`).
    pub ram_gb: u64,
    pub note: String,
    /// How it writes tool calls, as far as its chat template on this disk does not say otherwise.
    pub form: Form,
    /// Whether it can think, and may do so unasked.
    pub thinks: bool,
    /// Whether a call that it writes as prose, at the end of its reply, is one: it was trained on other forms than its template asks for.
    #[serde(default)]
    pub prose_calls: bool,
    /// The engine's `--default-chat-template-kwargs`.
    pub chat_template_kwargs: Map<String, Value>,
    pub engine_profile: EngineProfile,
    /// What this way of serving costs.
    pub turns: Turns,
}

/// What the turns of a tool loop compute, measured on the engine with a tiny model of the same layout. Source: `benches/bench-turns.sh`,
/// docs/performance.md.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turns {
    /// The tiny model.
    pub layout: String,
    /// Tokens computed for each that was new, over 20 turns.
    pub computed: f64,
    /// The same with the flags of the scripts that cclocal replaces.
    pub with_the_scripts_flags: f64,
}

impl Entry {
    /// Download size in bytes.
    pub fn download_bytes(&self) -> u64 {
        (self.download_gb * 1e9).round() as u64
    }
}

/// All models, in the order in which they are shown.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    /// The flag of the model used when none is named.
    pub default: String,
    /// Other flags for a model: alias to flag.
    pub aliases: BTreeMap<String, String>,
    pub models: Vec<Entry>,
}

impl Catalog {
    /// The model of a flag or an alias.
    pub fn by_flag(&self, flag: &str) -> Option<&Entry> {
        let flag = self.aliases.get(flag).map_or(flag, String::as_str);
        self.models.iter().find(|entry| entry.flag == flag)
    }

    /// The model of a hub id. The hub does not tell upper from lower case.
    pub fn by_id(&self, id: &str) -> Option<&Entry> {
        self.models
            .iter()
            .find(|entry| entry.id.eq_ignore_ascii_case(id))
    }
}

/// The embedded catalogue.
pub fn catalog() -> &'static Catalog {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    CATALOG.get_or_init(
        || match serde_json::from_str(include_str!("catalog.json")) {
            Ok(catalog) => catalog,
            // The file is part of the binary and parsed by a unit test, so this cannot reach a user.
            Err(error) => unreachable!("catalog.json is not valid: {error}"),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alias_and_the_default_name_a_model() {
        let catalog = catalog();
        assert!(catalog.by_flag(&catalog.default).is_some());
        for flag in catalog.aliases.keys() {
            assert!(catalog.by_flag(flag).is_some(), "{flag}");
        }
        assert_eq!(
            catalog.by_flag("light").map(|entry| entry.flag.as_str()),
            Some("gemma-light")
        );
    }

    #[test]
    fn flags_and_ids_are_unique() {
        let catalog = catalog();
        for (index, entry) in catalog.models.iter().enumerate() {
            assert!(
                catalog.models[index + 1..]
                    .iter()
                    .all(|other| other.flag != entry.flag && other.id != entry.id),
                "{}",
                entry.flag
            );
            assert!(!catalog.aliases.contains_key(&entry.flag));
        }
    }

    #[test]
    fn ids_are_found_whatever_their_case() {
        let found = catalog().by_id("MLX-Community/glm-4.7-flash-4BIT");
        assert_eq!(found.map(|entry| entry.flag.as_str()), Some("review"));
    }
}
