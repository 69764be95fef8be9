//! The settings file, `config.toml`: read, and checked to the last key. A key that is not known is an error, so that a typing error is not a setting
//! that has no effect.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, What};
use super::key::{self, Group, Kind, Raw, Value};
use crate::catalog::{Choice, Form, ModelArgument, Own, catalog, parse_model_argument};
use crate::error::{Context, Exit, Result};
use crate::sys::environment::Environment;
use crate::sys::files;
use crate::sys::paths::Paths;

/// The longest name of a model, in characters: names stand in tables of 80 columns.
const LONGEST_NAME: usize = 24;

/// Words that are no names of models: they are commands, or may become some. A test holds that every command is here.
#[rustfmt::skip]
pub const RESERVED: &[&str] = &[
    "allow-tool", "completions", "config", "connect", "demo", "doctor", "help", "list", "logs", "man", "menu", "pull", "read-pdf", "rm", "run", "server",
    "setup", "start", "status", "stop", "supervisor", "uninstall", "update", "verify", "version",
];

/// A value in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub value: Value,
    /// Counted from 1.
    pub line: usize,
}

/// Values by the names of their keys.
pub type Values = BTreeMap<&'static str, Set>;

/// The place of a model of one's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A hub id.
    Id(String),
    /// As it is written, such as `~/models/one`.
    Folder(String),
}

impl Place {
    /// As it is written.
    pub fn words(&self) -> &str {
        let (Self::Id(words) | Self::Folder(words)) = self;
        words
    }

    /// Whether it is this model of the hub.
    pub fn is(&self, id: &str) -> bool {
        matches!(self, Self::Id(own) if own.eq_ignore_ascii_case(id))
    }
}

/// A table `[models.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnModel {
    pub name: String,
    pub place: Place,
    pub form: Option<Form>,
    pub values: Values,
}

impl OwnModel {
    /// The choice of this model. Errors: its folder is no model.
    pub fn choice(&self, environment: &Environment) -> Result<Choice> {
        parse_model_argument(environment, self.place.words()).map(|place| self.at(place))
    }

    /// The same without a look at its folder.
    pub fn unchecked(&self, environment: &Environment) -> Choice {
        self.at(match &self.place {
            Place::Id(id) => ModelArgument::Hub(id.clone()),
            Place::Folder(folder) => ModelArgument::Folder(environment.resolve(folder)),
        })
    }

    fn at(&self, argument: ModelArgument) -> Choice {
        Choice::Own(Own {
            name: self.name.clone(),
            argument,
            form: self.form,
        })
    }
}

/// A table `[remotes.NAME]`: an engine that others run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    pub name: String,
    pub url: String,
    pub values: Values,
}

impl Remote {
    /// A value in words, if it is set.
    pub fn word(&self, key: &str) -> Option<String> {
        self.values.get(key).map(|set| set.value.words())
    }

    /// A count, if it is set.
    pub fn number(&self, key: &str) -> Option<u64> {
        match self.values.get(key)?.value {
            Value::Number(number) => Some(number),
            Value::Switch(_) | Value::Word(_) => None,
        }
    }

    /// A switch, if it is set.
    pub fn switch(&self, key: &str) -> Option<bool> {
        match self.values.get(key)?.value {
            Value::Switch(on) => Some(on),
            Value::Number(_) | Value::Word(_) => None,
        }
    }
}

/// The content of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub values: Values,
    /// In the order of the file.
    pub models: Vec<OwnModel>,
    /// The same.
    pub remotes: Vec<Remote>,
}

/// The path of the file.
pub fn path(paths: &Paths) -> PathBuf {
    paths.config.join("config.toml")
}

impl Settings {
    /// Reads the file. One that does not exist says nothing.
    ///
    /// Errors: it cannot be read, or something in it is wrong.
    pub fn load(environment: &Environment, paths: &Paths) -> Result<Self> {
        let path = path(paths);
        let shown = environment.tilde(&path);
        match read(&path, &shown)? {
            None => Ok(Self::default()),
            Some(text) => Self::parse(&text).map_err(|fault| fault.error(&shown)),
        }
    }

    /// Checks a text as the file's. Errors: what is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let document = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let cause = error.message().lines().collect::<Vec<_>>().join(", ");
            Fault {
                what: What::Syntax,
                line: line(text, at),
                hint: (cause.contains("quoted"))
                    .then(|| "words stand in quotes, and 64k does, too".into()),
                cause,
            }
        })?;
        let reader = Reader { text };
        reader.settings(document.get_ref())
    }

    /// The model that a person means: one of their own, a flag of the catalogue, a hub id or a folder. Errors: there is none.
    pub fn choice(&self, environment: &Environment, typed: &str) -> Result<Choice> {
        if let Some(own) = self.model(typed) {
            return own.choice(environment);
        }
        if let Some(entry) = catalog().by_flag(typed) {
            return Ok(Choice::Flag(entry.flag.clone()));
        }
        parse_model_argument(environment, typed)
            .map(Choice::Argument)
            .map_err(|error| match key::nearest(typed, self.model_names()) {
                Some(near) => error.hint(format!("perhaps: cclocal --model {near}")),
                None => error,
            })
    }

    /// The names of one's own models and the flags of the catalogue.
    fn model_names(&self) -> impl Iterator<Item = &str> + Clone {
        let own = self.models.iter().map(|model| model.name.as_str());
        own.chain(catalog().models.iter().map(|entry| entry.flag.as_str()))
    }

    /// The table of a choice, if it is a model of one's own.
    pub fn of_choice(&self, choice: &Choice) -> Option<&OwnModel> {
        match choice {
            Choice::Own(own) => self.model(&own.name),
            Choice::Flag(_) | Choice::Argument(_) => None,
        }
    }

    /// The engine of others that has this name.
    pub fn remote(&self, name: &str) -> Option<&Remote> {
        self.remotes.iter().find(|remote| remote.name == name)
    }

    /// The model of this name.
    pub fn model(&self, name: &str) -> Option<&OwnModel> {
        self.models.iter().find(|model| model.name == name)
    }
}

/// Whether a word can be the name of a model.
pub fn is_name(word: &str) -> bool {
    let is_part = |letter: char| {
        letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-_.".contains(letter)
    };
    word.starts_with(|letter: char| letter.is_ascii_lowercase())
        && word.chars().all(is_part)
        && word.len() <= LONGEST_NAME
}

/// The text of the file. None: there is none. Errors: it is there and cannot be read; `shown`: its path for people.
pub fn read(path: &Path, shown: &str) -> Result<Option<String>> {
    match files::read_text(path, files::SETTINGS) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => Ok(None),
        Err(error) => Err(error)
            .context(Exit::Other, format!("the settings file {shown} cannot be read"))
            .map_err(|error| error.hint("make it readable, or move it away: without it, all settings have their defaults")),
    }
}

struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn settings(&self, table: &DeTable<'_>) -> Result<Settings, Fault> {
        let mut settings = Settings::default();
        for (name, value) in in_order(table) {
            let group = Group::ALL
                .into_iter()
                .find(|group| group.table() == name.get_ref());
            if let Some(group) = group {
                for (name, value) in in_order(self.table(group, group.table(), value)?) {
                    self.named(group, name, value, &mut settings)?;
                }
                continue;
            }
            let known = (key::KEYS.iter().map(|key| key.name)).chain(Group::ALL.map(Group::table));
            let key = key::at_top(name.get_ref());
            let key = key.ok_or_else(|| self.unknown(None, name, known))?;
            let set = self.set(key, key.name, value)?;
            settings.values.insert(key.name, set);
        }
        self.check_default(&settings)?;
        Ok(settings)
    }

    /// Whether the default is a model.
    fn check_default(&self, settings: &Settings) -> Result<(), Fault> {
        let Some(set) = settings.values.get("model") else {
            return Ok(());
        };
        let name = set.value.words();
        let is_path = ["/", "~/"].iter().any(|start| name.starts_with(start));
        let is_known = settings.model(&name).is_some() || catalog().by_flag(&name).is_some();
        if is_path || is_known || crate::catalog::is_hub_id(&name) {
            return Ok(());
        }
        Err(Fault {
            what: What::WrongValue("model".into()),
            line: set.line,
            cause: Kind::Model.check(Raw::Other).err().unwrap_or_default(),
            hint: key::nearest(&name, settings.model_names())
                .map(|near| format!("perhaps \"{near}\"")),
        })
    }

    /// Reads a table with a name.
    fn named(
        &self,
        group: Group,
        name: &Spanned<toml::de::DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        settings: &mut Settings,
    ) -> Result<(), Fault> {
        let line = self.line(name.span());
        let name_text = name.get_ref().to_string();
        if let Err(cause) = Self::check_name(group, &name_text) {
            return Err(Fault {
                what: What::WrongName(group, name_text),
                line,
                cause,
                hint: None,
            });
        }
        let path = format!("{}.{name_text}", group.table());
        let mut values = Values::new();
        for (name, value) in in_order(self.table(group, &path, value)?) {
            let known = group.keys().into_iter().map(|key| key.name);
            let key = group.key(name.get_ref());
            let key = key.ok_or_else(|| self.unknown(Some((group, &path)), name, known))?;
            let set = self.set(key, &format!("{path}.{}", key.name), value)?;
            values.insert(key.name, set);
        }
        let incomplete = |cause: &str, such: &str| Fault {
            what: What::Incomplete(group, name_text.clone()),
            line,
            cause: cause.into(),
            hint: Some(format!("such as [{path}] with {such}")),
        };
        let mut taken = |name: &str| values.remove(name).map(|set| set.value.words());
        match group {
            Group::Models => {
                let such = "id = \"org/name\"";
                let place = match (taken("id"), taken("folder")) {
                    (Some(id), None) => Place::Id(id),
                    (None, Some(folder)) => Place::Folder(folder),
                    (None, None) => {
                        return Err(incomplete("it has neither an id nor a folder", such));
                    }
                    (Some(_), Some(_)) => {
                        let cause = "it has an id and a folder, and it is one of them";
                        return Err(incomplete(cause, such));
                    }
                };
                let form = taken("parser").and_then(|word| key::form(&word));
                settings.models.push(OwnModel {
                    name: name_text,
                    place,
                    form,
                    values,
                });
            }
            Group::Remotes => {
                let Some(url) = taken("url") else {
                    let such = "url = \"https://llm.example\"";
                    return Err(incomplete("it has no url", such));
                };
                settings.remotes.push(Remote {
                    name: name_text,
                    url,
                    values,
                });
            }
        }
        Ok(())
    }

    /// Errors: why it is no name.
    fn check_name(group: Group, name: &str) -> Result<(), String> {
        if !is_name(name) {
            return Err(format!(
                "a name starts with a letter, has a to z, 0 to 9, `-`, `_` and `.`, and {LONGEST_NAME} characters at most"
            ));
        }
        // Those of remotes stand behind --connect.
        if group == Group::Remotes {
            return Ok(());
        }
        if catalog().by_flag(name).is_some() {
            return Err(format!("--{name} is a model of the catalogue"));
        }
        if RESERVED.contains(&name) {
            return Err(format!("`cclocal {name}` is a command, or may become one"));
        }
        Ok(())
    }

    fn set(&self, key: &key::Key, shown: &str, value: &Spanned<DeValue<'_>>) -> Result<Set, Fault> {
        let line = self.line(value.span());
        match key.kind.check(raw(value.get_ref())) {
            Ok(value) => Ok(Set { value, line }),
            Err(cause) => Err(Fault {
                what: What::WrongValue(shown.to_owned()),
                line,
                cause,
                hint: None,
            }),
        }
    }

    fn table<'t, 'i>(
        &self,
        group: Group,
        path: &str,
        value: &'t Spanned<DeValue<'i>>,
    ) -> Result<&'t DeTable<'i>, Fault> {
        value.get_ref().as_table().ok_or_else(|| Fault {
            what: What::WrongValue(path.to_owned()),
            line: self.line(value.span()),
            cause: format!(
                "it is a table: [{}.NAME], and its keys below",
                group.table()
            ),
            hint: None,
        })
    }

    /// `table`: the table it stands in, with its path.
    fn unknown<'k>(
        &self,
        table: Option<(Group, &str)>,
        name: &Spanned<toml::de::DeString<'_>>,
        known: impl Iterator<Item = &'k str> + Clone,
    ) -> Fault {
        let typed: &str = name.get_ref();
        let hint = match key::nearest(typed, known) {
            Some(near) => format!("perhaps `{near}`"),
            None if key::at_top(typed).is_some() => {
                format!("`{typed}` stands at the top of the file, for all models")
            }
            None => "`cclocal config` lists the keys".into(),
        };
        Fault {
            what: What::UnknownKey(match table {
                None => typed.to_owned(),
                Some((_, path)) => format!("{path}.{typed}"),
            }),
            line: self.line(name.span()),
            cause: match table {
                None => "there is no such setting".into(),
                Some((group, _)) => format!("a {} has no such setting", group.one()),
            },
            hint: Some(hint),
        }
    }

    fn line(&self, span: Range<usize>) -> usize {
        line(self.text, span.start)
    }
}

/// The entries in the order of the file.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(
    &'t Spanned<toml::de::DeString<'i>>,
    &'t Spanned<DeValue<'i>>,
)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

fn raw<'v>(value: &'v DeValue<'_>) -> Raw<'v> {
    match value {
        DeValue::Boolean(on) => Raw::Switch(*on),
        DeValue::String(text) => Raw::Text(text),
        DeValue::Integer(number) => {
            Raw::Number(u64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        _ => Raw::Other,
    }
}

/// The line of a place in a text, counted from 1.
fn line(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests;
