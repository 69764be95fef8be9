//! Keys of the settings file: their names, their values, and the variables that say the same. One table; everything else reads it.

use crate::catalog::Form;
use crate::engine::argv::MAX_OUTPUT_TOKENS;
use crate::supervisor::state::LONGEST_LINGER;
use crate::sys::tokens;

/// The smallest window that can be asked for, in tokens: less holds no session (see `memory::smallest_window`).
pub const SMALLEST_WINDOW: u64 = 20_480;
/// The largest, in tokens: what the client assumes of a model it does not know.
pub const LARGEST_WINDOW: u64 = 1_000_000;

/// A value of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Switch(bool),
    Number(u64),
    Word(String),
}

/// Kind of a key's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Switch,
    /// From one count of tokens to another, or `auto` as well.
    Tokens {
        least: u64,
        most: u64,
        or_auto: bool,
    },
    /// From 0 to this many.
    Seconds {
        most: u64,
    },
    Port,
    /// The same, in minutes.
    Minutes {
        most: u64,
    },
    /// From 1 to this many.
    Count {
        most: u64,
    },
    OneOf(&'static [&'static str]),
    /// A search service.
    Service,
    /// A model: a name or a flag, a hub id, a folder. Which names there are is checked with the whole file.
    Model,
    /// A hub id.
    Id,
    /// A folder that starts at the root or at home.
    Folder,
    /// The form of tool calls.
    Parser,
    /// The URL of an engine that others run.
    Url,
    /// The name of an environment variable.
    Variable,
    /// A model's id, as an engine that others run has it.
    Name,
}

/// Key of the settings file.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// Whether a model of one's own can have its own value.
    pub per_model: bool,
    /// Variables that say the same. With a word: what it means if it is switched on; else its value is the key's.
    pub variables: &'static [(&'static str, Option<&'static str>)],
    /// Its default in words.
    pub default: &'static str,
}

const WINDOW: Kind = Kind::Tokens {
    least: SMALLEST_WINDOW,
    most: LARGEST_WINDOW,
    or_auto: true,
};

const REPLY: Kind = Kind::Tokens {
    least: 1,
    most: MAX_OUTPUT_TOKENS,
    or_auto: false,
};

const LINGER: Kind = Kind::Seconds {
    most: LONGEST_LINGER.as_secs(),
};

/// The longest time for which an engine that is away is waited for, in minutes: a day.
pub const LONGEST_WAIT: u64 = 24 * 60;

pub const MEM_CHECK: &[&str] = &["auto", "always", "never"];

/// The keys at the top of the file. Most are named as the option of the command line that says the same.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    Key { name: "model", kind: Kind::Model, per_model: false, variables: &[], default: "the menu asks" },
    Key { name: "ctx", kind: WINDOW, per_model: true, variables: &[], default: "auto" },
    Key { name: "out-tokens", kind: REPLY, per_model: true, variables: &[], default: "8192, or 4096 if memory is short" },
    Key { name: "vision", kind: Kind::Switch, per_model: true, variables: &[], default: "false" },
    Key { name: "think", kind: Kind::Switch, per_model: true, variables: &[], default: "false" },
    Key { name: "linger", kind: LINGER, per_model: true, variables: &[("CCLOCAL_LINGER", None)], default: "300" },
    Key { name: "port", kind: Kind::Port, per_model: true, variables: &[], default: "8000, or the next that is free" },
    Key { name: "web-search", kind: Kind::Service, per_model: false, variables: &[], default: "off" },
    Key { name: "ask", kind: Kind::Switch, per_model: true, variables: &[], default: "false" },
    Key { name: "mem-check", kind: Kind::OneOf(MEM_CHECK), per_model: true, variables: &[("CCLOCAL_FORCE_MEMCHECK", Some("always")), ("CCLOCAL_NO_MEMCHECK", Some("never"))], default: "auto" },
    Key { name: "forget-prefix", kind: Kind::Switch, per_model: false, variables: &[("CCLOCAL_FORGET_PREFIX", None)], default: "false" },
];

/// Keys of a model of one's own that say which it is. The rest are those of the top that are marked so.
#[rustfmt::skip]
pub const MODEL_KEYS: &[Key] = &[
    Key { name: "id", kind: Kind::Id, per_model: true, variables: &[], default: "" },
    Key { name: "folder", kind: Kind::Folder, per_model: true, variables: &[], default: "" },
    Key { name: "parser", kind: Kind::Parser, per_model: true, variables: &[], default: "as the chat template shows" },
];

/// Keys of an engine that others run, `[remotes.NAME]`.
#[rustfmt::skip]
pub const REMOTE_KEYS: &[Key] = &[
    Key { name: "url", kind: Kind::Url, per_model: false, variables: &[], default: "" },
    Key { name: "token-env", kind: Kind::Variable, per_model: false, variables: &[], default: "none" },
    Key { name: "model", kind: Kind::Name, per_model: false, variables: &[], default: "the only one that it serves" },
    Key { name: "ctx", kind: Kind::Tokens { least: SMALLEST_WINDOW, most: LARGEST_WINDOW, or_auto: false }, per_model: false, variables: &[], default: "as the engine says" },
    Key { name: "out-tokens", kind: REPLY, per_model: false, variables: &[], default: "8192" },
    Key { name: "parallel", kind: Kind::Count { most: 256 }, per_model: false, variables: &[], default: "as the engine says, else 4" },
    Key { name: "wait", kind: Kind::Minutes { most: LONGEST_WAIT }, per_model: false, variables: &[], default: "15" },
    Key { name: "ask", kind: Kind::Switch, per_model: false, variables: &[], default: "true" },
    Key { name: "insecure", kind: Kind::Switch, per_model: false, variables: &[], default: "false" },
];

/// Words that people may write for a key.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("window", "ctx"),
    ("context", "ctx"),
    ("context-window", "ctx"),
    ("default", "model"),
    ("default-model", "model"),
    ("output", "out-tokens"),
    ("output-tokens", "out-tokens"),
    ("max-tokens", "out-tokens"),
    ("keep-alive", "linger"),
    ("search", "web-search"),
    ("thinking", "think"),
    ("safe", "mem-check"),
    ("no-mem-check", "mem-check"),
    ("memory-check", "mem-check"),
    ("asking", "ask"),
    ("no-ask", "ask"),
    ("path", "folder"),
    ("form", "parser"),
    ("tool-call-parser", "parser"),
    ("address", "url"),
    ("token", "token-env"),
    ("key", "token-env"),
    ("api-key", "token-env"),
];

/// The key of this name at the top of the file.
pub fn at_top(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// A kind of tables with names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Models,
    Remotes,
}

impl Group {
    pub const ALL: [Self; 2] = [Self::Models, Self::Remotes];

    /// The name of the table that holds them.
    pub fn table(self) -> &'static str {
        match self {
            Self::Models => "models",
            Self::Remotes => "remotes",
        }
    }

    /// One of them, in words.
    pub fn one(self) -> &'static str {
        match self {
            Self::Models => "model",
            Self::Remotes => "remote",
        }
    }

    /// A table and what follows its name, of a path such as `models.NAME.KEY`.
    pub fn of_path(path: &str) -> Option<(Self, &str)> {
        let (table, rest) = path.split_once('.')?;
        let group = Self::ALL.into_iter().find(|group| group.table() == table)?;
        Some((group, rest))
    }

    /// All keys of such a table.
    pub fn keys(self) -> Vec<&'static Key> {
        match self {
            Self::Models => keys_of_model().collect(),
            Self::Remotes => REMOTE_KEYS.iter().collect(),
        }
    }

    /// The key of this name.
    pub fn key(self, name: &str) -> Option<&'static Key> {
        self.keys().into_iter().find(|key| key.name == name)
    }
}

/// All keys of a model's table.
fn keys_of_model() -> impl Iterator<Item = &'static Key> + Clone {
    let options = KEYS.iter().filter(|key| key.per_model);
    MODEL_KEYS.iter().chain(options)
}

/// The known name that was probably meant, if one is near.
pub fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let typed = typed.to_lowercase().replace('_', "-");
    let others = OTHER_WORDS.iter().filter_map(|(word, meant)| {
        let name = known.clone().find(|name| name == meant)?;
        Some((*word, name))
    });
    let words = known.clone().map(|name| (name, name)).chain(others);
    words
        .map(|(word, name)| (strsim::damerau_levenshtein(&typed, word), word, name))
        // As many wrong letters as a third of the word, at least one.
        .filter(|(wrong, word, _)| *wrong <= (word.len() / 3).max(1))
        .min_by_key(|(wrong, ..)| *wrong)
        .map(|(.., name)| name)
}

/// A value as the file or the command line has it.
#[derive(Debug, Clone, Copy)]
pub enum Raw<'a> {
    Switch(bool),
    /// None: it is negative, or too large for a setting.
    Number(Option<u64>),
    Text(&'a str),
    /// A list, a date or the like.
    Other,
}

impl Kind {
    /// Checks a value. Errors: what it has to be, in words.
    pub fn check(self, raw: Raw<'_>) -> Result<Value, String> {
        self.value(raw).ok_or_else(|| self.words(raw))
    }

    /// The value of a word of the command line, and how it is written in the file. Errors: as above.
    pub fn typed(self, text: &str) -> Result<(Value, toml_edit::Value), String> {
        let raw = match (self, text) {
            (Self::Switch, "true") => Raw::Switch(true),
            (Self::Switch, "false") => Raw::Switch(false),
            (
                Self::Seconds { .. } | Self::Minutes { .. } | Self::Count { .. } | Self::Port,
                text,
            ) => Raw::Number(text.parse().ok()),
            (_, text) => Raw::Text(text),
        };
        let value = self.check(raw)?;
        let written = match &value {
            Value::Switch(on) => (*on).into(),
            // `64k` stays that.
            Value::Number(number) => match i64::try_from(*number) {
                Ok(number) if !text.ends_with(['k', 'K']) => number.into(),
                _ => text.into(),
            },
            Value::Word(word) => word.as_str().into(),
        };
        Ok((value, written))
    }

    fn value(self, raw: Raw<'_>) -> Option<Value> {
        let word = |text: &str| Value::Word(text.to_owned());
        match (self, raw) {
            (Self::Switch, Raw::Switch(on)) => Some(Value::Switch(on)),
            (Self::Tokens { or_auto: true, .. }, Raw::Text("auto")) => Some(word("auto")),
            (Self::Tokens { least, most, .. }, Raw::Number(_) | Raw::Text(_)) => {
                let count = match raw {
                    Raw::Text(text) => tokens::parse(text),
                    Raw::Number(number) => number,
                    _ => None,
                };
                count
                    .filter(|count| (least..=most).contains(count))
                    .map(Value::Number)
            }
            (Self::Seconds { most }, Raw::Number(Some(seconds))) if seconds <= most => {
                Some(Value::Number(seconds))
            }
            (Self::Count { most }, Raw::Number(Some(count))) => {
                (1..=most).contains(&count).then_some(Value::Number(count))
            }
            (Self::Minutes { most }, Raw::Number(Some(minutes))) if minutes <= most => {
                Some(Value::Number(minutes))
            }
            (Self::Port, Raw::Number(Some(port @ 1..=65_535))) => Some(Value::Number(port)),
            (Self::OneOf(words), Raw::Text(text)) if words.contains(&text) => Some(word(text)),
            (Self::Parser, Raw::Text(text)) => form(text).map(|_| word(text)),
            (Self::Service, Raw::Text(text)) => {
                let is_word = matches!(text, "brave" | "tavily" | "off");
                (is_word || is_plain_url(text)).then(|| word(text))
            }
            (Self::Model, Raw::Text(text)) => (!text.is_empty()).then(|| word(text)),
            (Self::Url, Raw::Text(text)) => is_plain_url(text).then(|| word(text)),
            (Self::Variable, Raw::Text(text)) => is_variable(text).then(|| word(text)),
            (Self::Name, Raw::Text(text)) => {
                let is_plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
                is_plain.then(|| word(text))
            }
            (Self::Id, Raw::Text(text)) => crate::catalog::is_hub_id(text).then(|| word(text)),
            (Self::Folder, Raw::Text(text)) => {
                let is_whole = text.starts_with('/') || text.starts_with("~/");
                is_whole.then(|| word(text))
            }
            _ => None,
        }
    }

    /// A description of the values of this kind, for a person who wrote another.
    fn words(self, raw: Raw<'_>) -> String {
        match self {
            Self::Switch => "it is true or false".into(),
            Self::Tokens {
                least,
                most,
                or_auto,
            } => {
                let auto = if or_auto { "\"auto\", or " } else { "" };
                let such = if or_auto { "64k" } else { "8k" };
                format!("it is {auto}{least} to {most} tokens; \"{such}\" is a number, too")
            }
            Self::Seconds { most } => format!("it is a number of seconds from 0 to {most}"),
            Self::Minutes { most } => format!("it is a number of minutes from 0 to {most}"),
            Self::Count { most } => format!("it is a number from 1 to {most}"),
            Self::Port => "it is a port from 1 to 65535".into(),
            Self::OneOf(words) => format!("it is {}", one_of(words.iter().copied())),
            Self::Parser => format!("it is {}", one_of(FORMS.iter().map(|form| form.word()))),
            Self::Service | Self::Url if matches!(raw, Raw::Text(text) if text.contains('@')) => {
                "a URL in this file has no user name and no password: others may read it".into()
            }
            Self::Url => "it is a URL that starts with http:// or https://".into(),
            Self::Variable => {
                "it is the name of a variable, such as \"TEAM_KEY\"; the token itself stays out of this file".into()
            }
            Self::Name => "it is the model's id there, in quotes".into(),
            Self::Service => {
                "it is \"brave\", \"tavily\", \"off\" or the URL of a SearXNG instance".into()
            }
            Self::Model => {
                "it is a flag such as \"gemma\", a name of [models], a hub id or a folder".into()
            }
            Self::Id => "it is a hub id: org/name, in quotes".into(),
            Self::Folder => "it is a folder in quotes, from / or ~/".into(),
        }
    }
}

/// The forms that a model's table can name.
const FORMS: &[Form] = &[
    Form::Gemma4,
    Form::Hermes,
    Form::Qwen3Coder,
    Form::Glm47,
    Form::Llama3,
    Form::Mistral,
    Form::Harmony,
];

/// The form of this name.
pub fn form(word: &str) -> Option<Form> {
    FORMS.iter().copied().find(|form| form.word() == word)
}

fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.join(""),
    }
}

/// Whether it can be the name of a variable. In small letters or with other signs in it, it is more likely to be a token.
fn is_variable(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    !text.is_empty() && text.bytes().all(is_part) && !text.as_bytes()[0].is_ascii_digit()
}

/// Whether it is the URL of a server, without a password in it.
fn is_plain_url(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

impl Value {
    /// As a person reads it, and writes it on the command line.
    pub fn words(&self) -> String {
        match self {
            Self::Switch(on) => on.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Word(word) => word.clone(),
        }
    }

    pub fn json(&self) -> serde_json::Value {
        match self {
            Self::Switch(on) => (*on).into(),
            Self::Number(number) => (*number).into(),
            Self::Word(word) => word.as_str().into(),
        }
    }
}

#[cfg(test)]
mod tests;
