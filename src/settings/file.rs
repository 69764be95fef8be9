//! The settings file, `config.toml`: read, and checked to the last key. A key that is not known is an error, so that a typing error is not a setting
//! that has no effect.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::key::{self, Kind, Raw, Value};
use crate::catalog::{Choice, Form, Own, catalog, parse_model_argument};
use crate::error::{Context, Error, Exit, Result};
use crate::sys::environment::Environment;
use crate::sys::files;
use crate::sys::paths::Paths;

/// The longest name of a model, in characters: names stand in tables of 80 columns.
const LONGEST_NAME: usize = 24;

/// Words that are no names of models: they are commands, or may become some.
const RESERVED: &[&str] = &[
    "help",
    "version",
    "menu",
    "run",
    "start",
    "verify",
    "doctor",
    "pull",
    "update",
    "uninstall",
    "completions",
    "man",
    "config",
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

/// Where a model of one's own is.
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
        Ok(Choice::Own(Own {
            name: self.name.clone(),
            argument: parse_model_argument(environment, self.place.words())?,
            form: self.form,
        }))
    }
}

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub values: Values,
    /// In the order of the file.
    pub models: Vec<OwnModel>,
}

/// The path of the file.
pub fn path(paths: &Paths) -> PathBuf {
    paths.config.join("config.toml")
}

impl Settings {
    /// Reads the file. One that does not exist says nothing. `commands`: words that name no model.
    ///
    /// Errors: it cannot be read, or something in it is wrong.
    pub fn load(environment: &Environment, paths: &Paths, commands: &[String]) -> Result<Self> {
        let path = path(paths);
        let shown = environment.tilde(&path);
        match read(&path, &shown)? {
            None => Ok(Self::default()),
            Some(text) => Self::parse(&text, commands).map_err(|fault| fault.error(&shown)),
        }
    }

    /// Checks a text as the file's. Errors: what is wrong, and where.
    pub fn parse(text: &str, commands: &[String]) -> Result<Self, Fault> {
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
        let reader = Reader { text, commands };
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
        let names = (self.models.iter().map(|model| model.name.as_str()))
            .chain(catalog().models.iter().map(|entry| entry.flag.as_str()));
        parse_model_argument(environment, typed)
            .map(Choice::Argument)
            .map_err(|error| match key::nearest(typed, names) {
                Some(near) => error.hint(format!("perhaps: cclocal --model {near}")),
                None => error,
            })
    }

    /// The table of a choice, if it is a model of one's own.
    pub fn of_choice(&self, choice: &Choice) -> Option<&OwnModel> {
        match choice {
            Choice::Own(own) => self.model(&own.name),
            Choice::Flag(_) | Choice::Argument(_) => None,
        }
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

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub what: What,
    pub line: usize,
    pub cause: String,
    /// What was probably meant.
    pub hint: Option<String>,
}

/// Kind of a fault, with the key or the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Syntax,
    UnknownKey(String),
    WrongValue(String),
    WrongName(String),
    Model(String),
}

impl Fault {
    /// The error for a change after which the file would have this fault. `typed`: what was to be changed.
    pub fn of_change(self, typed: &str) -> Error {
        let error = Error::usage(format!(
            "`{typed}` was not changed: the file would be wrong"
        ))
        .cause(self.cause);
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error.hint("to see what is there: cclocal config"),
        }
    }

    /// The error for a person. `shown`: the path of the file.
    pub fn error(self, shown: &str) -> Error {
        let error = match self.what {
            What::Syntax => Error::usage(format!("{shown} is not valid TOML")),
            What::UnknownKey(key) => Error::usage(format!("{shown} has an unknown key `{key}`")),
            What::WrongValue(key) => Error::usage(format!("{shown} has a wrong value of `{key}`")),
            What::WrongName(name) => Error::usage(format!(
                "{shown} has a model that cannot be called `{name}`"
            )),
            What::Model(name) => {
                Error::usage(format!("{shown} has a model `{name}` that is not complete"))
            }
        };
        let error = error.cause(format!("line {}: {}", self.line, self.cause));
        match self.hint {
            Some(hint) => error.hint(format!("{hint}; to open the file: cclocal config edit")),
            None => error.hint("to open the file: cclocal config edit"),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    commands: &'a [String],
}

impl Reader<'_> {
    fn settings(&self, table: &DeTable<'_>) -> Result<Settings, Fault> {
        let mut settings = Settings::default();
        let mut models = Vec::new();
        for (name, value) in in_order(table) {
            if name.get_ref() == "models" {
                let table = self.table("models", value)?;
                for (name, value) in in_order(table) {
                    models.push(self.model(name, value)?);
                }
                continue;
            }
            let known = key::KEYS.iter().map(|key| key.name).chain(["models"]);
            let key = key::at_top(name.get_ref());
            let key = key.ok_or_else(|| self.unknown("", name, known))?;
            let set = self.set(key, key.name, value)?;
            settings.values.insert(key.name, set);
        }
        settings.models = models;
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
        let names = (settings.models.iter().map(|model| model.name.as_str()))
            .chain(catalog().models.iter().map(|entry| entry.flag.as_str()));
        Err(Fault {
            what: What::WrongValue("model".into()),
            line: set.line,
            cause: Kind::Model.check(Raw::Other).err().unwrap_or_default(),
            hint: key::nearest(&name, names).map(|near| format!("perhaps \"{near}\"")),
        })
    }

    fn model(
        &self,
        name: &Spanned<toml::de::DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<OwnModel, Fault> {
        let line = self.line(name.span());
        let name_text = name.get_ref().to_string();
        if let Err(cause) = self.check_name(&name_text) {
            return Err(Fault {
                what: What::WrongName(name_text),
                line,
                cause,
                hint: None,
            });
        }
        let table = self.table(&format!("models.{name_text}"), value)?;
        let mut values = Values::new();
        for (name, value) in in_order(table) {
            let known = key::keys_of_model().map(|key| key.name);
            let prefix = format!("models.{name_text}.");
            let key = key::of_model(name.get_ref());
            let key = key.ok_or_else(|| self.unknown(&prefix, name, known))?;
            let set = self.set(key, &format!("{prefix}{}", key.name), value)?;
            values.insert(key.name, set);
        }
        let mut taken = |name: &str| values.remove(name).map(|set| set.value.words());
        let place = match (taken("id"), taken("folder")) {
            (Some(id), None) => Ok(Place::Id(id)),
            (None, Some(folder)) => Ok(Place::Folder(folder)),
            (None, None) => Err("it has neither an id nor a folder"),
            (Some(_), Some(_)) => Err("it has an id and a folder, and it is one of them"),
        };
        let form = taken("parser").and_then(|word| key::form(&word));
        match place {
            Ok(place) => Ok(OwnModel {
                name: name_text,
                place,
                form,
                values,
            }),
            Err(cause) => Err(Fault {
                hint: Some(format!(
                    "such as [models.{name_text}] with id = \"org/name\""
                )),
                what: What::Model(name_text),
                line,
                cause: cause.into(),
            }),
        }
    }

    /// Errors: why it is no name.
    fn check_name(&self, name: &str) -> Result<(), String> {
        if !is_name(name) {
            return Err(format!(
                "a name starts with a letter, has a to z, 0 to 9, `-`, `_` and `.`, and {LONGEST_NAME} characters at most"
            ));
        }
        if catalog().by_flag(name).is_some() {
            return Err(format!("--{name} is a model of the catalogue"));
        }
        let is_command = self.commands.iter().any(|command| command == name);
        if is_command || RESERVED.contains(&name) {
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
        name: &str,
        value: &'t Spanned<DeValue<'i>>,
    ) -> Result<&'t DeTable<'i>, Fault> {
        value.get_ref().as_table().ok_or_else(|| Fault {
            what: What::WrongValue(name.to_owned()),
            line: self.line(value.span()),
            cause: "it is a table: [models.NAME], and below it id = \"org/name\"".into(),
            hint: None,
        })
    }

    fn unknown<'k>(
        &self,
        prefix: &str,
        name: &Spanned<toml::de::DeString<'_>>,
        known: impl Iterator<Item = &'k str> + Clone,
    ) -> Fault {
        let typed: &str = name.get_ref();
        let hint = match key::nearest(typed, known.clone()) {
            Some(near) => format!("perhaps `{near}`"),
            None if key::at_top(typed).is_some() => {
                format!("`{typed}` stands at the top of the file, for all models")
            }
            None => "`cclocal config` lists the keys".into(),
        };
        Fault {
            what: What::UnknownKey(format!("{prefix}{typed}")),
            line: self.line(name.span()),
            cause: match prefix {
                "" => "there is no such setting".into(),
                _ => "a model has no such setting".into(),
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
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let fault = Settings::parse(text, &["status".into()]).expect_err(text);
        fault.error("~/config.toml").to_string()
    }

    #[test]
    fn a_whole_file_is_read() {
        let text = "model = 'work'\nctx = '64k'\n[models.work]\nid = 'org/name'\nparser = 'mistral'\nctx = 0x8000\n[models.home]\nfolder = '~/models/one'\n";
        let settings = Settings::parse(text, &[]).expect("good");
        assert_eq!(settings.values["ctx"].value, Value::Number(65_536));
        assert_eq!(settings.values["ctx"].line, 2);
        let [work, home] = &settings.models[..] else {
            panic!("two models");
        };
        assert_eq!(work.place, Place::Id("org/name".into()));
        assert_eq!(work.form, Some(Form::Mistral));
        assert_eq!(work.values["ctx"].value, Value::Number(32_768));
        assert_eq!(home.place, Place::Folder("~/models/one".into()));
        let nothing = Settings::parse("# nothing\n", &[]);
        assert_eq!(nothing, Ok(Settings::default()));
    }

    #[test]
    fn the_default_is_a_model_that_can_be() {
        for good in ["gemma", "light", "org/name", "/models/one", "~/models/one"] {
            let text = format!("model = '{good}'");
            assert!(Settings::parse(&text, &[]).is_ok(), "{good}");
        }
    }

    #[test]
    fn each_fault_is_said_with_its_line() {
        insta::assert_snapshot!(refused("ctx = '64k'\nwindow = 3"), @"
        error: ~/config.toml has an unknown key `window`
          cause: line 2: there is no such setting
          hint: perhaps `ctx`; to open the file: cclocal config edit
        ");
        insta::assert_snapshot!(refused("colour = true"), @"
        error: ~/config.toml has an unknown key `colour`
          cause: line 1: there is no such setting
          hint: `cclocal config` lists the keys; to open the file: cclocal config edit
        ");
        insta::assert_snapshot!(refused("ctx = 'wide'"), @r#"
        error: ~/config.toml has a wrong value of `ctx`
          cause: line 1: it is "auto", or 20480 to 1000000 tokens; "64k" is a number, too
          hint: to open the file: cclocal config edit
        "#);
        insta::assert_snapshot!(refused("ctx = 30000\nctx = 40000"), @"
        error: ~/config.toml is not valid TOML
          cause: line 2: duplicate key
          hint: to open the file: cclocal config edit
        ");
        insta::assert_snapshot!(refused("ctx ="), @"
        error: ~/config.toml is not valid TOML
          cause: line 1: string values must be quoted, expected literal string
          hint: words stand in quotes, and 64k does, too; to open the file: cclocal config edit
        ");
        insta::assert_snapshot!(refused("model = 'wrk'\n[models.work]\nid = 'org/name'"), @r#"
        error: ~/config.toml has a wrong value of `model`
          cause: line 1: it is a flag such as "gemma", a name of [models], a hub id or a folder
          hint: perhaps "work"; to open the file: cclocal config edit
        "#);
        insta::assert_snapshot!(refused("models = 3"), @r#"
        error: ~/config.toml has a wrong value of `models`
          cause: line 1: it is a table: [models.NAME], and below it id = "org/name"
          hint: to open the file: cclocal config edit
        "#);
        insta::assert_snapshot!(refused("[models.one]\nid = 'org/name'\nweb-search = 'brave'"), @"
        error: ~/config.toml has an unknown key `models.one.web-search`
          cause: line 3: a model has no such setting
          hint: `web-search` stands at the top of the file, for all models; to open the file: cclocal config edit
        ");
        insta::assert_snapshot!(refused("[models.one]\npath = '/models/one'"), @"
        error: ~/config.toml has an unknown key `models.one.path`
          cause: line 2: a model has no such setting
          hint: perhaps `folder`; to open the file: cclocal config edit
        ");
        insta::assert_snapshot!(refused("\n[models.one]\nctx = 30000"), @r#"
        error: ~/config.toml has a model `one` that is not complete
          cause: line 2: it has neither an id nor a folder
          hint: such as [models.one] with id = "org/name"; to open the file: cclocal config edit
        "#);
        insta::assert_snapshot!(refused("[models.one]\nid = 'org/name'\nfolder = '/models/one'"), @r#"
        error: ~/config.toml has a model `one` that is not complete
          cause: line 1: it has an id and a folder, and it is one of them
          hint: such as [models.one] with id = "org/name"; to open the file: cclocal config edit
        "#);
        insta::assert_snapshot!(refused("[models.gemma]\nid = 'org/name'"), @"
        error: ~/config.toml has a model that cannot be called `gemma`
          cause: line 1: --gemma is a model of the catalogue
          hint: to open the file: cclocal config edit
        ");
        insta::assert_snapshot!(refused("[models.status]\nid = 'org/name'"), @"
        error: ~/config.toml has a model that cannot be called `status`
          cause: line 1: `cclocal status` is a command, or may become one
          hint: to open the file: cclocal config edit
        ");
        insta::assert_snapshot!(refused("[models.'Big One']\nid = 'org/name'"), @"
        error: ~/config.toml has a model that cannot be called `Big One`
          cause: line 1: a name starts with a letter, has a to z, 0 to 9, `-`, `_` and `.`, and 24 characters at most
          hint: to open the file: cclocal config edit
        ");
    }
}
