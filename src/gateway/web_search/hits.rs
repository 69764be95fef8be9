//! The answers of search services, read and made harmless. Pure.

use reqwest::Url;
use serde_json::Value;

use super::backend::Kind;
use super::request::Query;

/// The most results that are passed on.
pub(super) const MOST: usize = 10;

/// The longest title, snippet, age and URL, in characters.
const TITLE: usize = 200;
const SNIPPET: usize = 500;
const AGE: usize = 40;
const URL: usize = 2_000;

/// A result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    pub url: String,
    pub title: String,
    /// May be empty.
    pub snippet: String,
    /// When the page was made or changed, in whatever words.
    pub age: Option<String>,
}

/// The outcome of a search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub hits: Vec<Hit>,
    /// Results that the request's domains left out.
    pub left_out: usize,
    /// Search engines that the service asked and that did not answer.
    pub silent: usize,
}

/// Reads a service's answer. None: it is no list of results.
pub(super) fn read(kind: Kind, body: &[u8], query: &Query) -> Option<Found> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let results = match kind {
        // Brave leaves the part out if it found no pages.
        Kind::Brave if body["type"] == "search" && body["web"].is_null() => Vec::new(),
        Kind::Brave => body["web"]["results"].as_array()?.clone(),
        Kind::Searxng | Kind::Tavily => body["results"].as_array()?.clone(),
    };
    let mut found = Found {
        silent: body["unresponsive_engines"].as_array().map_or(0, Vec::len),
        ..Found::default()
    };
    for (url, hit) in results.iter().filter_map(|result| hit(kind, result)) {
        if found.hits.iter().any(|known| known.url == hit.url) {
            continue;
        }
        if !query.wants(&url) {
            found.left_out += 1;
        } else if found.hits.len() < MOST {
            found.hits.push(hit);
        }
    }
    Some(found)
}

fn hit(kind: Kind, result: &Value) -> Option<(Url, Hit)> {
    let text = |name: &str| result[name].as_str().unwrap_or_default();
    let (snippet, age) = match kind {
        Kind::Searxng => ("content", "publishedDate"),
        Kind::Brave => ("description", "page_age"),
        Kind::Tavily => ("content", "published_date"),
    };
    let plain = |name: &str, most: usize| match kind {
        Kind::Brave => clean(&without_markup(text(name)), most),
        Kind::Searxng | Kind::Tavily => clean(text(name), most),
    };
    let url = Url::parse(text("url")).ok()?;
    if !matches!(url.scheme(), "http" | "https") || url.as_str().len() > URL {
        return None;
    }
    let title = plain("title", TITLE);
    let hit = Hit {
        title: match title.is_empty() {
            true => url.host_str().unwrap_or_default().to_owned(),
            false => title,
        },
        snippet: plain(snippet, SNIPPET),
        age: Some(plain(age, AGE)).filter(|age| !age.is_empty()),
        url: url.to_string(),
    };
    Some((url, hit))
}

/// One line without control characters and without those that change what a line looks like.
fn clean(text: &str, most: usize) -> String {
    let mut line = String::new();
    let mut left = most;
    let mut gap = false;
    for letter in text.chars() {
        if letter.is_whitespace() || letter.is_control() {
            gap = !line.is_empty();
            continue;
        }
        if is_invisible(letter) {
            continue;
        }
        let needed = 1 + usize::from(gap);
        if left < needed {
            line.push('…');
            break;
        }
        left -= needed;
        if std::mem::take(&mut gap) {
            line.push(' ');
        }
        line.push(letter);
    }
    line
}

/// Marks of direction, spaces without width, and the letters that nobody sees.
fn is_invisible(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Brave marks the words that were searched for, and writes some letters as HTML does.
fn without_markup(text: &str) -> String {
    let mut text = text.to_owned();
    for (html, plain) in [
        ("<strong>", ""),
        ("</strong>", ""),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&nbsp;", " "),
        // The last one, as what it makes is not read again.
        ("&amp;", "&"),
    ] {
        text = text.replace(html, plain);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gateway::web_search::request::{self, Recognised};

    fn query(tool: &Value) -> Query {
        let mut tool = tool.clone();
        tool["type"] = "web_search_20250305".into();
        let body = json!({"messages": [{"role": "user", "content": "x"}], "tools": [tool]});
        match request::read(body.to_string().as_bytes()) {
            Recognised::Search(query) => query,
            other => panic!("{other:?}"),
        }
    }

    fn found(kind: Kind, body: &Value) -> Found {
        read(kind, body.to_string().as_bytes(), &Query::default()).expect("results")
    }

    #[test]
    fn each_services_answer_is_read() {
        let hit = |age: Option<&str>| Hit {
            url: "https://rust.example/2024".into(),
            title: "Rust & more".into(),
            snippet: "It's <b> here".into(),
            age: age.map(str::to_owned),
        };
        let url = "https://rust.example/2024";
        let searxng = json!({"query": "x", "results": [{"url": url, "title": "Rust & more", "content": "It's <b> here",
            "publishedDate": "2024-05-01T00:00:00", "engine": "e"}], "unresponsive_engines": [["a", "timeout"]]});
        let searxng = found(Kind::Searxng, &searxng);
        assert_eq!(searxng.hits, [hit(Some("2024-05-01T00:00:00"))]);
        assert_eq!(searxng.silent, 1);
        let brave = json!({"type": "search", "web": {"results": [{"url": url, "title": "<strong>Rust</strong> &amp; more",
            "description": "It&#x27;s &lt;b&gt; here", "page_age": null}]}});
        assert_eq!(found(Kind::Brave, &brave).hits, [hit(None)]);
        let tavily = json!({"results": [{"url": url, "title": "Rust & more", "content": "It's <b> here", "score": 0.5}]});
        assert_eq!(found(Kind::Tavily, &tavily).hits, [hit(None)]);
        assert_eq!(
            found(Kind::Brave, &json!({"type": "search"})),
            Found::default()
        );
    }

    #[test]
    fn what_is_no_list_of_results_is_none() {
        for kind in [Kind::Searxng, Kind::Brave, Kind::Tavily] {
            for body in [
                "",
                "<html>",
                "null",
                "{}",
                r#"{"results": {}}"#,
                r#"{"type":"ErrorResponse"}"#,
            ] {
                assert_eq!(
                    read(kind, body.as_bytes(), &Query::default()),
                    None,
                    "{body}"
                );
            }
        }
    }

    #[test]
    fn what_pages_say_is_one_harmless_line() {
        assert_eq!(
            clean(" a\n\n\tb\u{1b}[31mc\u{0}\u{9b}d ", 99),
            "a b [31mc d"
        );
        assert_eq!(clean("a\u{202e}b\u{200b}c\u{e0041}d\u{feff}", 99), "abcd");
        assert_eq!(clean("one two", 7), "one two");
        assert_eq!(clean("one two!", 7), "one two…");
        assert_eq!(clean("one two", 4), "one…");
        assert_eq!(
            clean("é".repeat(600).as_str(), SNIPPET).chars().count(),
            501
        );
    }

    #[test]
    fn results_are_few_and_short_and_each_is_there_once() {
        let results: Vec<Value> = (0..30)
            .map(|number| json!({"url": format!("https://x.example/{}", number / 2), "title": "t".repeat(900), "content": "c".repeat(9_000)}))
            .chain([
                json!({"url": "javascript:alert(1)", "title": "x"}),
                json!({"url": "file:///etc/passwd", "title": "x"}),
                json!({"url": "no url"}),
                json!({"title": "no url"}),
                json!(null),
                json!({"url": format!("https://x.example/{}", "x".repeat(URL))}),
            ])
            .rev()
            .collect();
        let found = found(Kind::Searxng, &json!({"results": results}));
        assert_eq!(found.hits.len(), MOST);
        for hit in &found.hits {
            assert!(hit.url.starts_with("https://x.example/") && hit.url.len() < 30);
            assert!(hit.title.len() < 210 && hit.snippet.len() < 510);
        }
    }

    #[test]
    fn a_result_without_a_title_has_its_hosts_name() {
        let found = found(
            Kind::Searxng,
            &json!({"results": [{"url": "https://x.example/1", "title": null}]}),
        );
        assert_eq!(found.hits[0].title, "x.example");
        assert_eq!(found.hits[0].snippet, "");
    }

    #[test]
    fn domains_are_heeded() {
        let body = json!({"results": [{"url": "https://a.example/"}, {"url": "https://b.example/"}, {"url": "https://docs.a.example/"}]});
        let urls = |tool: &Value| {
            let found =
                read(Kind::Searxng, body.to_string().as_bytes(), &query(tool)).expect("results");
            let urls: Vec<String> = found.hits.into_iter().map(|hit| hit.url).collect();
            (urls.join(" "), found.left_out)
        };
        assert_eq!(
            urls(&json!({"allowed_domains": ["a.example"]})),
            ("https://a.example/ https://docs.a.example/".into(), 1)
        );
        assert_eq!(
            urls(&json!({"blocked_domains": ["docs.a.example", "b.example"]})),
            ("https://a.example/".into(), 2)
        );
    }
}
