//! Breaks of the prefix cache: turns that computed much more than was new, and where their prompt first differed from the one before.
//!
//! Kept of a prompt are a hash and a length of each of its parts, never its words.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::gateway::anthropic::Usage;
use crate::gateway::auth::Caller;

/// A break costs at least so many tokens: less is a message that was put another way.
const LEAST: u64 = 1_024;

/// How many conversations of a caller are kept: its main one, and those beside it.
const KEPT: usize = 4;

/// The parts of a prompt, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    system: u64,
    tools: u64,
    /// Hash and bytes of each.
    messages: Vec<(u64, usize)>,
    /// Of the whole body.
    bytes: usize,
}

/// A break that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheBreak {
    /// The first part of the prompt that differed, in words. None: no part did; the cache had dropped it.
    pub part: Option<String>,
    /// Tokens that were computed beyond those that were new.
    pub tokens: u64,
}

/// All breaks of an engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheBreaks {
    pub count: u64,
    /// Tokens that they cost in sum.
    pub tokens: u64,
    pub last: Option<CacheBreak>,
}

/// The last prompts of all callers. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct CacheWatch(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    conversations: BTreeMap<Caller, VecDeque<Parts>>,
    breaks: CacheBreaks,
}

impl Parts {
    /// The parts of a body as the engine gets it. None: it has no messages.
    pub(crate) fn of(body: &[u8]) -> Option<Self> {
        let mut parts = Self {
            bytes: body.len(),
            ..Self::default()
        };
        for (key, value) in fields(body) {
            match key {
                b"\"system\"" => parts.system = hash(value),
                b"\"tools\"" => parts.tools = hash(value),
                b"\"messages\"" => {
                    let items = items(value).into_iter();
                    parts.messages = items.map(|item| (hash(item), item.len())).collect();
                }
                _ => {}
            }
        }
        (!parts.messages.is_empty()).then_some(parts)
    }

    /// Whether one may go on with the other: they share a message in the same place.
    fn is_of(&self, other: &Self) -> bool {
        let mut pairs = self.messages.iter().zip(&other.messages);
        pairs.any(|(one, other)| one == other)
    }

    /// The first part that differs from the prompt before, and how many bytes are new.
    fn against(&self, before: &Self) -> (Option<String>, usize) {
        let count = self.messages.len();
        let pairs = self.messages.iter().zip(&before.messages);
        let same = pairs.take_while(|(now, then)| now == then).count();
        let part = if self.system != before.system {
            Some("the system prompt".to_owned())
        } else if self.tools != before.tools {
            Some("the tools".to_owned())
        } else {
            (same < before.messages.len())
                .then(|| format!("message {} of {count}", (same + 1).min(count)))
        };
        let new = self.messages.iter().skip(before.messages.len());
        (part, new.map(|(_, bytes)| bytes).sum())
    }
}

impl CacheWatch {
    /// Notes a turn that was answered, and returns the break that it was.
    pub(crate) fn see(&self, caller: Caller, parts: Parts, usage: Usage) -> Option<CacheBreak> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let conversations = seen.conversations.entry(caller).or_default();
        let at = conversations.iter().rposition(|kept| parts.is_of(kept));
        let before = at.and_then(|at| conversations.remove(at));
        if conversations.len() == KEPT {
            conversations.pop_front();
        }
        let found = before.and_then(|before| found(&before, &parts, usage));
        conversations.push_back(parts);
        let found = found?;
        seen.breaks.count += 1;
        seen.breaks.tokens += found.tokens;
        seen.breaks.last = Some(found.clone());
        Some(found)
    }

    pub(crate) fn breaks(&self) -> CacheBreaks {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.breaks.clone()
    }

    /// The caller will not come back.
    pub(crate) fn forget(&self, caller: Caller) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.conversations.remove(&caller);
    }
}

fn found(before: &Parts, now: &Parts, usage: Usage) -> Option<CacheBreak> {
    let (part, bytes) = now.against(before);
    let computed = usage.computed();
    let prompt = computed + usage.cache_read_input_tokens;
    // The bytes of a body and the tokens of its prompt go together well enough for that.
    let share = bytes as f64 / now.bytes.max(1) as f64;
    let new = (prompt as f64 * share) as u64;
    let tokens = computed.saturating_sub(new);
    (tokens >= LEAST && tokens > new).then_some(CacheBreak { part, tokens })
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The fields of a JSON object: names, in quotes as they stand, and values.
fn fields(object: &[u8]) -> Vec<(&[u8], &[u8])> {
    let fields = items(object).into_iter();
    fields
        .filter_map(|field| {
            let colon = colon(field)?;
            Some((trimmed(&field[..colon]), trimmed(&field[colon + 1..])))
        })
        .collect()
}

/// The first colon that is in no string.
fn colon(field: &[u8]) -> Option<usize> {
    let mut strings = Strings::default();
    (0..field.len()).find(|&at| !strings.inside(field[at]) && field[at] == b':')
}

/// The items of a JSON object or list, as they stand. Nothing is parsed: a prompt can have megabytes. serde_json's `RawValue` would do, but its feature
/// gives one key a meaning in every JSON object that is read anywhere, a model's arguments included.
fn items(list: &[u8]) -> Vec<&[u8]> {
    let list = trimmed(list);
    let mut strings = Strings::default();
    let (mut depth, mut start, mut found) = (0usize, 1, Vec::new());
    for (at, &byte) in list.iter().enumerate() {
        if strings.inside(byte) {
            continue;
        }
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let ends = (byte == b',' && depth == 1) || (depth == 0 && at > 0);
        if ends && start <= at {
            let item = trimmed(&list[start..at]);
            if !item.is_empty() {
                found.push(item);
            }
            start = at + 1;
        }
    }
    found
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}

/// Whether a byte of JSON belongs to a string.
#[derive(Default)]
struct Strings {
    quoted: bool,
    escaped: bool,
}

impl Strings {
    /// Takes the next byte.
    fn inside(&mut self, byte: u8) -> bool {
        match (self.quoted, byte) {
            (true, _) if self.escaped => self.escaped = false,
            (true, b'\\') => self.escaped = true,
            (true, b'"') => self.quoted = false,
            (false, b'"') => self.quoted = true,
            (false, _) => return false,
            (true, _) => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ONE: Caller = Caller::Lease(1);

    fn parts(system: &str, messages: &[&str]) -> Parts {
        let messages: Vec<Value> = messages
            .iter()
            .map(|text| json!({"role": "user", "content": text.repeat(500)}))
            .collect();
        let body = json!({"max_tokens": 9, "stream": true, "system": system, "tools": [{"name": "a"}], "messages": messages});
        Parts::of(body.to_string().as_bytes()).expect("messages")
    }

    fn usage(computed: u64, cached: u64) -> Usage {
        Usage {
            input_tokens: computed,
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: cached,
            output_tokens: 5,
        }
    }

    #[test]
    fn a_body_is_cut_into_its_parts_whatever_stands_in_its_strings() {
        let body = json!({"system": "a \"[{,:\\ b", "messages": [{"content": "}],{"}, {"content": ["x", {"y": "\\\""}]}], "tools": []});
        for text in [
            body.to_string(),
            serde_json::to_string_pretty(&body).expect("text"),
        ] {
            let parts = Parts::of(text.as_bytes()).expect("messages");
            assert_eq!(parts.messages.len(), 2, "{text}");
            assert_ne!((parts.system, parts.tools), (0, 0));
        }
        assert_eq!(Parts::of(b"{}"), None);
        for odd in [
            "",
            "[",
            "{\"messages\"",
            "{\"messages\":[",
            "]]}}",
            "\"",
            "{\"messages\":1}",
        ] {
            let _ = Parts::of(odd.as_bytes());
        }
    }

    #[test]
    fn a_turn_that_computes_what_is_new_is_no_break() {
        let watch = CacheWatch::default();
        assert_eq!(
            watch.see(ONE, parts("s", &["a", "b"]), usage(5_000, 0)),
            None
        );
        assert_eq!(
            watch.see(ONE, parts("s", &["a", "b", "c", "d"]), usage(5_000, 5_000)),
            None
        );
        assert_eq!(watch.breaks(), CacheBreaks::default());
    }

    #[test]
    fn a_break_says_where_and_what_it_cost() {
        let watch = CacheWatch::default();
        watch.see(ONE, parts("s", &["a", "b", "c"]), usage(9_000, 0));
        let found = watch.see(ONE, parts("s", &["a", "x", "c", "d"]), usage(9_000, 3_000));
        let found = found.expect("a break");
        assert_eq!(found.part.as_deref(), Some("message 2 of 4"));
        assert!((5_000..7_000).contains(&found.tokens), "{found:?}");
        let found = watch.see(ONE, parts("t", &["a", "x", "c", "d"]), usage(9_000, 0));
        assert_eq!(
            found.expect("a break").part.as_deref(),
            Some("the system prompt")
        );
        let found = watch.see(ONE, parts("t", &["a", "x", "c", "d"]), usage(9_000, 0));
        assert_eq!(found.expect("a break").part, None);
        let found = watch.see(ONE, parts("t", &["A", "x", "c", "d"]), usage(9_000, 0));
        assert_eq!(
            found.expect("a break").part.as_deref(),
            Some("message 1 of 4")
        );
        assert_eq!(watch.breaks().count, 4);
        // A separate conversation, one of another caller, and one that restarts after a compaction.
        assert_eq!(
            watch.see(ONE, parts("t", &["another"]), usage(9_000, 0)),
            None
        );
        assert_eq!(
            watch.see(Caller::Main, parts("t", &["a"]), usage(9_000, 0)),
            None
        );
        watch.forget(ONE);
        assert_eq!(watch.see(ONE, parts("t", &["a"]), usage(9_000, 0)), None);
    }

    #[test]
    fn a_few_tokens_more_are_no_break() {
        let watch = CacheWatch::default();
        watch.see(ONE, parts("s", &["a", "b"]), usage(20_000, 0));
        let turn = parts("s", &["a", "c", "d"]);
        assert_eq!(watch.see(ONE, turn, usage(1_000, 19_000)), None);
    }
}
