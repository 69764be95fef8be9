//! The model of a command line: a flag of the catalogue, or `--model`.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::catalog::{Choice, catalog};
use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::sys::environment::Environment;

/// The model flags: one for each model of the catalogue and each alias, and `--model`.
#[derive(Debug, Default)]
pub struct ModelFlags {
    /// The flags that were given, in the catalogue's order.
    flags: Vec<String>,
    model: Option<String>,
}

impl ModelFlags {
    /// The one model that was asked for. More than one is a usage error.
    pub fn choice(&self, host: &Environment, settings: &Settings) -> Result<Option<Choice>> {
        let mut given: Vec<String> = self.flags.iter().map(|flag| format!("--{flag}")).collect();
        if let Some(model) = &self.model {
            given.push(format!("--model {model}"));
        }
        if given.len() > 1 {
            return Err(
                Error::usage(format!("more than one model: {}", given.join(", ")))
                    .cause("one engine serves one model")
                    .hint(format!("choose one, for instance: cclocal {}", given[0])),
            );
        }
        if let Some(flag) = self.flags.first() {
            return Ok(Some(Choice::Flag(flag.clone())));
        }
        match &self.model {
            Some(model) => settings.choice(host, model).map(Some),
            None => Ok(None),
        }
    }

    /// Takes this as the value of `--model` where none was typed.
    pub fn or(&mut self, model: Option<String>) {
        self.model = self.model.take().or(model);
    }

    /// The value of `--model`, as it was typed.
    pub fn named(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The ids of all of them.
    pub(super) fn all() -> Vec<String> {
        let flags = Self::names().map(|(flag, _)| flag);
        flags.chain(["model".to_owned()]).collect()
    }

    pub(super) fn names() -> impl Iterator<Item = (String, String)> {
        let catalog = catalog();
        let models = catalog.models.iter().map(|entry| {
            let help = format!(
                "{}: {} GB download, {} GB RAM or more; {}",
                entry.name, entry.download_gb, entry.ram_gb, entry.note
            );
            (entry.flag.clone(), help)
        });
        let aliases = catalog
            .aliases
            .iter()
            .map(|(alias, flag)| (alias.clone(), format!("Same as --{flag}")));
        models.chain(aliases)
    }
}

impl Args for ModelFlags {
    fn augment_args(command: Command) -> Command {
        let heading = Some("Models");
        let flags = Self::names().map(|(flag, help)| {
            Arg::new(flag.clone())
                .long(flag)
                .help(help)
                .help_heading(heading)
                .action(ArgAction::SetTrue)
        });
        command.args(flags).arg(
            Arg::new("model")
                .long("model")
                .value_name("ID|DIR")
                .help("Any MLX model: a Hugging Face id (org/name) or a local folder (./dir); with --connect, the id that the engine uses")
                .help_heading(heading)
                .allow_hyphen_values(true)
                .action(ArgAction::Set),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ModelFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            flags: Self::names()
                .map(|(flag, _)| flag)
                .filter(|flag| matches.get_flag(flag))
                .collect(),
            model: matches.get_one::<String>("model").cloned(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
