//! Request of a session, completed with facts about its model from this disk, else from the hub.

use std::path::Path;

use serde_json::Value;

use crate::catalog::template::Traits;
use crate::catalog::{Choice, Model, ModelArgument, Source, catalog, resolve, servable};
use crate::error::{Context, Error, Exit, Result};
use crate::hub::api::ModelInfo;
use crate::hub::{self, Cached};
use crate::memory::Asked;
use crate::supervisor::registry::EngineQuery;
use crate::sys::paths::Paths;

/// Request of the command line.
#[derive(Debug, Clone)]
pub struct Request {
    pub model: Model,
    /// The gateway's port, if one was asked for.
    pub port: Option<u16>,
    pub asked: Asked,
    /// Nothing of what stands before a conversation is kept on the disk.
    pub forget_prefix: bool,
    /// The whole model is served, pictures and sound included.
    pub vision: bool,
    /// The model is asked to think.
    pub think: bool,
}

impl Request {
    /// The same for this model, served as is asked for.
    pub fn with_model(self, model: Model) -> Self {
        let model = match self.vision {
            true => model.whole(),
            false => model,
        };
        let model = match self.think {
            true => model.thinking(),
            false => model,
        };
        Self { model, ..self }
    }

    /// The engine that serves this, for one with this program.
    pub fn wanted<'a>(&'a self, engine: &'a Path) -> EngineQuery<'a> {
        EngineQuery {
            source: &self.model.source,
            profile: self.model.engine_profile,
            thinking: self.model.thinking,
            engine,
            asked: self.asked,
            port: self.port,
        }
    }

    /// Notes on the model's tool calls and thinking before it starts.
    pub fn notices(&self) -> Vec<String> {
        let model = &self.model;
        let name = &model.name;
        let calls = match (model.form, model.template, &model.source) {
            (_, Some(traits), _) if !traits.tools => Some(format!(
                "{name}: its chat template has no tool calls: it can chat, but not read or write files"
            )),
            (None, None, Source::Hub(_)) => Some(format!(
                "{name}: its tool-call format is known only after the download. If cclocal does not support it, only calls in <tool_call> tags are run, and others show up as text"
            )),
            (None, ..) => Some(format!(
                "{name}: unknown tool-call format: only calls in <tool_call> tags are run. If calls show up as text, take another model"
            )),
            (Some(_), ..) => None,
        };
        let thoughts = (self.think && !model.thinking)
            .then(|| format!("{name} cannot think: --think has no effect"));
        calls.into_iter().chain(thoughts).collect()
    }
}

/// The model of a choice, with what the cache tells about it.
pub fn model(paths: &Paths, choice: Option<&Choice>) -> Result<Model> {
    let default = Choice::Flag(catalog().default.clone());
    let choice = choice.unwrap_or(&default);
    let argument = match choice {
        Choice::Flag(_) => None,
        Choice::Argument(argument) => Some(argument),
        Choice::Own(own) => Some(&own.argument),
    };
    let config: Option<Value> = match argument {
        None => None,
        Some(ModelArgument::Hub(id)) => hub::config(&paths.hub, id),
        Some(ModelArgument::Folder(folder)) => hub::folder_config(folder),
    };
    let model = resolve(choice, config.as_ref()).ok_or_else(|| {
        Error::usage("there is no such model").hint("cclocal --help lists the models")
    })?;
    check_files(paths, &model)?;
    let template = template(paths, &model);
    let model = model.with_template(template);
    let is_whole = match &model.source {
        Source::Hub(id) => matches!(hub::cached(&paths.hub, id), Cached::Complete { .. }),
        Source::Folder(_) => true,
    };
    if is_whole {
        servable::check_template(&model, config.as_ref())?;
    }
    Ok(model)
}

/// Whether what is there of a model can be read by an engine. Errors: a device, a pipe or a file without end stands in the place of one of its files.
fn check_files(paths: &Paths, model: &Model) -> Result<()> {
    match &model.source {
        Source::Hub(id) => hub::check_cached_files(&paths.hub, id),
        Source::Folder(folder) => hub::check_files(folder),
    }
    .context(Exit::Other, format!("{} cannot be loaded", model.name))
    .map_err(|error| {
        error.hint("remove that file, or the model: `cclocal rm ORG/NAME`; a local folder by hand")
    })
}

/// Traits of a model's chat template, if it is on this disk.
fn template(paths: &Paths, model: &Model) -> Option<Traits> {
    match &model.source {
        Source::Hub(id) => hub::template(&paths.hub, id),
        Source::Folder(folder) => hub::folder_template(folder),
    }
}

/// Learns from the hub how a model is to be served that is neither in the catalogue nor on this disk. `remote` asks it.
///
/// Errors: the model cannot be served, so it is not worth a download.
pub fn learn(
    paths: &Paths,
    request: &mut Request,
    remote: impl FnOnce(&str) -> ModelInfo,
) -> Result<()> {
    let Source::Hub(id) = &request.model.source else {
        return Ok(());
    };
    if catalog().by_id(id).is_some() {
        return Ok(());
    }
    let config = hub::config(&paths.hub, id);
    let here =
        hub::settled_files(&paths.hub, id).filter(|files| servable::has_foreign_weights(files));
    if config.is_some() && request.model.template.is_some() && here.is_none() {
        return Ok(());
    }
    let told = remote(id);
    if let Some(files) = told.files.or(here) {
        servable::check_weights(id, &files)?;
    }
    let config = config.or(told.config);
    let choice = Choice::Argument(ModelArgument::Hub(id.clone()));
    if let Some(model) = resolve(&choice, config.as_ref()) {
        let model = model.called_as(&request.model);
        let model = model.with_template(request.model.template.or(told.template));
        if told.template_asked {
            servable::check_template(&model, config.as_ref())?;
        }
        *request = request.clone().with_model(model);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Form;
    use crate::error::Exit;
    use crate::sys::environment::Environment;

    /// A home, and a request for this model of the hub.
    fn request(paths: &Paths, id: &str) -> Request {
        let choice = Choice::Argument(ModelArgument::Hub(id.into()));
        Request {
            model: model(paths, Some(&choice)).expect("a model"),
            port: None,
            asked: Asked::default(),
            forget_prefix: false,
            vision: false,
            think: false,
        }
    }

    fn home() -> (tempfile::TempDir, Paths) {
        let home = tempfile::tempdir().expect("a home");
        let paths = Paths::of(&Environment::for_tests(home.path(), &[]));
        (home, paths)
    }

    /// A snapshot in the cache with these files.
    fn snapshot(paths: &Paths, id: &str, files: &[(&str, &str)]) {
        let folder = hub::model_folder(&paths.hub, id);
        for made in ["refs", "blobs", "snapshots/abc"] {
            fs_err::create_dir_all(folder.join(made)).expect("made");
        }
        fs_err::write(folder.join("refs/main"), "abc").expect("written");
        for (name, text) in files {
            fs_err::write(folder.join("snapshots/abc").join(name), text).expect("written");
        }
    }

    const HERMES: Traits = Traits {
        form: Some(Form::Hermes),
        tools: true,
        thinking: true,
    };

    /// A hub that knows a model with these files.
    fn told(files: &[&str], template: Option<Traits>) -> ModelInfo {
        ModelInfo {
            config: Some(serde_json::json!({"model_type": "qwen2"})),
            files: Some(files.iter().map(|name| (*name).to_owned()).collect()),
            size: None,
            template_asked: true,
            template,
        }
    }

    #[test]
    fn what_is_not_on_this_disk_is_learnt_from_the_hub() {
        let (_home, paths) = home();
        let learnt = |id: &str, told: ModelInfo| {
            let mut request = request(&paths, id);
            request.think = true;
            learn(&paths, &mut request, |asked| {
                assert_eq!(asked, "org/name", "it is known");
                told
            })
            .map(|()| request)
        };
        let nothing = learnt("org/name", ModelInfo::default()).expect("not refused");
        assert_eq!(nothing.model.form, None);
        let asked = learnt("org/name", told(&["m.safetensors"], Some(HERMES)));
        let asked = asked.expect("a model");
        assert_eq!(asked.model.form, Some(Form::Hermes));
        assert!(asked.model.thinking, "it was asked for");
        let known = &catalog().models[0];
        let form = |request: Request| request.model.form;
        assert_eq!(
            learnt(&known.id, ModelInfo::default()).map(form),
            Ok(Some(known.form))
        );
        let template = r#"{"chat_template": "tools [TOOL_CALLS]"}"#;
        let config = ("config.json", r#"{"model_type":"qwen2"}"#);
        let files = [config, ("tokenizer_config.json", template)];
        snapshot(&paths, "org/here", &files);
        assert_eq!(
            learnt("org/here", ModelInfo::default()).map(form),
            Ok(Some(Form::Mistral))
        );
    }

    #[test]
    fn what_cannot_be_served_is_not_downloaded() {
        let (_home, paths) = home();
        let refused = |id: &str, told: ModelInfo| {
            let mut request = request(&paths, id);
            let error = learn(&paths, &mut request, |_| told).expect_err("refused");
            assert_eq!(error.exit, Exit::Usage);
            error.message + ": " + &error.cause.expect("a cause")
        };
        let gguf = ["config.json", "q4.gguf"];
        assert_eq!(
            refused("org/name", told(&gguf, Some(HERMES))),
            "org/name has no weights that cclocal can serve: it has GGUF files (q4.gguf), and no *.safetensors"
        );
        assert_eq!(
            refused("org/name", told(&["m.safetensors"], None)),
            "org/name has no chat template: it is a base model: it continues text instead of answering"
        );
        // What is on this disk counts where the hub says nothing, and else what the hub has.
        snapshot(&paths, "org/here", &[("config.json", "{}"), ("m.gguf", "")]);
        assert!(refused("org/here", ModelInfo::default()).contains("GGUF"));
        let mut request = request(&paths, "org/here");
        let all = told(&["m.gguf", "m.safetensors"], Some(HERMES));
        assert_eq!(learn(&paths, &mut request, |_| all), Ok(()));
    }

    #[test]
    fn a_model_on_this_disk_is_refused_if_it_has_no_chat_template() {
        let (_home, paths) = home();
        let whole = [
            ("config.json", "{}"),
            ("tokenizer.json", "{}"),
            ("model.safetensors", "x"),
        ];
        snapshot(&paths, "org/base", &whole);
        let choice = Choice::Argument(ModelArgument::Hub("org/base".into()));
        let error = model(&paths, Some(&choice)).expect_err("a base model");
        assert_eq!(error.message, "org/base has no chat template");
        snapshot(
            &paths,
            "org/base",
            &[("chat_template.jinja", "{{ tools }}")],
        );
        let model = model(&paths, Some(&choice)).expect("a model");
        assert!(model.template.is_some_and(|traits| traits.tools));
    }

    #[test]
    fn what_is_not_known_of_calls_and_thoughts_is_said() {
        let (_home, paths) = home();
        let said = |template: Option<Traits>, think: bool| {
            let mut request = request(&paths, "org/name");
            request.think = think;
            let model = request.model.clone().with_template(template);
            request.with_model(model).notices()
        };
        assert_eq!(said(Some(HERMES), true), Vec::<String>::new());
        let unknown = Traits {
            form: None,
            thinking: false,
            ..HERMES
        };
        assert_eq!(
            said(Some(unknown), true),
            [
                "org/name: unknown tool-call format: only calls in <tool_call> tags are run. If calls show up as text, take another model",
                "org/name cannot think: --think has no effect"
            ]
        );
        let chat = Traits {
            tools: false,
            ..unknown
        };
        assert_eq!(
            said(Some(chat), false),
            [
                "org/name: its chat template has no tool calls: it can chat, but not read or write files"
            ]
        );
        assert_eq!(
            said(None, false),
            [
                "org/name: its tool-call format is known only after the download. If cclocal does not support it, only calls in <tool_call> tags are run, and others show up as text"
            ]
        );
    }
}
