//! From what was asked for to the model that will be served: id, form of its tool calls, engine profile.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::entry::{EngineProfile, Entry, catalog};
use super::form::Form;
use super::id::ModelArgument;
use super::template::Traits;

/// Which model was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// A flag of the catalogue, or an alias.
    Flag(String),
    /// `--model`.
    Argument(ModelArgument),
    /// A model of the settings file.
    Own(Own),
}

/// A model that a person named in their settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    pub name: String,
    pub argument: ModelArgument,
    /// The form of its tool calls, if it was stated.
    pub form: Option<Form>,
}

/// The variable of chat templates that turns thoughts on. Source: the templates of Gemma 4, GLM-4.5 and Qwen3 and of what came after them.
const THINKING: &str = "enable_thinking";

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
    /// How it writes tool calls. None: not known.
    pub form: Option<Form>,
    /// Whether a person stated the form: then its chat template does not overrule it.
    #[serde(default)]
    pub form_is_stated: bool,
    /// Its chat template as far as it shows something. None: it was not read yet.
    pub template: Option<Traits>,
    /// Whether it may think, asked to or not.
    pub may_think: bool,
    /// Whether it is asked to think, and its thoughts are shown.
    pub thinking: bool,
    /// Whether a call that it writes as prose, at the end of its reply, is one.
    pub prose_calls: bool,
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

    /// The same with what its chat template shows. A form that is stated elsewhere stays where the template shows none.
    pub fn with_template(mut self, template: Option<Traits>) -> Self {
        if !self.form_is_stated {
            self.form = template.and_then(|traits| traits.form).or(self.form);
        }
        self.template = template;
        self
    }

    /// The same under the name of one's own, and with its form if one was stated.
    fn owned(self, own: &Own) -> Self {
        let named = Self {
            name: own.name.clone(),
            typed: own.name.clone(),
            note: None,
            ..self
        };
        named.with_stated_form(own.form)
    }

    /// The same under the name that another has, and with its form if that was stated.
    pub fn called_as(self, other: &Self) -> Self {
        let named = Self {
            name: other.name.clone(),
            typed: other.typed.clone(),
            note: other.note.clone(),
            ..self
        };
        named.with_stated_form(other.form.filter(|_| other.form_is_stated))
    }

    fn with_stated_form(self, form: Option<Form>) -> Self {
        Self {
            form: form.or(self.form),
            form_is_stated: form.is_some() || self.form_is_stated,
            ..self
        }
    }

    /// Whether it thinks where it is asked to, as far as that is known.
    pub fn can_think(&self) -> bool {
        self.may_think && self.template.is_none_or(|traits| traits.thinking)
    }

    /// The same, asked to think, if it can.
    pub fn thinking(mut self) -> Self {
        if self.can_think() {
            self.thinking = true;
            self.chat_template_kwargs
                .insert(THINKING.into(), true.into());
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
            form: Some(entry.form),
            form_is_stated: false,
            template: None,
            may_think: entry.thinks,
            thinking: false,
            prose_calls: entry.prose_calls,
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
        Choice::Own(own) => {
            let choice = Choice::Argument(own.argument.clone());
            resolve(&choice, config).map(|model| model.owned(own))
        }
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
        form: None,
        form_is_stated: false,
        template: None,
        may_think: true,
        thinking: false,
        prose_calls: false,
        chat_template_kwargs: match json!({ THINKING: false }) {
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
        let model = hub(
            "a/b",
            Some(json!({"model_type": "gemma4", "vision_config": {}})),
        );
        assert_eq!(model.engine_profile, EngineProfile::Text);
        let model = hub(
            "a/b",
            Some(json!({"model_type": "llava", "vision_config": {}})),
        );
        assert_eq!(model.engine_profile, EngineProfile::Simple);
        let model = hub("a/Qwen3.5-2B-8bit", None);
        assert_eq!(model.engine_profile, EngineProfile::Text);
        let model = hub("a/b", None);
        assert_eq!(model.engine_profile, EngineProfile::Simple);
    }

    #[test]
    fn the_template_decides_how_calls_are_read_and_whether_it_thinks() {
        let traits = |form, thinking| {
            Some(Traits {
                form,
                tools: true,
                thinking,
            })
        };
        let unknown = hub("a/Llama-3-Hermes", Some(json!({"model_type": "llama"})));
        assert_eq!(unknown.form, None, "a name says nothing");
        assert!(unknown.can_think(), "nothing is known to the contrary");
        let read = unknown.with_template(traits(Some(Form::Hermes), false));
        assert_eq!(read.form, Some(Form::Hermes));
        assert!(!read.can_think());
        assert!(!read.clone().thinking().thinking);
        assert_eq!(read.thinking().chat_template_kwargs[THINKING], false);

        let entry = hub("mlx-community/GLM-4.7-Flash-4bit", None);
        assert_eq!(entry.form, Some(Form::Glm47), "as the catalogue states");
        let shown = entry
            .clone()
            .with_template(traits(Some(Form::Hermes), true));
        assert_eq!(shown.form, Some(Form::Hermes), "as its own template shows");
        let unclear = entry.with_template(traits(None, true));
        assert_eq!(unclear.form, Some(Form::Glm47));
        let thinking = unclear.thinking();
        assert!(thinking.thinking);
        assert_eq!(thinking.chat_template_kwargs[THINKING], true);
    }

    #[test]
    fn the_coders_of_the_catalogue_do_not_think() {
        for entry in &catalog().models {
            let model = Model::from_entry(entry).thinking();
            assert_eq!(model.thinking, !entry.flag.starts_with("coder"));
            assert_eq!(model.prose_calls, entry.flag == "coder7b");
        }
    }

    #[test]
    fn the_form_that_a_person_states_is_not_overruled_by_the_template() {
        let own = |form| {
            let own = Own {
                name: "work".into(),
                argument: ModelArgument::Hub("org/name".into()),
                form,
            };
            resolve(&Choice::Own(own), None).expect("a model")
        };
        let shown = Traits {
            form: Some(Form::Hermes),
            tools: true,
            thinking: false,
        };
        let stated = own(Some(Form::Mistral)).with_template(Some(shown));
        assert_eq!(stated.form, Some(Form::Mistral));
        let resolved_again = hub("org/name", None)
            .called_as(&stated)
            .with_template(Some(shown));
        assert_eq!(
            (resolved_again.form, resolved_again.name.as_str()),
            (stated.form, "work")
        );
        let unstated = own(None).with_template(Some(shown));
        assert_eq!(unstated.form, Some(Form::Hermes));
        assert_eq!(unstated.typed, "work");
        assert_eq!(unstated.served_name, "org/name", "as for everybody");
    }

    #[test]
    fn an_unknown_flag_is_no_model() {
        assert!(resolve(&Choice::Flag("gemma9".into()), None).is_none());
    }
}
