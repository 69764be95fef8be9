//! Which value of a setting counts: the flag's, else the variable's, else the one of the model's table, else the file's, else the default.

use std::collections::BTreeMap;

use super::file::{OwnModel, Settings};
use super::key::{self, Key, Kind, Raw, Value};
use crate::error::{Error, Result};
use crate::memory::Asked;
use crate::memory::preflight::Checking;
use crate::session::release;
use crate::sys::environment::Environment;

/// Values of the command line, by the names of their keys.
#[derive(Debug, Clone, Default)]
pub struct Flags(BTreeMap<&'static str, Value>);

impl Flags {
    /// Notes what a flag says, if it was given.
    pub fn add(&mut self, key: &'static str, value: Option<Value>) {
        if let Some(value) = value {
            self.0.insert(key, value);
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Flag,
    Variable(&'static str),
    /// The table of a model of one's own, in this line of the file.
    Model {
        line: usize,
    },
    File {
        line: usize,
    },
    Default,
}

/// A value and its origin. None: the default, which may depend on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub value: Option<Value>,
    pub origin: Origin,
}

/// Everything that has a say.
#[derive(Debug, Clone, Copy)]
pub struct Resolver<'a> {
    pub environment: &'a Environment,
    pub settings: &'a Settings,
    pub flags: &'a Flags,
    /// The model of one's own that was chosen.
    pub model: Option<&'a OwnModel>,
}

impl<'a> Resolver<'a> {
    /// The same for a session with this model.
    pub fn for_model(self, model: Option<&'a OwnModel>) -> Self {
        Self { model, ..self }
    }

    /// The value of a key that counts. Errors: its variable has a wrong value.
    pub fn resolve(&self, key: &Key) -> Result<Resolved> {
        let found = |value: &Value, origin| Resolved {
            value: Some(value.clone()),
            origin,
        };
        if let Some(value) = self.flags.0.get(key.name) {
            return Ok(found(value, Origin::Flag));
        }
        if let Some((variable, value)) = of_variables(self.environment, key)? {
            return Ok(found(&value, Origin::Variable(variable)));
        }
        if let Some(set) = self.model.and_then(|model| model.values.get(key.name)) {
            return Ok(found(&set.value, Origin::Model { line: set.line }));
        }
        Ok(match self.settings.values.get(key.name) {
            Some(set) => found(&set.value, Origin::File { line: set.line }),
            None => Resolved {
                value: None,
                origin: Origin::Default,
            },
        })
    }

    /// The value of the key of this name, if one is set.
    fn value(&self, name: &str) -> Result<Option<Value>> {
        match key::at_top(name) {
            Some(key) => self.resolve(key).map(|resolved| resolved.value),
            None => Ok(None),
        }
    }

    fn switch(&self, name: &str) -> Result<bool> {
        Ok(self.value(name)? == Some(Value::Switch(true)))
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        Ok(match self.value(name)? {
            Some(Value::Number(number)) => Some(number),
            _ => None,
        })
    }

    fn word(&self, name: &str) -> Result<Option<String>> {
        Ok(match self.value(name)? {
            Some(Value::Word(word)) => Some(word),
            _ => None,
        })
    }

    /// The search service, if one is named and not turned off.
    pub fn web_search(&self) -> Result<Option<String>> {
        Ok(self.word("web-search")?.filter(|service| service != "off"))
    }

    /// The model that is started where the command line names none.
    pub fn default_model(&self) -> Result<Option<String>> {
        self.word("model")
    }

    /// Keep-alive in seconds, if one is set.
    pub fn linger(&self) -> Result<Option<u64>> {
        self.number("linger")
    }

    /// All options of a session.
    pub fn options(&self) -> Result<Options> {
        Ok(Options {
            asked: Asked {
                window: self.number("ctx")?,
                output: self.number("out-tokens")?,
            },
            port: self
                .number("port")?
                .and_then(|port| u16::try_from(port).ok()),
            linger: self.linger()?,
            vision: self.switch("vision")?,
            think: self.switch("think")?,
            forget_prefix: self.switch("forget-prefix")?,
            checking: match self.word("mem-check")?.as_deref() {
                Some("always") => Checking::Always,
                Some("never") => Checking::Never,
                _ => Checking::WhenTight,
            },
        })
    }
}

/// Options of a session on this machine, as they count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub asked: Asked,
    pub port: Option<u16>,
    /// Keep-alive in seconds, if one was set.
    pub linger: Option<u64>,
    pub vision: bool,
    pub think: bool,
    pub forget_prefix: bool,
    pub checking: Checking,
}

/// The value that the environment has for a key, with the variable.
fn of_variables(environment: &Environment, key: &Key) -> Result<Option<(&'static str, Value)>> {
    let mut off = None;
    for &(variable, meaning) in key.variables {
        let Some(set) = environment.var(variable) else {
            continue;
        };
        match (meaning, key.kind) {
            (Some(word), _) if environment.switch(variable) => {
                return Ok(Some((variable, Value::Word(word.into()))));
            }
            (Some(_), _) => off = Some((variable, Value::Word("auto".into()))),
            (None, Kind::Switch) => {
                return Ok(Some((
                    variable,
                    Value::Switch(environment.switch(variable)),
                )));
            }
            (None, kind) => {
                let number = Raw::Number(set.parse().ok());
                let value = kind
                    .check(number)
                    .map_err(|_| wrong_seconds(variable, set))?;
                return Ok(Some((variable, value)));
            }
        }
    }
    Ok(off)
}

fn wrong_seconds(variable: &str, set: &str) -> Error {
    Error::usage(format!("{variable}={set} is not a number of seconds")).hint(format!(
        "set it to a whole number from 0 to {}, or unset it for {}",
        crate::supervisor::state::LONGEST_LINGER.as_secs(),
        release::LINGER.as_secs()
    ))
}
