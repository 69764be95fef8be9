//! Finds out all that a plan needs (what is installed, cached, free) and makes the plan. Starts nothing that stays.

use std::ffi::OsString;
use std::path::Path;

use serde_json::Value;

use super::window::{self, Instead};
use crate::catalog::template::Traits;
use crate::catalog::{Choice, Model, ModelArgument, Source, catalog, resolve, servable};
use crate::claude::features;
use crate::claude::settings_files;
use crate::engine::device;
use crate::engine::executable::Executable;
use crate::engine::flags::Flags;
use crate::error::{Error, Exit, Result};
use crate::host::Host;
use crate::hub::remote::Told;
use crate::hub::watch::Total;
use crate::hub::{self, Cached};
use crate::machine::disk;
use crate::machine::memory as machine_memory;
use crate::machine::platform::{Os, Platform};
use crate::memory::plan::{Asked, OUTPUTS};
use crate::memory::planner::Planner;
use crate::memory::{self, Figures, Fit, WeightsSource};
use crate::paths::Paths;
use crate::plan::claude::{ClaudePlan, Features};
use crate::plan::engine::EnginePlan;
use crate::plan::{claude as plan_claude, engine as plan_engine};
use crate::secret::Secret;
use crate::supervisor::spec::{Port, Spec};
use crate::ui;

/// What was asked for on the command line.
#[derive(Debug, Clone)]
pub struct Request {
    pub model: Model,
    /// The gateway's port, if one was asked for.
    pub port: Option<u16>,
    /// In tokens, if it was asked for.
    pub context_window: Option<u64>,
    /// In tokens, if it was asked for.
    pub output_tokens: Option<u64>,
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

    /// What a person should know of the model's tool calls and thoughts before it starts.
    pub fn notices(&self) -> Vec<String> {
        let model = &self.model;
        let name = &model.name;
        let calls = match (model.form, model.template, &model.source) {
            (_, Some(traits), _) if !traits.tools => Some(format!(
                "{name}: its chat template has no tools: it can chat, but not read or write files"
            )),
            (None, None, Source::Hub(_)) => Some(format!(
                "{name}: its tool-call format is not known before it is on this disk. If it is none that cclocal reads, the engine's own guess is used, and calls may show up as text"
            )),
            (None, ..) => Some(format!(
                "{name}: unknown tool-call format: the engine's own guess is used. If calls show up as text, this model will not work"
            )),
            (Some(_), ..) => None,
        };
        let thoughts = (self.think && !model.thinking).then(|| {
            format!("{name} has no thoughts that could be turned on: --think changes nothing")
        });
        calls.into_iter().chain(thoughts).collect()
    }

    /// The longest reply that may come to be, in tokens.
    pub fn longest_reply(&self) -> u64 {
        self.output_tokens.unwrap_or(DEFAULT_OUTPUT_TOKENS)
    }
}

/// The output budget where none is asked for and no plan says another, in tokens: a whole file body has to fit in one tool call.
pub const DEFAULT_OUTPUT_TOKENS: u64 = OUTPUTS[0];

/// An engine that can be run.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub model: Model,
    pub cached: Cached,
    pub memory: Figures,
    /// What the whole download takes, if there is one to be made.
    pub download: Option<Total>,
    pub engine: EnginePlan,
    /// What a person should know before it starts.
    pub notices: Vec<String>,
}

impl Prepared {
    /// What a supervisor is asked to run.
    pub fn spec(self, engine: &Executable, port: Port) -> Spec {
        Spec {
            port,
            engine: engine.clone(),
            argv: self.engine.argv,
            env: self.engine.env,
            takes_key: self.engine.takes_key,
            complete: matches!(self.cached, Cached::Complete { .. }),
            cached_bytes: self.cached.bytes(),
            download: self.download,
            context_window: self.memory.context_window,
            output_tokens: self.memory.output_tokens,
            weights: self.memory.weights,
            claim: self.memory.plan.as_ref().map(|plan| plan.shares.taken()),
            cache_bytes_per_token: (self.memory.plan.as_ref())
                .map_or(0, |plan| plan.cache_bytes_per_token),
            kept_bytes_per_token: (self.memory.plan.as_ref())
                .map_or(0, |plan| plan.kept_bytes_per_token),
            memory_limit: self.memory.budget(),
            model: self.model,
            log: None,
        }
    }
}

/// How programs that were not asked before are learnt about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probing {
    /// Ask them, and remember.
    Ask,
    /// Start nothing: what is not remembered is taken to be as in the versions that we pin and test.
    Assume,
}

/// The model of a choice, with what the cache tells about it.
pub fn model(paths: &Paths, choice: Option<&Choice>) -> Result<Model> {
    let default = Choice::Flag(catalog().default.clone());
    let choice = choice.unwrap_or(&default);
    let config: Option<Value> = match choice {
        Choice::Flag(_) => None,
        Choice::Argument(ModelArgument::Hub(id)) => hub::config(&paths.hub, id),
        Choice::Argument(ModelArgument::Folder(folder)) => hub::folder_config(folder),
    };
    let model = resolve(choice, config.as_ref()).ok_or_else(|| {
        Error::usage("there is no such model").hint("cclocal --help lists the models")
    })?;
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

/// What the chat template of a model shows, if it is on this disk.
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
    remote: impl FnOnce(&str) -> Told,
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
        let model = model.with_template(request.model.template.or(told.template));
        if told.template_asked {
            servable::check_template(&model, config.as_ref())?;
        }
        *request = request.clone().with_model(model);
    }
    Ok(())
}

/// How big the model is, and what there is for it.
#[derive(Debug)]
pub struct Measured {
    pub cached: Cached,
    /// What the whole download takes, if there is one to be made.
    pub download: Option<Total>,
    pub memory: Figures,
}

/// Measures the model and the machine. `remote` tells what the hub says of the size of a model that is not on this disk.
pub fn measure(
    host: &Host,
    paths: &Paths,
    platform: &Platform,
    request: &Request,
    engine: Option<&Executable>,
    remote: impl FnOnce(&str) -> Option<u64>,
) -> Measured {
    let model = &request.model;
    let cached = match &model.source {
        Source::Hub(id) => hub::cached(&paths.hub, id),
        Source::Folder(folder) => Cached::Complete {
            bytes: hub::folder_bytes(folder),
            snapshot: folder.clone(),
        },
    };
    let (weights, download) = match (&cached, &model.source) {
        (Cached::Missing | Cached::Partial { .. }, Source::Hub(id)) => {
            let total = remote(id)
                .map(Total::Hub)
                .or(model.download_bytes.map(Total::Catalog));
            let weights = total.map(|total| match total {
                Total::Hub(bytes) => (bytes, WeightsSource::Hub),
                Total::Catalog(bytes) => (bytes, WeightsSource::Catalog),
            });
            (weights, total)
        }
        _ => (Some((cached.bytes(), WeightsSource::Disk)), None),
    };
    let asked = Asked {
        window: request.context_window,
        output: request.output_tokens,
    };
    let planner = weights.and_then(|weights| {
        let config = match &model.source {
            Source::Hub(id) => hub::config(&paths.hub, id),
            Source::Folder(folder) => hub::folder_config(folder),
        };
        let device = memory::working::Device::of(platform.os);
        Planner::of(model, config.as_ref(), weights, device, asked)
    });
    let memory = Figures::new(
        machine_memory::read(host, platform.os, || {
            device::ask(host, &paths.cache, engine?)
        }),
        weights,
        asked,
        planner,
    );
    Measured {
        cached,
        download,
        memory,
    }
}

/// Whether the disk has room for what is to be downloaded. Too little is an error.
pub fn check_disk(host: &Host, paths: &Paths, name: &str, measured: &Measured) -> Result<()> {
    let Some((total, free)) = measured.download.zip(disk::free(&paths.hub)) else {
        return Ok(());
    };
    let needed = total.room_needed(measured.cached.bytes());
    if needed <= free {
        return Ok(());
    }
    Err(
        Error::new(Exit::Machine, format!("the disk has no room for {name}"))
            .cause(format!(
                "{} of {} are still to be downloaded to {}, and {} are free there",
                ui::bytes(total.bytes().saturating_sub(measured.cached.bytes())),
                ui::bytes(total.bytes()),
                host.tilde(&paths.hub),
                ui::bytes(free)
            ))
            .hint("free some space (`cclocal rm` removes models), or keep models on another disk with HF_HOME"),
    )
}

/// Plans the engine's run. `engine`: None in a dry run where none is installed.
pub fn prepare(
    host: &Host,
    paths: &Paths,
    request: &Request,
    measured: Measured,
    engine: Option<&Executable>,
    probing: Probing,
) -> Result<Prepared> {
    let Measured {
        cached,
        download,
        mut memory,
    } = measured;
    let model = request.model.clone();
    let mut notices = request.notices();
    match memory.planned() {
        None => check_window(memory.context_window, memory.output_tokens, None)?,
        Some(Ok(_)) => {}
        Some(Err(refusal)) if refusal.is_of_memory() => {
            memory.insist();
            notices.extend(window::insisted(&model.name, &memory));
        }
        Some(Err(refusal)) => {
            return Err(window::refused(&model.name, &refusal, Instead::default()));
        }
    }
    if let (None, Some(machine), Some(bytes), Fit::TooBig(_)) =
        (&memory.plan, &memory.machine, memory.weights, memory.fit())
    {
        notices.push(format!(
            "{} needs {} for its weights alone, and this machine has {} for it ({}): expect it to fail; cclocal --gemma-light is smaller",
            model.name,
            ui::bytes(bytes),
            ui::bytes(machine.budget.saturating_sub(memory.others)),
            machine.budget_source.words()
        ));
    }
    let flags = match (engine, probing) {
        (Some(engine), Probing::Ask) => {
            crate::engine::flags::probe(host, &paths.cache, &engine.script)?
        }
        (Some(engine), Probing::Assume) => {
            crate::engine::flags::remembered(&paths.cache, &engine.script)
                .unwrap_or_else(Flags::of_pinned_engine)
        }
        (None, _) => Flags::of_pinned_engine(),
    };
    let engine = plan_engine::plan(&plan_engine::Inputs {
        model: &model,
        output_tokens: memory.output_tokens,
        plan: memory.plan.as_ref(),
        complete: matches!(cached, Cached::Complete { .. }),
        flags: &flags,
        text_models: &paths.text_models(),
        kept_prefixes: (!request.forget_prefix).then_some(paths.kept_prefixes().as_path()),
    });
    notices.extend(engine.notices.iter().cloned());
    Ok(Prepared {
        model,
        cached,
        memory,
        download,
        engine,
        notices,
    })
}

/// What Claude Code is started for.
pub struct Client<'a> {
    /// What follows `--` on the command line.
    pub args: &'a [OsString],
    /// Where its settings will be written.
    pub settings: &'a Path,
    /// The gateway's port on 127.0.0.1.
    pub port: u16,
    pub token: Secret,
    /// The served model's name.
    pub model: &'a str,
    /// In tokens.
    pub context_window: u64,
    /// In tokens.
    pub output_tokens: u64,
}

/// What Claude Code can be asked for, as far as it is remembered. `program`: None where it is not installed.
pub fn assumed_features(paths: &Paths, program: Option<&Path>) -> Features {
    program
        .and_then(|claude| features::remembered(&paths.cache, claude))
        .unwrap_or_default()
}

/// Plans Claude Code's run, with the settings files as they are now. Errors: arguments and settings that would take the session elsewhere.
pub fn plan_client(
    host: &Host,
    paths: &Paths,
    os: Os,
    client: &Client,
    features: &Features,
) -> Result<ClaudePlan> {
    let settings_files = settings_files::read(host, os == Os::Macos)?;
    plan_claude::plan(&plan_claude::Inputs {
        host,
        profile_dir: &paths.claude_profile(),
        settings_path: client.settings,
        base_url: format!("http://127.0.0.1:{}", client.port),
        token: client.token.clone(),
        model: client.model.to_owned(),
        context_window: client.context_window,
        output_tokens: client.output_tokens,
        user_args: client.args,
        settings_files: &settings_files,
        features,
    })
}

/// Whether a person will talk with Claude Code, rather than a script.
pub fn is_interactive(plan: &ClaudePlan) -> bool {
    !plan.argv.iter().any(|word| {
        ["-p", "--print", "--help", "-h", "--version", "-v"]
            .iter()
            .any(|flag| word == flag)
    })
}

/// A window that the reply's budget, the reserve for compaction and Claude Code's own first request do not fit in could not hold a turn.
/// `most`: the largest that can be had, where there is such a limit.
pub(super) fn check_window(window: u64, output: u64, most: Option<u64>) -> Result<()> {
    if memory::smallest_window(output) <= window {
        return Ok(());
    }
    Err(window::no_room(window, output, most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Form;

    /// A home, and a request for this model of the hub.
    fn request(paths: &Paths, id: &str) -> Request {
        let choice = Choice::Argument(ModelArgument::Hub(id.into()));
        Request {
            model: model(paths, Some(&choice)).expect("a model"),
            port: None,
            context_window: None,
            output_tokens: None,
            forget_prefix: false,
            vision: false,
            think: false,
        }
    }

    fn home() -> (tempfile::TempDir, Paths) {
        let home = tempfile::tempdir().expect("a home");
        let paths = Paths::of(&Host::for_tests(home.path(), &[]));
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
    fn told(files: &[&str], template: Option<Traits>) -> Told {
        Told {
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
        let learnt = |id: &str, told: Told| {
            let mut request = request(&paths, id);
            request.think = true;
            learn(&paths, &mut request, |asked| {
                assert_eq!(asked, "org/name", "it is known");
                told
            })
            .map(|()| request)
        };
        let nothing = learnt("org/name", Told::default()).expect("not refused");
        assert_eq!(nothing.model.form, None);
        let asked = learnt("org/name", told(&["m.safetensors"], Some(HERMES)));
        let asked = asked.expect("a model");
        assert_eq!(asked.model.form, Some(Form::Hermes));
        assert!(asked.model.thinking, "it was asked for");
        let known = &catalog().models[0];
        let form = |request: Request| request.model.form;
        assert_eq!(
            learnt(&known.id, Told::default()).map(form),
            Ok(Some(known.form))
        );
        let template = r#"{"chat_template": "tools [TOOL_CALLS]"}"#;
        let config = ("config.json", r#"{"model_type":"qwen2"}"#);
        let files = [config, ("tokenizer_config.json", template)];
        snapshot(&paths, "org/here", &files);
        assert_eq!(
            learnt("org/here", Told::default()).map(form),
            Ok(Some(Form::Mistral))
        );
    }

    #[test]
    fn what_cannot_be_served_is_not_downloaded() {
        let (_home, paths) = home();
        let refused = |id: &str, told: Told| {
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
            "org/name has no chat template: so it is a base model: it continues text, and holds no conversation"
        );
        // What is on this disk counts where the hub says nothing, and else what the hub has.
        snapshot(&paths, "org/here", &[("config.json", "{}"), ("m.gguf", "")]);
        assert!(refused("org/here", Told::default()).contains("GGUF"));
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
                "org/name: unknown tool-call format: the engine's own guess is used. If calls show up as text, this model will not work",
                "org/name has no thoughts that could be turned on: --think changes nothing"
            ]
        );
        let chat = Traits {
            tools: false,
            ..unknown
        };
        assert_eq!(
            said(Some(chat), false),
            ["org/name: its chat template has no tools: it can chat, but not read or write files"]
        );
        assert_eq!(
            said(None, false),
            [
                "org/name: its tool-call format is not known before it is on this disk. If it is none that cclocal reads, the engine's own guess is used, and calls may show up as text"
            ]
        );
    }

    #[test]
    fn a_reply_must_leave_room_for_the_question() {
        assert!(check_window(32_768, 8_192, None).is_ok());
        let error = check_window(32_768, 32_768, None).expect_err("no room");
        insta::assert_snapshot!(error, @"
        error: replies of 32768 tokens leave no room in a window of 32768 tokens
          cause: Claude Code's own first request takes 8192 tokens of it, and it keeps 13000 free to compact in
          hint: take --out-tokens 11576 or less, or --ctx 53960 or more
        ");
        let error = check_window(20_000, 8_192, None).expect_err("no room");
        insta::assert_snapshot!(error, @"
        error: replies of 8192 tokens leave no room in a window of 20000 tokens
          cause: Claude Code's own first request takes 8192 tokens of it, and it keeps 13000 free to compact in
          hint: take --ctx 29384 or more
        ");
    }
}
