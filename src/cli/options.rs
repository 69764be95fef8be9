//! From the command line to the values that count: flags are weighed against variables and the settings file by `settings::resolve`.

use super::args::{Cli, CliCommand, LaunchArgs, Window};
use crate::catalog::{Choice, catalog};
use crate::claude::permissions::Asking;
use crate::error::{Error, Result};
use crate::settings::key;
use crate::settings::{self, Flags, Options, Resolver, Settings, Value};
use crate::sys::environment::Environment;
use crate::sys::paths::Paths;

/// The settings file, for the commands that go by it. The others work whatever is in it: one that stops an engine, for instance.
pub(super) fn settings(environment: &Environment, cli: &Cli) -> Result<Settings> {
    match &cli.command {
        None | Some(CliCommand::Server(_) | CliCommand::Connect(_) | CliCommand::List(_)) => {
            load(environment, &Paths::of(environment))
        }
        Some(_) => Ok(Settings::default()),
    }
}

/// The settings file. Errors: it cannot be read, or something in it is wrong.
pub(super) fn load(environment: &Environment, paths: &Paths) -> Result<Settings> {
    Settings::load(environment, paths)
}

/// The names of one's own models. None from a damaged file.
pub(super) fn own_names(environment: &Environment) -> Vec<String> {
    let settings = load(environment, &Paths::of(environment)).unwrap_or_default();
    let models = settings.models.into_iter();
    models.map(|model| model.name).collect()
}

/// Whether a word is a model's name. With a damaged file it may be one, and the start then says what is wrong with the file.
pub(super) fn names_model(environment: &Environment, word: &str) -> bool {
    if catalog().by_flag(word).is_some() {
        return true;
    }
    match load(environment, &Paths::of(environment)) {
        Ok(settings) => settings.model(word).is_some(),
        Err(_) => settings::file::is_name(word),
    }
}

/// Flags of the command line that are settings, too.
pub(super) fn flags(cli: &Cli) -> Flags {
    let mut flags = Flags::default();
    let launch = match &cli.command {
        None => &cli.launch,
        Some(CliCommand::Server(args)) => args,
        Some(CliCommand::Connect(args)) => {
            flags.add("linger", args.linger.map(Value::Number));
            flags.add("web-search", args.web_search.clone().map(Value::Word));
            flags.add("ask", args.asking.given().map(Value::Switch));
            return flags;
        }
        Some(_) => return flags,
    };
    let switch = |on: bool, off: bool| (on || off).then_some(Value::Switch(on));
    let mem_check = match (launch.safe, launch.no_mem_check) {
        (true, _) => Some("always".to_owned()),
        (_, true) => Some("never".to_owned()),
        _ => launch.mem_check.clone(),
    };
    flags.add("ctx", launch.ctx.map(window));
    flags.add("out-tokens", launch.out_tokens.map(Value::Number));
    flags.add("vision", switch(launch.vision, launch.no_vision));
    flags.add("think", switch(launch.think, launch.no_think));
    flags.add("linger", launch.linger.map(Value::Number));
    flags.add("port", launch.port.map(|port| Value::Number(port.into())));
    flags.add("web-search", launch.web_search.clone().map(Value::Word));
    flags.add("ask", launch.asking.given().map(Value::Switch));
    flags.add("mem-check", mem_check.map(Value::Word));
    flags.add(
        "forget-prefix",
        switch(launch.forget_prefix, launch.no_forget_prefix),
    );
    flags
}

fn window(window: Window) -> Value {
    match window {
        Window::Auto => Value::Word("auto".into()),
        Window::Tokens(tokens) => Value::Number(tokens),
    }
}

/// The model that the command line names, else the one that the settings file names. None: neither does.
pub(super) fn choice(resolver: &Resolver<'_>, args: &LaunchArgs) -> Result<Option<Choice>> {
    let &Resolver {
        environment,
        settings,
        ..
    } = resolver;
    let asked = args.model.choice(environment, settings)?;
    if asked.is_some() || args.menu {
        return Ok(asked);
    }
    let named = resolver.default_model()?;
    named
        .map(|model| settings.choice(environment, &model))
        .transpose()
}

/// Whether tools ask: as was chosen on the command line or in the file, else by default as is `usual` for the engine.
pub(super) fn asking(choice: Option<bool>, usual: bool) -> Asking {
    Asking {
        asks: choice.unwrap_or(usual),
        chosen: choice.is_some(),
    }
}

/// The options of a session with this model.
pub(super) fn of_choice(resolver: &Resolver<'_>, choice: Option<&Choice>) -> Result<Options> {
    let own = choice.and_then(|choice| resolver.settings.of_choice(choice));
    resolver.for_model(own).options()
}

/// Takes the values of `[remotes.NAME]` where `--connect` names one, and the command line says nothing else. Errors: there is none of that name, but one
/// of nearly the same.
pub(super) fn fill_remote(settings: &Settings, cli: &mut Cli) -> Result<()> {
    let Cli { remote, launch, .. } = cli;
    let Some(named) = &remote.connect else {
        return Ok(());
    };
    let Some(own) = settings.remote(named) else {
        let names = settings.remotes.iter().map(|remote| remote.name.as_str());
        return match key::nearest(named, names) {
            Some(near) if !named.contains("://") => Err(Error::usage(format!(
                "there is no remote `{named}` in the settings file"
            ))
            .hint(format!("perhaps: cclocal --connect {near}"))),
            _ => Ok(()),
        };
    };
    remote.connect = Some(own.url.clone());
    remote.token_env = remote.token_env.take().or(own.word("token-env"));
    remote.insecure |= own.switch("insecure") == Some(true);
    remote.parallel = (remote.parallel).or(own
        .number("parallel")
        .and_then(|most| u16::try_from(most).ok()));
    remote.wait = (remote.wait).or(own
        .number("wait")
        .and_then(|minutes| u16::try_from(minutes).ok()));
    launch.asking.or(own.switch("ask"));
    launch.model.or(own.word("model"));
    launch.ctx = launch.ctx.or(own.number("ctx").map(Window::Tokens));
    launch.out_tokens = launch.out_tokens.or(own.number("out-tokens"));
    Ok(())
}
