//! Keys and their values, case by case.

use super::*;

#[test]
fn a_near_or_another_word_finds_the_key() {
    let known = || KEYS.iter().map(|key| key.name);
    assert_eq!(nearest("ctxx", known()), Some("ctx"));
    assert_eq!(nearest("out_tokens", known()), Some("out-tokens"));
    assert_eq!(nearest("webserch", known()), Some("web-search"));
    assert_eq!(nearest("window", known()), Some("ctx"));
    assert_eq!(nearest("safe", known()), Some("mem-check"));
    assert_eq!(nearest("colour", known()), None);
    assert_eq!(nearest("windw", known()), Some("ctx"));
    assert_eq!(
        nearest("path", MODEL_KEYS.iter().map(|key| key.name)),
        Some("folder")
    );
}

#[test]
fn values_are_checked_by_their_kind() {
    let check = |name: &str, raw: Raw<'_>| {
        let groups = Group::ALL.into_iter().find_map(|group| group.key(name));
        let key = at_top(name).or(groups).expect("a key");
        key.kind.check(raw)
    };
    assert_eq!(check("ctx", Raw::Text("64k")), Ok(Value::Number(65_536)));
    assert_eq!(
        check("ctx", Raw::Text("auto")),
        Ok(Value::Word("auto".into()))
    );
    assert_eq!(
        check("port", Raw::Number(Some(65_535))),
        Ok(Value::Number(65_535))
    );
    let url = "https://searx.example/path";
    assert_eq!(
        check("web-search", Raw::Text(url)),
        Ok(Value::Word(url.into()))
    );
    let id = "mlx-community/gemma-4-e4b-it-4bit";
    assert_eq!(check("id", Raw::Text(id)), Ok(Value::Word(id.into())));
    insta::assert_snapshot!(
        [
            ("ctx", Raw::Number(Some(100))),
            ("out-tokens", Raw::Text("auto")),
            ("vision", Raw::Text("yes")),
            ("linger", Raw::Number(None)),
            ("port", Raw::Number(Some(0))),
            ("web-search", Raw::Text("bing")),
            ("web-search", Raw::Text("https://me:word@searx.example")),
            ("mem-check", Raw::Switch(true)),
            ("model", Raw::Other),
            ("id", Raw::Text("gemma")),
            ("folder", Raw::Text("models/one")),
            ("parser", Raw::Text("xml")),
            ("url", Raw::Text("llm.example")),
            ("url", Raw::Text("https://me:word@llm.example")),
            ("token-env", Raw::Text("sk-12345678")),
            ("parallel", Raw::Number(Some(0))),
            ("wait", Raw::Number(Some(1_441))),
        ]
        .map(|(name, raw)| format!("{name}: {}", check(name, raw).expect_err("wrong")))
        .join("\n"),
        @r#"
    ctx: it is "auto", or 20480 to 1000000 tokens; "64k" is a number, too
    out-tokens: it is 1 to 32768 tokens; "8k" is a number, too
    vision: it is true or false
    linger: it is a number of seconds from 0 to 86400
    port: it is a port from 1 to 65535
    web-search: it is "brave", "tavily", "off" or the URL of a SearXNG instance
    web-search: a URL in this file has no user name and no password: others may read it
    mem-check: it is "auto", "always" or "never"
    model: it is a flag such as "gemma", a name of [models], a hub id or a folder
    id: it is a hub id: org/name, in quotes
    folder: it is a folder in quotes, from / or ~/
    parser: it is "gemma4", "hermes", "qwen3_coder", "glm47", "llama3", "mistral" or "harmony"
    url: it is a URL that starts with http:// or https://
    url: a URL in this file has no user name and no password: others may read it
    token-env: it is the name of a variable, such as "TEAM_KEY"; the token itself stays out of this file
    parallel: it is a number from 1 to 256
    wait: it is a number of minutes from 0 to 1440
    "#
    );
}
