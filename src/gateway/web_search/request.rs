//! Requests that ask for a web search, told from all others. Pure.

use reqwest::Url;
use serde_json::Value;

use crate::gateway::anthropic;

/// How the types of the API's server tool begin, such as `web_search_20250305`.
const TYPE: &str = "web_search_";

/// How Claude Code words the request (2.1.197 to 2.1.332).
const PREFIX: &str = "Perform a web search for the query:";

/// Blocks that the client adds to what was said.
const REMINDER: &str = "<system-reminder>";

/// A request, told by its tools.
#[derive(Debug)]
pub(super) enum Recognised {
    /// One that has no web search among its tools.
    Other,
    /// One that asks for a web search and nothing else.
    Search(Query),
    /// One that asks the model, which would search if it could: the body without the server tool, as no engine knows it.
    WithoutSearch(Vec<u8>),
}

/// A search that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// The words to search for. Empty if nothing was said.
    pub text: String,
    /// The model that was asked; the reply names it.
    pub model: String,
    pub stream: bool,
    /// How many searches are allowed. Claude Code says 8; a reply makes one.
    pub max_uses: Option<u64>,
    /// Nothing but these, if there are any.
    pub allowed: Vec<Domain>,
    /// None of these.
    pub blocked: Vec<Domain>,
    /// Whether one of the domains is none.
    pub has_wrong_domain: bool,
}

impl Query {
    /// Whether a result may be shown.
    pub(super) fn wants(&self, url: &Url) -> bool {
        let among = |domains: &[Domain]| domains.iter().any(|domain| domain.covers(url));
        (self.allowed.is_empty() || among(&self.allowed)) && !among(&self.blocked)
    }
}

/// A domain with all below it, or a part of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Domain {
    pub host: String,
    /// Without slashes at its ends. Empty: all of it.
    pub path: String,
}

impl Domain {
    /// Reads `example.com` or `example.com/blog`. None for what is no domain.
    fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.split_once("://").map_or(text, |(_, rest)| rest);
        let url = Url::parse(&format!("http://{text}")).ok()?;
        let host = url.host_str()?.trim_matches('.');
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
        (!host.is_empty() && host.chars().all(is_part)).then(|| Self {
            host: host.to_owned(),
            path: url.path().trim_matches('/').to_owned(),
        })
    }

    fn covers(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default().trim_end_matches('.');
        let path = url.path().trim_start_matches('/');
        let below = host.strip_suffix(self.host.as_str());
        let within = path.strip_prefix(self.path.as_str());
        below.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            && (self.path.is_empty()
                || within.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }
}

/// Reads a body of `POST /v1/messages`.
///
/// Claude Code asks for a search with one message, and with no tool beside the server tool. A client that has tools of its own beside it asks the model, which
/// would search if it could; so does one that goes on with a conversation.
pub(super) fn read(body: &[u8]) -> Recognised {
    // Nearly all bodies have not even the word, and are not read twice.
    if !String::from_utf8_lossy(body).contains(TYPE) {
        return Recognised::Other;
    }
    let Ok(mut body) = anthropic::read_json(body) else {
        return Recognised::Other;
    };
    let Some(tools) = body["tools"].as_array() else {
        return Recognised::Other;
    };
    let (searching, others): (Vec<Value>, Vec<Value>) = tools.iter().cloned().partition(searches);
    let Some(tool) = searching.first() else {
        return Recognised::Other;
    };
    let choice = &body["tool_choice"];
    let forced = choice["type"] == "tool" && choice["name"] == tool["name"];
    if forced || (others.is_empty() && said(&body).len() == 1) {
        return Recognised::Search(query(&body, tool));
    }
    if let Some(fields) = body.as_object_mut() {
        if others.is_empty() {
            fields.remove("tools");
            fields.remove("tool_choice");
        } else {
            fields.insert("tools".into(), others.into());
        }
    }
    Recognised::WithoutSearch(body.to_string().into_bytes())
}

fn searches(tool: &Value) -> bool {
    tool["type"]
        .as_str()
        .is_some_and(|kind| kind.starts_with(TYPE))
}

/// The messages, without those that are instructions.
fn said(body: &Value) -> Vec<&Value> {
    let messages = body["messages"].as_array().into_iter().flatten();
    messages
        .filter(|message| message["role"] != "system")
        .collect()
}

fn query(body: &Value, tool: &Value) -> Query {
    let mut query = Query {
        text: text(body),
        model: body["model"].as_str().unwrap_or_default().to_owned(),
        stream: body["stream"] == true,
        max_uses: tool["max_uses"].as_u64(),
        ..Query::default()
    };
    let mut domains = |name: &str| -> Vec<Domain> {
        let texts = tool[name].as_array().into_iter().flatten();
        let domains = texts.map(|text| Domain::of(text.as_str().unwrap_or_default()));
        let domains: Option<Vec<Domain>> = domains.collect();
        query.has_wrong_domain |= domains.is_none();
        domains.unwrap_or_default()
    };
    let (allowed, blocked) = (domains("allowed_domains"), domains("blocked_domains"));
    query.allowed = allowed;
    query.blocked = blocked;
    query
}

/// The last thing said, as one line without the client's own words.
fn text(body: &Value) -> String {
    let messages = said(body);
    let last = messages
        .iter()
        .rev()
        .find(|message| message["role"] == "user");
    let content = last.map(|message| &message["content"]);
    let texts: Vec<&str> = match content {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(blocks)) => blocks
            .iter()
            .filter_map(|block| block["text"].as_str())
            .filter(|text| !text.trim_start().starts_with(REMINDER))
            .collect(),
        _ => Vec::new(),
    };
    let worded = texts
        .iter()
        .find_map(|text| text.trim_start().strip_prefix(PREFIX));
    let text = worded.map_or_else(|| texts.join(" "), str::to_owned);
    let words = text.split(|letter: char| letter.is_whitespace() || letter.is_control());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn recognised(body: &Value) -> Recognised {
        read(body.to_string().as_bytes())
    }

    fn searched(body: &Value) -> Query {
        match recognised(body) {
            Recognised::Search(query) => query,
            other => panic!("{other:?}"),
        }
    }

    fn tool() -> Value {
        json!({"type": "web_search_20250305", "name": "web_search", "max_uses": 8})
    }

    fn body(content: &Value, tools: &Value) -> Value {
        json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": content}], "tools": tools})
    }

    #[test]
    fn the_request_of_claude_code_is_a_search() {
        let mut body = body(
            &json!([{"type": "text", "text": "Perform a web search for the query: rust\n\t2024 \u{1b}edition "}]),
            &json!([tool()]),
        );
        body["stream"] = true.into();
        body["tool_choice"] = json!({"type": "auto"});
        let query = searched(&body);
        assert_eq!(query.text, "rust 2024 edition");
        assert_eq!(
            (query.model.as_str(), query.stream, query.max_uses),
            ("m", true, Some(8))
        );
        // In other words, from a later client, and with what clients put around it.
        body["tools"][0]["type"] = "web_search_20991231".into();
        body["messages"][0]["content"] = json!([
            {"type": "text", "text": "<system-reminder>\nBe brief.\n</system-reminder>"},
            {"type": "text", "text": "Search for: rust"},
        ]);
        body["messages"]
            .as_array_mut()
            .expect("a list")
            .push(json!({"role": "system", "content": "Be brief."}));
        assert_eq!(searched(&body).text, "Search for: rust");
    }

    #[test]
    fn a_tool_that_has_to_be_used_is_a_search_among_others_too() {
        let mut body = body(&json!("rust"), &json!([{"name": "Read"}, tool()]));
        body["tool_choice"] = json!({"type": "tool", "name": "web_search"});
        assert_eq!(searched(&body).text, "rust");
    }

    #[test]
    fn beside_other_tools_it_is_left_out() {
        let read = json!({"name": "Read", "input_schema": {"type": "object"}});
        let mut body = body(&json!("hello"), &json!([tool(), read]));
        body["tool_choice"] = json!({"type": "auto"});
        let Recognised::WithoutSearch(left) = recognised(&body) else {
            panic!("an answer");
        };
        body["tools"] = json!([read]);
        assert_eq!(serde_json::from_slice::<Value>(&left).expect("JSON"), body);
    }

    #[test]
    fn a_conversation_goes_on_without_it() {
        let mut body = body(&json!("hello"), &json!([tool()]));
        body["tool_choice"] = json!({"type": "any"});
        let messages = body["messages"].as_array_mut().expect("a list");
        messages.push(json!({"role": "assistant", "content": "Hello."}));
        messages.push(json!({"role": "user", "content": "And now?"}));
        let Recognised::WithoutSearch(left) = recognised(&body) else {
            panic!("an answer");
        };
        let left: Value = serde_json::from_slice(&left).expect("JSON");
        assert!(left.get("tools").is_none() && left.get("tool_choice").is_none());
        assert_eq!(left["messages"], body["messages"]);
    }

    #[test]
    fn all_other_requests_are_left_alone() {
        for body in [
            json!({}),
            json!([]),
            body(
                &json!("say \"web_search_20250305\""),
                &json!([{"name": "Read"}]),
            ),
            body(&json!("\"web_search_"), &Value::Null),
            body(&json!("x"), &json!([{"name": "web_search_20250305"}])),
            body(
                &json!("x"),
                &json!([{"type": "web_fetch_20250910", "name": "web_fetch"}]),
            ),
            body(&json!("x"), &json!("web_search_20250305")),
        ] {
            assert!(matches!(recognised(&body), Recognised::Other), "{body}");
        }
        assert!(matches!(read(b"\"web_search_"), Recognised::Other));
    }

    #[test]
    fn a_query_that_is_none_is_empty() {
        for content in [
            json!("Perform a web search for the query: "),
            json!([]),
            json!(null),
            json!([{"type": "tool_result", "tool_use_id": "t", "content": "x"}]),
        ] {
            assert_eq!(searched(&body(&content, &json!([tool()]))).text, "");
        }
        // Half of a surrogate pair, as JavaScript cuts it.
        let text = body(&json!("CUT"), &json!([tool()])).to_string();
        let text = text.replace("CUT", r"a\ud83d");
        assert!(
            matches!(read(text.as_bytes()), Recognised::Search(query) if query.text == "a\u{fffd}")
        );
    }

    #[test]
    fn domains_cover_what_is_below_them() {
        let domain = |text: &str| Domain::of(text).expect(text);
        let url = |text: &str| Url::parse(text).expect(text);
        for (text, yes, no) in [
            (
                "Example.com",
                &["https://example.com/", "http://docs.example.com:81/x"][..],
                &["https://badexample.com/", "https://example.com.evil/"][..],
            ),
            (
                "https://example.com/blog/",
                &["https://example.com/blog", "https://a.example.com/blog/1"],
                &["https://example.com/blogs", "https://example.com/"],
            ),
            (
                "docs.example.com.",
                &["https://docs.example.com./"],
                &["https://example.com/"],
            ),
        ] {
            for good in yes {
                assert!(domain(text).covers(&url(good)), "{text} {good}");
            }
            for bad in no {
                assert!(!domain(text).covers(&url(bad)), "{text} {bad}");
            }
        }
        assert_eq!(domain("bücher.example").host, "xn--bcher-kva.example");
        for text in ["", "/", "a b", "x OR site:y", "a:b", "*.example"] {
            assert_eq!(Domain::of(text), None, "{text}");
        }
        let mut tool = tool();
        tool["allowed_domains"] = json!(["example.com", "*"]);
        let query = searched(&body(&json!("x"), &json!([tool])));
        assert!(query.has_wrong_domain && query.allowed.is_empty());
        let query = Query {
            allowed: vec![domain("example.com")],
            blocked: vec![domain("example.com/ads")],
            ..Query::default()
        };
        assert!(query.wants(&url("https://example.com/")));
        assert!(!query.wants(&url("https://example.com/ads/1")));
        assert!(!query.wants(&url("https://other.example/")));
    }
}
