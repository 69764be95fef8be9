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

/// The origin of a value.
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

    /// Whether tools ask before they run, if that was chosen.
    pub fn ask(&self) -> Result<Option<bool>> {
        Ok(match self.value("ask")? {
            Some(Value::Switch(asks)) => Some(asks),
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
            ask: self.ask()?,
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
    /// Whether tools ask before they run, if that was chosen.
    pub ask: Option<bool>,
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The value that counts and its origin, with these flags and variables, and with the model `work` if it is wanted.
    fn resolved(
        name: &str,
        flag: Option<Value>,
        variables: &[(&str, &str)],
        file: &str,
        model: bool,
    ) -> Result<(Option<Value>, Origin)> {
        let environment = Environment::for_tests(Path::new("/home"), variables);
        let settings = Settings::parse(file).expect("a file");
        let key = key::at_top(name).expect("a key");
        let mut flags = Flags::default();
        flags.add(key.name, flag);
        let resolver = Resolver {
            environment: &environment,
            settings: &settings,
            flags: &flags,
            model: settings.model("work").filter(|_| model),
        };
        let resolved = resolver.resolve(key)?;
        Ok((resolved.value, resolved.origin))
    }

    const FILE: &str = "linger = 60\nmem-check = 'always'\nforget-prefix = true\n[models.work]\nid = 'org/name'\nlinger = 90\n";

    #[test]
    fn a_flag_counts_more_than_a_variable_and_that_more_than_the_file() {
        let linger = |flag: Option<u64>, variable: Option<&str>, file: &str, model| {
            let variables: Vec<_> = variable
                .map(|value| ("CCLOCAL_LINGER", value))
                .into_iter()
                .collect();
            resolved("linger", flag.map(Value::Number), &variables, file, model)
        };
        let number = |number| Some(Value::Number(number));
        let variable = Origin::Variable("CCLOCAL_LINGER");
        assert_eq!(
            linger(Some(1), Some("2"), FILE, true),
            Ok((number(1), Origin::Flag))
        );
        assert_eq!(
            linger(None, Some("2"), FILE, true),
            Ok((number(2), variable))
        );
        assert_eq!(
            linger(None, Some(""), FILE, true),
            Ok((number(90), Origin::Model { line: 6 }))
        );
        assert_eq!(
            linger(None, None, FILE, false),
            Ok((number(60), Origin::File { line: 1 }))
        );
        assert_eq!(linger(None, None, "", false), Ok((None, Origin::Default)));
        let error = linger(None, Some("soon"), FILE, true).expect_err("no number");
        insta::assert_snapshot!(error, @"
        error: CCLOCAL_LINGER=soon is not a number of seconds
          hint: set it to a whole number from 0 to 86400, or unset it for 300
        ");
    }

    #[test]
    fn a_variable_that_is_off_turns_off_what_the_file_turns_on() {
        let check = |variables: &[(&str, &str)]| {
            let resolved = resolved("mem-check", None, variables, FILE, false);
            resolved.expect("good").0.map(|value| value.words())
        };
        let word = |word: &str| Some(word.to_owned());
        let (force, no) = ("CCLOCAL_FORCE_MEMCHECK", "CCLOCAL_NO_MEMCHECK");
        assert_eq!(check(&[]), word("always"));
        assert_eq!(check(&[(no, "1")]), word("never"));
        assert_eq!(check(&[(force, "1"), (no, "1")]), word("always"));
        assert_eq!(check(&[(force, "0")]), word("auto"));
        let forgets = |value| {
            let variables = [("CCLOCAL_FORGET_PREFIX", value)];
            resolved("forget-prefix", None, &variables, FILE, false).map(|(value, _)| value)
        };
        assert_eq!(forgets("0"), Ok(Some(Value::Switch(false))));
        assert_eq!(forgets("yes"), Ok(Some(Value::Switch(true))));
    }

    #[test]
    fn options_are_what_counts() {
        let environment = Environment::for_tests(Path::new("/home"), &[]);
        let text = "ctx = '64k'\nout-tokens = 4096\nport = 9000\nthink = true\nweb-search = 'brave'\nmem-check = 'never'\n[models.work]\nid = 'org/name'\nctx = 'auto'\nvision = true\nthink = false\nask = true\n";
        let settings = Settings::parse(text).expect("a file");
        let mut flags = Flags::default();
        flags.add("out-tokens", Some(Value::Number(2_048)));
        flags.add("web-search", Some(Value::Word("off".into())));
        let resolver = Resolver {
            environment: &environment,
            settings: &settings,
            flags: &flags,
            model: None,
        };
        let all = Options {
            asked: Asked {
                window: Some(65_536),
                output: Some(2_048),
            },
            port: Some(9_000),
            linger: None,
            vision: false,
            think: true,
            ask: None,
            forget_prefix: false,
            checking: Checking::Never,
        };
        assert_eq!(resolver.options(), Ok(all.clone()));
        let work = resolver.for_model(settings.model("work"));
        let own = Options {
            asked: Asked {
                window: None,
                ..all.asked
            },
            vision: true,
            think: false,
            ask: Some(true),
            ..all
        };
        assert_eq!(work.options(), Ok(own));
        assert_eq!(resolver.web_search(), Ok(None));
    }
}
