//! A tool call that another engine's parser has read, as its events come.

use serde_json::{Map, Value, json};

use crate::gateway::anthropic::event::Event;
use crate::gateway::anthropic::json;
use crate::gateway::tool_calls::schema::Tools;

#[derive(Debug)]
pub(super) struct ParsedCall {
    pub index: u64,
    /// The tool's name as the client knows it.
    pub name: String,
    /// As the engine was told.
    told: String,
    /// Its block, with an empty input.
    block: Value,
    input: String,
    /// The input stood in the first event, and nothing has followed.
    is_from_start: bool,
}

impl ParsedCall {
    /// `block`: as the event says that opens it. `name`: the tool's name as the client knows it, if that is another one.
    pub(super) fn new(index: u64, block: &Value, name: Option<String>) -> Self {
        let told = block["name"].as_str().unwrap_or_default().to_owned();
        let input = block["input"].as_object().filter(|input| !input.is_empty());
        let name = name.unwrap_or_else(|| told.clone());
        let input = input.map(|input| Value::Object(input.clone()).to_string());
        let mut block = block.clone();
        block["name"] = name.as_str().into();
        block["input"] = json!({});
        Self {
            index,
            name,
            told,
            block,
            is_from_start: input.is_some(),
            input: input.unwrap_or_default(),
        }
    }

    pub(super) fn push(&mut self, piece: &str) {
        if std::mem::take(&mut self.is_from_start) {
            // Both ways at once: the pieces are the API's own.
            self.input.clear();
        }
        self.input.push_str(piece);
    }

    pub(super) fn is_whole(&self) -> bool {
        self.input.trim().is_empty() || self.object().is_some()
    }

    fn object(&self) -> Option<Map<String, Value>> {
        match json::read(self.input.as_bytes()) {
            Ok(Value::Object(input)) => Some(input),
            _ => None,
        }
    }

    /// The events of the call with its arguments made to fit the tool's schema. None: they do as they came.
    pub(super) fn fitted(&self, tools: &Tools) -> Option<[Event; 3]> {
        let input = self.object()?;
        let fitted = match tools.get(&self.told) {
            Some(tool) => tool.fit_input(input.clone()),
            None => input.clone(),
        };
        let is_plain = serde_json::from_str::<Value>(&self.input).is_ok();
        if fitted == input && is_plain && !self.is_from_start {
            return None;
        }
        let input = Value::Object(fitted).to_string();
        Some(Event::call(self.index, self.block.clone(), input))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::anthropic::event::Data;

    fn call(input: Value, pieces: &[&str]) -> ParsedCall {
        let block = json!({"type": "tool_use", "id": "t", "name": "Read", "input": input});
        let mut call = ParsedCall::new(1, &block, None);
        pieces.iter().for_each(|piece| call.push(piece));
        call
    }

    fn input(call: &ParsedCall) -> Option<Value> {
        let tools = Tools::new(&[
            json!({"name": "Read", "input_schema": {"type": "object", "properties": {"file_path": {"type": "string"}, "offset": {"type": "number"}}}}),
        ]);
        let [_, delta, _] = call.fitted(&tools)?;
        let Data::Delta { delta, .. } = delta.data else {
            panic!("{delta:?}");
        };
        Some(serde_json::from_str(delta.content()).expect("JSON"))
    }

    #[test]
    fn arguments_are_made_to_fit_and_right_ones_stay_as_they_came() {
        let right = call(json!({}), &[r#"{"file_path": "#, r#""a", "offset": 1}"#]);
        assert!(right.is_whole());
        assert_eq!(input(&right), None);
        let text = call(json!({}), &[r#"{"file_path": 7, "offset": "1"}"#]);
        assert_eq!(input(&text), Some(json!({"file_path": "7", "offset": 1})));
        let half = call(json!({}), &[r#"{"file_path": "\ud83d"}"#]);
        assert_eq!(input(&half), Some(json!({"file_path": "\u{fffd}"})));
        assert!(!call(json!({}), &[r#"{"file_path": "#]).is_whole());
    }

    #[test]
    fn an_input_may_stand_in_the_first_event() {
        let first = call(json!({"file_path": "a"}), &[]);
        assert_eq!(input(&first), Some(json!({"file_path": "a"})));
        let both = call(json!({"file_path": "a"}), &[r#"{"file_path":"#, r#""a"}"#]);
        assert!(both.is_whole());
        assert_eq!(input(&both), None);
    }
}
