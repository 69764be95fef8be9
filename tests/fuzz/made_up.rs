//! Documents that are nearly right: a good one with some of it cut, doubled, moved or replaced.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngSeed};
use serde_json::{Map, Value};

/// As many cases as `PROPTEST_CASES` says, other ones each time. Without it a few, always the same, so that `cargo test` says of the same code
/// the same. What fails is shown in full, and kept nowhere.
pub fn config() -> Config {
    let is_long = std::env::var_os("PROPTEST_CASES").is_some();
    Config {
        failure_persistence: None,
        rng_seed: match is_long {
            true => RngSeed::Random,
            false => RngSeed::Fixed(13),
        },
        ..Config::default()
    }
}

/// What stands where it is not expected.
const PIECES: &[&str] = &[
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\n",
    "\n\n",
    "\r",
    "\0",
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "18446744073709551615",
    "-9223372036854775808",
    "1.5",
    "\"\\ud83d\"",
    "\u{feff}",
    "é",
    "\u{202e}",
    "<tool_call>",
    "</tool_call>",
    "<think>",
    "</think>",
    "<|channel|>",
    "data: ",
    "event: error\n",
    ": ping\n\n",
    "{\"a\":",
    "[[[[[[[[",
    "{{ ",
    "{% ",
    "../",
    "/dev/zero",
];

#[derive(Debug, Clone)]
enum Change {
    Cut(Index, Index),
    Double(Index, Index),
    Insert(Index, usize),
    Byte(Index, u8),
    Deep(Index, u16),
    End(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        1 => (at(), at()).prop_map(|(from, to)| Change::Cut(from, to)),
        1 => (at(), at()).prop_map(|(from, to)| Change::Double(from, to)),
        4 => (at(), 0..PIECES.len()).prop_map(|(at, piece)| Change::Insert(at, piece)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        1 => (at(), 1..2000_u16).prop_map(|(at, depth)| Change::Deep(at, depth)),
        1 => at().prop_map(Change::End),
    ]
}

/// Bytes that are shown as text.
#[derive(Clone)]
pub struct Bytes(Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

impl std::ops::Deref for Bytes {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

/// One of these documents, changed in some places.
pub fn nearly(documents: Vec<Vec<u8>>) -> impl Strategy<Value = Bytes> {
    let document = proptest::sample::select(documents);
    (document, prop::collection::vec(change(), 0..8)).prop_map(|(mut document, changes)| {
        for change in changes {
            apply(&mut document, &change);
        }
        Bytes(document)
    })
}

fn apply(document: &mut Vec<u8>, change: &Change) {
    let range = |from: &Index, to: &Index| {
        let (from, to) = (from.index(document.len() + 1), to.index(document.len() + 1));
        from.min(to)..from.max(to)
    };
    match change {
        Change::Cut(from, to) => drop(document.drain(range(from, to))),
        Change::Double(from, to) => {
            let range = range(from, to);
            let part = document[range.clone()].to_vec();
            document.splice(range.end..range.end, part);
        }
        Change::Insert(at, piece) => {
            let at = at.index(document.len() + 1);
            document.splice(at..at, PIECES[*piece].bytes());
        }
        Change::Byte(at, byte) if !document.is_empty() => {
            let at = at.index(document.len());
            document[at] = *byte;
        }
        Change::Byte(..) => {}
        Change::Deep(at, depth) => {
            let at = at.index(document.len() + 1);
            document.splice(at..at, std::iter::repeat_n(b'[', usize::from(*depth)));
        }
        Change::End(at) => document.truncate(at.index(document.len() + 1)),
    }
}

/// A JSON value in which these names and values are likelier than others.
pub fn value(
    names: &'static [&'static str],
    values: &'static [&'static str],
) -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<u64>().prop_map(Value::from),
        (0..200_000_u64).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
    ];
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        3 => number,
        3 => proptest::sample::select(values).prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
    ];
    let name = prop_oneof![
        9 => proptest::sample::select(names).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    leaf.prop_recursive(5, 64, 12, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            3 => prop::collection::vec((name.clone(), inner), 0..12)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}
