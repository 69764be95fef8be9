//! Names of tools that the engine would refuse.
//!
//! The API takes names of up to 128 characters, and MCP servers use them; the engine (vllm-mlx 0.6.0) answers each request that has one of more than 64
//! with 400. So such a tool has another name for the model, in its definition and in earlier calls, and its own again in replies.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The longest name in the API, in characters.
const LONGEST: usize = 128;
/// The longest that the engine takes. Source: vllm-mlx 0.6.0, `^[A-Za-z0-9_-]{1,64}$`.
const LONGEST_FOR_ENGINE: usize = 64;
/// Hexadecimal digits of a name's digest at the end of its other name, which make that its own.
const DIGEST: usize = 12;

/// The tools that have another name, and those left out.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Names of tools by those that the model knows them by, where the two differ.
    pub aliases: HashMap<String, String>,
    /// Tools that can't be passed on.
    pub left_out: Vec<String>,
}

/// Gives tools names that the engine takes: those declared, the one that must be called, and those in earlier calls. Leaves out tools that the API
/// would not take either.
pub(super) fn pass_on(fields: &mut Map<String, Value>) -> Names {
    let mut names = Names::default();
    if let Some(Value::Array(tools)) = fields.get_mut("tools") {
        let declared: HashSet<String> = tools.iter().filter_map(name).collect();
        tools.retain_mut(|tool| names.declare(tool, &declared));
        if tools.is_empty() {
            fields.remove("tools");
            fields.remove("tool_choice");
        }
    }
    if let Some(choice) = fields.get_mut("tool_choice")
        && let Some(name) = name(choice)
    {
        if names.left_out.contains(&name) {
            fields.remove("tool_choice");
        } else {
            rename(choice, &name);
        }
    }
    if let Some(Value::Array(messages)) = fields.get_mut("messages") {
        for message in messages {
            for block in message["content"].as_array_mut().into_iter().flatten() {
                if block["type"] == "tool_use"
                    && let Some(name) = name(block)
                {
                    rename(block, &name);
                }
            }
        }
    }
    names
}

impl Names {
    /// Gives a tool a name that the engine takes. False: it can't be passed on.
    fn declare(&mut self, tool: &mut Value, declared: &HashSet<String>) -> bool {
        let name = name(tool).unwrap_or_default();
        if is_taken(&name) {
            return true;
        }
        let alias = alias(&name);
        let length = name.chars().count();
        if length == 0 || length > LONGEST || declared.contains(&alias) {
            self.left_out.push(name);
            return false;
        }
        rename(tool, &name);
        self.aliases.insert(alias, name);
        true
    }
}

fn name(value: &Value) -> Option<String> {
    value["name"].as_str().map(str::to_owned)
}

fn rename(value: &mut Value, name: &str) {
    if !name.is_empty() && !is_taken(name) {
        value["name"] = alias(name).into();
    }
}

fn is_taken(name: &str) -> bool {
    (1..=LONGEST_FOR_ENGINE).contains(&name.len()) && name.bytes().all(is_plain)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// The other name of a tool: always the same, and readable at its beginning.
fn alias(name: &str) -> String {
    let plain = |letter: char| match u8::try_from(letter) {
        Ok(byte) if is_plain(byte) => letter,
        _ => '_',
    };
    let mut alias: String = name
        .chars()
        .take(LONGEST_FOR_ENGINE - DIGEST - 1)
        .map(plain)
        .collect();
    alias.push('_');
    for byte in &Sha256::digest(name)[..DIGEST / 2] {
        alias += &format!("{byte:02x}");
    }
    alias
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn passed_on(value: &Value) -> (Value, Names) {
        let mut fields = value.as_object().expect("an object").clone();
        let names = pass_on(&mut fields);
        (Value::Object(fields), names)
    }

    #[test]
    fn a_name_that_the_engine_refuses_has_another_one_everywhere() {
        let long = format!("mcp__server__{}", "x".repeat(100));
        let other = format!("{long}y");
        let (fields, names) = passed_on(&json!({
            "tools": [{"name": "Write"}, {"name": long}, {"name": other}, {"name": "a.b"}],
            "tool_choice": {"type": "tool", "name": long},
            "messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": long, "input": {}}, {"type": "text", "text": long}]}],
        }));
        let name = |at: usize| fields["tools"][at]["name"].as_str().expect("a name");
        assert_eq!(name(0), "Write");
        assert!(name(3).starts_with("a_b_"));
        assert_ne!(name(1), name(2));
        for at in 0..4 {
            assert!(is_taken(name(at)), "{}", name(at));
        }
        assert_eq!(fields["tool_choice"]["name"], name(1));
        let content = &fields["messages"][0]["content"];
        assert_eq!(content[0]["name"], name(1));
        assert_eq!(content[1]["text"], long);
        assert_eq!(names.aliases[name(1)], long);
        assert_eq!(names.aliases[name(3)], "a.b");
        assert_eq!(names.aliases.len(), 3);
        assert!(names.left_out.is_empty());
    }

    #[test]
    fn a_tool_that_cannot_be_passed_on_is_left_out() {
        let (fields, names) = passed_on(&json!({
            "tools": [{"name": ""}, {"name": "x".repeat(129)}, {"name": "Write"}, {"name": "a.b"}, {"name": alias("a.b")}],
            "tool_choice": {"type": "tool", "name": ""},
        }));
        assert_eq!(
            fields,
            json!({"tools": [{"name": "Write"}, {"name": alias("a.b")}]})
        );
        assert_eq!(
            names.left_out,
            [String::new(), "x".repeat(129), "a.b".into()]
        );
        let (fields, _) =
            passed_on(&json!({"tools": [{"name": ""}], "tool_choice": {"type": "any"}}));
        assert_eq!(fields, json!({}));
    }
}
