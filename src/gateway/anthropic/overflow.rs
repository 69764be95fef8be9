//! Refusals of requests that are too long, as engines put them: read for their numbers, so that the client is told in the one sentence on which it
//! compacts. Pure.

use serde_json::Value;

/// Words after which the window stands, in tokens. Sources: vLLM 0.6 to 0.32 (the first five), SGLang, Ray Serve LLM, llama.cpp's server.
const WINDOW: [&str; 9] = [
    "maximum context length is ",
    "context length is only ",
    "maximum model length of ",
    "max_model_len=max_total_tokens=",
    "(context length ",
    "maximum context length of ",
    "model's context length (",
    "maximum input length is ",
    "available context size (",
];

/// Words after which the prompt's length stands, in tokens, of the same sources and OpenAI's.
const PROMPT: [&str; 12] = [
    // Of what vLLM does not even count the length in characters stands before the most tokens that would fit.
    "which is the upper bound for ",
    "your prompt contains at least ",
    "your prompt contains ",
    "the prompt contains ",
    "You passed ",
    "your request has ",
    "resulted in ",
    "(length ",
    "total length ",
    "request (",
    "The input (",
    "Received ",
];

/// Words in front of which it stands: vLLM until 0.10, and SGLang.
const PROMPT_BEFORE: [&str; 2] = [" in the messages", " tokens from the input messages"];

/// Words after which the length of the asked reply stands, in tokens.
const REPLY: [&str; 2] = [" requested ", "is too large: "];

/// Words of a refusal that names no number.
const WORDLESS: [&str; 7] = [
    "exceed_context_size",
    "exceeds the available context size",
    "context_length_exceeded",
    "ContextWindowExceeded",
    "exceeds maximum context length",
    "exceeds context length",
    "exceed context window",
];

/// An engine's refusal of a request that is too long for it. Lengths are in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overflow {
    pub window: Option<u64>,
    pub prompt: Option<u64>,
    /// Whether the prompt may be longer: some engines count no further than the window.
    pub at_least: bool,
}

impl Overflow {
    /// Reads an error's words, and its JSON if it is some. None: it is about something else.
    pub(super) fn of(words: &str, json: &Value) -> Option<Self> {
        let after = |marks: &[&str]| marks.iter().find_map(|mark| number_after(words, mark));
        let before = || {
            let mut marks = PROMPT_BEFORE.iter();
            marks.find_map(|mark| number_before(words, mark))
        };
        let field = |name: &str| json["error"][name].as_u64();
        let window = after(&WINDOW).or_else(|| field("n_ctx"));
        let wordless = || WORDLESS.iter().any(|mark| words.contains(mark));
        if window.is_none() && !wordless() && json["error"]["type"] != "exceed_context_size_error" {
            return None;
        }
        let prompt = (before())
            .or_else(|| after(&PROMPT))
            .or_else(|| field("n_prompt_tokens"));
        let is_cut = |prompt: u64| {
            let reply = after(&REPLY).unwrap_or(0);
            window.is_some_and(|window| prompt.saturating_add(reply) == window.saturating_add(1))
        };
        let at_least = words.contains("contains at least ")
            || words.contains("upper bound for ")
            || prompt.is_some_and(is_cut);
        Some(Self {
            window,
            prompt,
            at_least,
        })
    }
}

fn number_after(words: &str, mark: &str) -> Option<u64> {
    let mut rest = words.match_indices(mark);
    rest.find_map(|(at, _)| {
        let rest = &words[at + mark.len()..];
        let end = rest.find(|letter: char| !letter.is_ascii_digit());
        rest[..end.unwrap_or(rest.len())].parse().ok()
    })
}

fn number_before(words: &str, mark: &str) -> Option<u64> {
    let rest = &words[..words.find(mark)?];
    let start = rest.rfind(|letter: char| !letter.is_ascii_digit());
    rest[start.map_or(0, |at| at + 1)..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refusals as servers wrote them, and what they say: window, prompt, and whether it may be longer.
    const REFUSALS: &str = include_str!("../../../tests/fixtures/too-long.jsonl");

    #[test]
    fn refusals_of_every_server_are_read_for_their_numbers() {
        for line in REFUSALS.lines() {
            let case: Value = serde_json::from_str(line).expect("JSON");
            let body = &case["body"];
            let words = super::super::ApiError::words(body.to_string().as_bytes());
            let read = Overflow::of(&words.expect("words"), body);
            let told = Overflow {
                window: case["window"].as_u64(),
                prompt: case["prompt"].as_u64(),
                at_least: case["at_least"] == true,
            };
            assert_eq!(read, Some(told), "{line}");
        }
    }

    #[test]
    fn other_refusals_are_not_taken_for_them() {
        for words in [
            "The model `x` does not exist.",
            "max_tokens: Field required",
            r#""auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set"#,
            "You passed 3 tools",
            "request (1) failed",
            "",
            // Claude Code reads this one as it is.
            "prompt is too long: 70000 tokens > 65436 maximum",
        ] {
            assert_eq!(Overflow::of(words, &Value::Null), None, "{words}");
        }
        let odd = "maximum context length is 99999999999999999999 tokens";
        assert_eq!(Overflow::of(odd, &Value::Null), None);
    }
}
