//! Plain replies.

use serde_json::{Value, json};

use crate::gateway::anthropic::markup::{self, Markup};
use crate::gateway::anthropic::{ApiError, Request, Usage, json, notice};

/// A plain (not streamed) reply of the engine, repaired. Errors: it is no reply.
pub fn reply(body: &[u8], request: &Request) -> Result<(Vec<u8>, Usage), ApiError> {
    let no_reply = || ApiError::new(502, "api_error", "the engine sent what is no reply");
    let mut message = json::read(body).map_err(|_| no_reply())?;
    if message["type"] == "error" {
        return Err(ApiError::from_event(&message));
    }
    if !message["content"].is_array() {
        return Err(no_reply());
    }
    let usage = Usage::of(&message["usage"]);
    if message["stop_reason"] == "max_tokens" || usage.output_tokens >= request.max_tokens {
        repair_cut(&mut message, request);
    }
    for block in message["content"].as_array_mut().into_iter().flatten() {
        let Some(told) = block["name"].as_str().map(str::to_owned) else {
            continue;
        };
        if let Some(tool) = request.tools.get(&told)
            && let Some(input) = block["input"].as_object()
        {
            block["input"] = Value::Object(tool.fit_input(input.clone()));
        }
        block["name"] = json!(request.tool_name(&told));
    }
    message["model"] = json!(request.asked_model);
    Ok((message.to_string().into_bytes(), usage))
}

/// Puts the notice in the place of the call that the cut fell into: one that the parser left as text, else the last one, as some parsers close
/// what was cut.
fn repair_cut(message: &mut Value, request: &Request) {
    message["stop_reason"] = json!("max_tokens");
    let Some(blocks) = message["content"].as_array_mut() else {
        return;
    };
    let tool = if let Some(tool) = take_open_markup(blocks) {
        tool
    } else if blocks.last().is_some_and(|last| last["type"] == "tool_use") {
        blocks
            .pop()
            .and_then(|call| call["name"].as_str().map(str::to_owned))
    } else {
        return;
    };
    let tool = tool.as_deref().map(|tool| request.tool_name(tool));
    let notice = notice::cut_call(tool, request.max_tokens);
    blocks.push(json!({"type": "text", "text": notice}));
}

/// Takes the markup of an unfinished call out of the text. Some if there was any, with the tool's name if it can be read.
fn take_open_markup(blocks: &mut [Value]) -> Option<Option<String>> {
    blocks.iter_mut().find_map(|block| {
        let text = block["text"].as_str()?.to_owned();
        let Markup::Open(start) = markup::look(&text, 0) else {
            return None;
        };
        block["text"] = json!(&text[..start]);
        Some(markup::tool_name(&text[start..]).map(str::to_owned))
    })
}
