//! From what was asked for to the model that will be served: id, parser, engine profile.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::entry::{EngineProfile, Entry, catalog};
use super::id::ModelArgument;

/// Which model was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// A flag of the catalogue, or an alias.
    Flag(String),
    /// `--model`.
    Argument(ModelArgument),
}

/// Where the weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Hub(String),
    Folder(PathBuf),
}

/// A model as it will be served.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Model {
    /// The name a person reads.
    pub name: String,
    pub source: Source,
    /// The name in the API, which must match exactly between the engine and the client.
    pub served_name: String,
    /// What a person types for it.
    pub typed: String,
    pub tool_call_parser: String,
    pub chat_template_kwargs: Map<String, Value>,
    pub engine_profile: EngineProfile,
    /// The catalogue's download size, in bytes.
    pub download_bytes: Option<u64>,
    /// What to know about it before relying on it.
    pub note: Option<String>,
}

impl Model {
    /// What the engine is given as the model: the hub id or the folder.
    pub fn engine_argument(&self) -> String {
        match &self.source {
            Source::Hub(id) => id.clone(),
            Source::Folder(path) => path.display().to_string(),
        }
    }

    /// The same with what it has beside text: pictures, sound. Each turn is then computed anew.
    pub fn whole(mut self) -> Self {
        if self.engine_profile == EngineProfile::Text {
            self.engine_profile = EngineProfile::Simple;
        }
        self
    }

    /// Whether the engine reads its prompts by the route for pictures and sound. `config`: the model's own, where it is on this disk.
    pub fn takes_multimodal_route(&self, config: Option<&Value>) -> bool {
        self.engine_profile == EngineProfile::Simple
            && match (config, &self.source) {
                (Some(config), _) => is_multimodal(config),
                (None, Source::Hub(id)) => {
                    let named = Choice::Argument(ModelArgument::Hub(id.clone()));
                    resolve(&named, None)
                        .is_some_and(|model| model.engine_profile == EngineProfile::Text)
                }
                (None, Source::Folder(_)) => false,
            }
    }

    /// True if it is served with the part that sees pictures. `config`: as above.
    pub fn sees_pictures(&self, config: Option<&Value>) -> bool {
        self.takes_multimodal_route(config)
            && config.is_none_or(|config| !config["vision_config"].is_null())
    }

    fn from_entry(entry: &Entry) -> Self {
        Self {
            name: entry.name.clone(),
            source: Source::Hub(entry.id.clone()),
            served_name: entry.id.clone(),
            typed: format!("--{}", entry.flag),
            tool_call_parser: entry.tool_call_parser.clone(),
            chat_template_kwargs: entry.chat_template_kwargs.clone(),
            engine_profile: entry.engine_profile,
            download_bytes: Some(entry.download_bytes()),
            note: Some(entry.note.clone()),
        }
    }
}

/// The model of a choice. `config` is the model's own `config.json`, where it is on this disk: it decides how a model that is not
/// in the catalogue is served. `None` for a flag that the catalogue does not have.
pub fn resolve(choice: &Choice, config: Option<&Value>) -> Option<Model> {
    match choice {
        Choice::Flag(flag) => catalog().by_flag(flag).map(Model::from_entry),
        Choice::Argument(ModelArgument::Hub(id)) => match catalog().by_id(id) {
            Some(entry) => Some(Model::from_entry(entry)),
            None => Some(custom(Source::Hub(id.clone()), id.clone(), id, config)),
        },
        Choice::Argument(ModelArgument::Folder(path)) => {
            let name = path.file_name().map_or_else(
                || "model".into(),
                |name| name.to_string_lossy().into_owned(),
            );
            Some(custom(
                Source::Folder(path.clone()),
                name,
                &path.display().to_string(),
                config,
            ))
        }
    }
}

fn custom(source: Source, name: String, typed: &str, config: Option<&Value>) -> Model {
    let model_type = config
        .and_then(|config| config.get("model_type"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let multimodal = config.is_some_and(is_multimodal);
    // Before its config is on this disk, the name is all there is; the engine's start looks again.
    let has_text_route =
        has_text_route(model_type) || (config.is_none() && has_text_route(type_in_name(&name)));
    Model {
        served_name: name.clone(),
        typed: format!(
            "--model {}",
            shlex::try_quote(typed).unwrap_or(typed.into())
        ),
        tool_call_parser: parser_for(model_type, &name).into(),
        chat_template_kwargs: match json!({ "enable_thinking": false }) {
            Value::Object(kwargs) => kwargs,
            _ => Map::new(),
        },
        engine_profile: if has_text_route {
            EngineProfile::Text
        } else if !multimodal && has_trimmable_cache(model_type) {
            EngineProfile::Batched
        } else {
            EngineProfile::Simple
        },
        download_bytes: None,
        note: Some("not in the catalogue, so not tested".into()),
        name,
        source,
    }
}

/// Whether a model has parts for pictures or sound.
fn is_multimodal(config: &Value) -> bool {
    ["vision_config", "audio_config"]
        .iter()
        .any(|key| config.get(*key).is_some_and(|value| !value.is_null()))
}

/// The engine's parser for a model we have no entry for, by the architecture that its config names, else by its name.
/// `auto` where neither is known: tool calls then work, but earlier ones are rewritten as text.
fn parser_for(model_type: &str, name: &str) -> &'static str {
    let name = name.to_ascii_lowercase();
    let is = |start: &str| model_type.starts_with(start);
    if is("gemma4") || name.contains("gemma-4") {
        "gemma4"
    } else if is("glm4") || name.contains("glm-4") {
        "glm47"
    } else if is("qwen3_5")
        || name.contains("qwen3.5")
        || (name.contains("qwen3") && name.contains("coder"))
    {
        "qwen3_coder"
    } else if is("qwen") || name.contains("qwen") || is("llama") && name.contains("hermes") {
        "hermes"
    } else if is("mistral") || name.contains("mistral") || name.contains("devstral") {
        "mistral"
    } else if name.contains("llama-3") || name.contains("llama-4") {
        "llama"
    } else {
        "auto"
    }
}

/// Architectures whose cache is plain attention all the way, so that the engine can cut it back to a common prefix.
/// Measured for llama, qwen2, qwen3_moe and glm4_moe_lite; the others have the same cache classes in mlx-lm.
fn has_trimmable_cache(model_type: &str) -> bool {
    matches!(
        model_type,
        "llama"
            | "mistral"
            | "qwen2"
            | "qwen2_moe"
            | "qwen3"
            | "qwen3_moe"
            | "glm4_moe"
            | "glm4_moe_lite"
    )
}

/// Architectures whose text part the engine can serve by itself, with a cache that is kept by snapshots. Measured for each.
fn has_text_route(model_type: &str) -> bool {
    matches!(
        model_type,
        "gemma4" | "gemma4_text" | "qwen3_5" | "qwen3_5_text" | "qwen3_5_moe" | "qwen3_5_moe_text"
    )
}

/// The architecture that a name promises, where it is one with a text route.
fn type_in_name(name: &str) -> &'static str {
    let name = name.to_ascii_lowercase();
    match (name.contains("gemma-4"), name.contains("qwen3.5-")) {
        (true, _) => "gemma4",
        (_, true) => "qwen3_5",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(id: &str, config: Option<Value>) -> Model {
        let choice = Choice::Argument(ModelArgument::Hub(id.into()));
        resolve(&choice, config.as_ref()).expect("a model")
    }

    #[test]
    fn an_id_of_the_catalogue_is_the_catalogue_model() {
        let model = hub("mlx-community/glm-4.7-flash-4bit", None);
        assert_eq!(model.typed, "--review");
        assert_eq!(model.served_name, "mlx-community/GLM-4.7-Flash-4bit");
    }

    #[test]
    fn the_config_decides_how_an_unknown_model_is_served() {
        let model = hub("a/Qwen3-8B", Some(json!({"model_type": "qwen3"})));
        assert_eq!(model.engine_profile, EngineProfile::Batched);
        assert_eq!(model.tool_call_parser, "hermes");
        let model = hub(
            "a/b",
            Some(json!({"model_type": "gemma4", "vision_config": {}})),
        );
        assert_eq!(model.engine_profile, EngineProfile::Text);
        assert_eq!(model.tool_call_parser, "gemma4");
        let model = hub(
            "a/b",
            Some(json!({"model_type": "llava", "vision_config": {}})),
        );
        assert_eq!(model.engine_profile, EngineProfile::Simple);
        let model = hub("a/Qwen3.5-2B-8bit", None);
        assert_eq!(model.engine_profile, EngineProfile::Text);
        let model = hub("a/b", None);
        assert_eq!(model.engine_profile, EngineProfile::Simple);
        assert_eq!(model.tool_call_parser, "auto");
    }

    #[test]
    fn an_unknown_flag_is_no_model() {
        assert!(resolve(&Choice::Flag("gemma9".into()), None).is_none());
    }
}
