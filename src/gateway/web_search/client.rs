//! The HTTP client of search services.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use serde_json::json;
use tokio::sync::OnceCell;

use super::backend::{Backend, Kind};
use super::hits::{self, Found};
use super::reply::{Code, Failed};
use super::request::{Domain, Query};
use crate::gateway::{client, client_here};
use crate::sys::network;

/// The longest query, in characters. Source: the limits of Brave and Tavily.
const LONGEST_QUERY: usize = 400;

/// The most that is read of an answer, in bytes.
const LARGEST_ANSWER: usize = 1 << 20;

/// Results that are asked for, more than are shown: some may be left out. Source: the most that Brave and Tavily give.
const ASKED_FOR: u8 = 20;

/// Makes searches. One for a gateway: it keeps the connections.
///
/// Like the engines' client it uses no proxy, and goes nowhere that an answer points.
#[derive(Debug, Default)]
pub struct SearchClient {
    /// For plain HTTP.
    plain: OnceCell<Client>,
    /// With the system's certificates.
    encrypted: OnceCell<Client>,
}

impl SearchClient {
    /// Makes one search.
    pub async fn search(
        &self,
        backend: &Backend,
        query: &Query,
        deadline: Duration,
    ) -> Result<Found, Failed> {
        check(query)?;
        let client = self.client(backend).await?;
        let asking = async {
            let answer = request(client, backend, query).send().await;
            let mut response = answer.map_err(|error| unreachable(backend, &error))?;
            let status = response.status();
            let body = read(&mut response, backend).await?;
            if !status.is_success() {
                return Err(refused(backend, status, &body));
            }
            hits::read(backend.kind(), &body, query).ok_or_else(|| senseless(backend))
        };
        tokio::time::timeout(deadline, asking)
            .await
            .unwrap_or_else(|_| Err(silent(backend, deadline)))
    }

    async fn client(&self, backend: &Backend) -> Result<&Client, Failed> {
        let made = match backend.is_encrypted() {
            false => self.plain.get_or_try_init(async || client_here()).await,
            true => {
                self.encrypted
                    .get_or_try_init(async || {
                        // Certificates are many files, and nothing else is done meanwhile.
                        match tokio::task::spawn_blocking(client).await {
                            Ok(made) => made,
                            Err(_) => client_here(),
                        }
                    })
                    .await
            }
        };
        made.map_err(|error| {
            Failed::new(
                Code::Unavailable,
                format!("No web search was made: there are no certificates to trust ({error})"),
                "Tell the user.",
            )
        })
    }
}

/// Refuses what no service needs to be asked for.
fn check(query: &Query) -> Result<(), Failed> {
    let (code, why, advice) = if query.max_uses == Some(0) {
        (
            Code::MaxUsesExceeded,
            "no search is allowed (max_uses is 0)".to_owned(),
            "Go on without.",
        )
    } else if query.text.is_empty() {
        (
            Code::InvalidInput,
            "there is no query".to_owned(),
            "Search again with one.",
        )
    } else if query.text.chars().count() > LONGEST_QUERY {
        (
            Code::QueryTooLong,
            format!("the query is longer than {LONGEST_QUERY} characters"),
            "Search again with a few words.",
        )
    } else if query.has_wrong_domain {
        (
            Code::InvalidInput,
            "one of the domains is none".to_owned(),
            "A domain looks like example.com or example.com/blog.",
        )
    } else {
        return Ok(());
    };
    let why = format!("No web search was made: {why}");
    Err(Failed::new(code, why, advice))
}

fn request(client: &Client, backend: &Backend, query: &Query) -> RequestBuilder {
    let url = backend.url();
    let text = with_domains(query);
    let count = ASKED_FOR.to_string();
    let request = match backend.kind() {
        Kind::Searxng => client
            .get(url.expose())
            .query(&[("q", text.as_str()), ("format", "json")]),
        Kind::Brave => client.get(url.expose()).query(&[
            ("q", text.as_str()),
            ("count", &count),
            ("text_decorations", "false"),
        ]),
        Kind::Tavily => client.post(url.expose()).json(&json!({
            "query": query.text,
            "max_results": ASKED_FOR,
            "include_domains": hosts(&query.allowed),
            "exclude_domains": whole(&query.blocked),
        })),
    };
    let request = match (backend.kind(), backend.key()) {
        (Kind::Brave, Some(key)) => request.header("x-subscription-token", key.expose()),
        (_, Some(key)) => request.bearer_auth(key.expose()),
        (_, None) => request,
    };
    request.header(header::ACCEPT, "application/json").header(
        header::USER_AGENT,
        concat!("cclocal/", env!("CARGO_PKG_VERSION")),
    )
}

fn hosts(domains: &[Domain]) -> Vec<&str> {
    domains.iter().map(|domain| domain.host.as_str()).collect()
}

/// Those that are not a part of a site only.
fn whole(domains: &[Domain]) -> Vec<&str> {
    let whole = domains.iter().filter(|domain| domain.path.is_empty());
    whole.map(|domain| domain.host.as_str()).collect()
}

/// The query with the domains that are wanted, as most search engines understand them, if there is room. What they give is looked at in any case.
fn with_domains(query: &Query) -> String {
    let sites: Vec<String> = hosts(&query.allowed)
        .iter()
        .map(|host| format!("site:{host}"))
        .collect();
    let text = match sites.as_slice() {
        [] => return query.text.clone(),
        [site] => format!("{} {site}", query.text),
        sites => format!("{} ({})", query.text, sites.join(" OR ")),
    };
    match text.chars().count() > LONGEST_QUERY {
        true => query.text.clone(),
        false => text,
    }
}

async fn read(response: &mut Response, backend: &Backend) -> Result<Vec<u8>, Failed> {
    match network::body(response, LARGEST_ANSWER).await {
        Ok(body) if body.is_cut => Err(senseless(backend)),
        Ok(body) => Ok(body.bytes),
        Err(error) => Err(unreachable(backend, &error)),
    }
}

/// The deepest cause says most, and has no URL in it: that holds the query.
fn unreachable(backend: &Backend, error: &reqwest::Error) -> Failed {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    let why = match std::ptr::addr_eq(deepest, error) {
        true => String::new(),
        false => format!(" ({deepest})"),
    };
    failed(
        backend,
        Code::Unavailable,
        &format!("cannot be reached{why}"),
        "Do not search again before the user has looked at it: tell the user.",
    )
}

fn silent(backend: &Backend, deadline: Duration) -> Failed {
    failed(
        backend,
        Code::Unavailable,
        &format!("did not answer within {} s", deadline.as_secs()),
        "Search once more at most; then tell the user.",
    )
}

fn senseless(backend: &Backend) -> Failed {
    let advice = match backend.kind() {
        Kind::Searxng => {
            "Do not search again. Tell the user: --web-search takes the URL of a SearXNG instance."
        }
        Kind::Brave | Kind::Tavily => "Do not search again. Tell the user.",
    };
    failed(
        backend,
        Code::Unavailable,
        "answered with something that is no list of results",
        advice,
    )
}

/// An answer that is an error.
fn refused(backend: &Backend, status: StatusCode, body: &[u8]) -> Failed {
    // Brave says so of a wrong key.
    let of_key = status == StatusCode::UNPROCESSABLE_ENTITY
        && String::from_utf8_lossy(body).contains("SUBSCRIPTION_TOKEN");
    let number = status.as_u16();
    let (code, why, advice) = match number {
        // The last two are Tavily's for a plan that is used up.
        429 | 432 | 433 => (
            Code::TooManyRequests,
            format!("takes no more searches now ({number})"),
            "Do not search again in this turn. Tell the user if you cannot go on without.".into(),
        ),
        _ if of_key || matches!(number, 401 | 403) => return unauthorised(backend, number),
        400 | 422 => (
            Code::InvalidInput,
            format!("does not understand the query ({number})"),
            "Search again with other words, and fewer.".to_owned(),
        ),
        414 => (
            Code::QueryTooLong,
            format!("takes no query of this length ({number})"),
            "Search again with a few words.".to_owned(),
        ),
        300..=399 => (
            Code::Unavailable,
            format!("points to another address ({number})"),
            "Do not search again. Tell the user: --web-search takes the address that answers itself, such as the one with https.".to_owned(),
        ),
        404 if backend.kind() == Kind::Searxng => return senseless(backend),
        _ => (
            Code::Unavailable,
            format!("failed ({number})"),
            "Search once more at most; then tell the user.".to_owned(),
        ),
    };
    failed(backend, code, &why, &advice)
}

fn unauthorised(backend: &Backend, number: u16) -> Failed {
    let (why, tell) = match (backend.kind().key_variable(), number) {
        (Some(variable), _) => (
            "refuses the key",
            format!("the key in {variable} is not one that it takes."),
        ),
        (None, 401) if backend.has_password() => (
            "refuses the user name or the password",
            "they are those in the URL of --web-search.".into(),
        ),
        (None, 401) => (
            "wants a user name and a password",
            "they can stand in the URL: --web-search https://NAME:PASSWORD@HOST.".into(),
        ),
        (None, _) => (
            "refuses the search",
            "its settings.yml must have `json` among the `formats` of `search`, and its limiter must let this machine through.".into(),
        ),
    };
    failed(
        backend,
        Code::Unavailable,
        &format!("{why} ({number})"),
        &format!("Do not search again. Tell the user: {tell}"),
    )
}

fn failed(backend: &Backend, code: Code, why: &str, advice: &str) -> Failed {
    let why = format!("The web search failed: {} {why}", backend.host());
    Failed::new(code, why, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(host: &str, path: &str) -> Domain {
        Domain {
            host: host.into(),
            path: path.into(),
        }
    }

    fn sent(kind: Kind, query: &Query) -> reqwest::Request {
        let key = kind
            .key_variable()
            .map(|_| crate::sys::secret::Secret::new("the-key"));
        let url = "https://me:pass@searx.example";
        let backend = Backend::at(kind, url, key).expect("a service");
        let client = client_here().expect("a client");
        request(&client, &backend, query)
            .build()
            .expect("a request")
    }

    fn query() -> Query {
        Query {
            text: "a & b".into(),
            allowed: vec![domain("x.example", "blog"), domain("y.example", "")],
            blocked: vec![domain("z.example", ""), domain("w.example", "ads")],
            ..Query::default()
        }
    }

    #[test]
    fn each_service_is_asked_in_its_own_way() {
        let header = |request: &reqwest::Request, name: &str| {
            let value = request.headers().get(name);
            value.map(|value| value.to_str().expect("text").to_owned())
        };
        let searxng = sent(Kind::Searxng, &query());
        assert_eq!(
            searxng.url().as_str(),
            "https://searx.example/search?q=a+%26+b+%28site%3Ax.example+OR+site%3Ay.example%29&format=json"
        );
        assert_eq!(
            header(&searxng, "authorization").as_deref(),
            Some("Basic bWU6cGFzcw==")
        );
        let brave = sent(Kind::Brave, &query());
        assert_eq!(brave.url().path(), "/res/v1/web/search");
        assert_eq!(
            header(&brave, "x-subscription-token").as_deref(),
            Some("the-key")
        );
        let tavily = sent(Kind::Tavily, &query());
        assert_eq!(tavily.method(), "POST");
        let body = tavily
            .body()
            .and_then(|body| body.as_bytes())
            .expect("a body");
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(body).expect("JSON"),
            json!({"query": "a & b", "max_results": 20, "include_domains": ["x.example", "y.example"], "exclude_domains": ["z.example"]})
        );
    }

    #[test]
    fn domains_are_asked_for_if_there_is_room() {
        let mut query = query();
        query.allowed.truncate(1);
        assert_eq!(with_domains(&query), "a & b site:x.example");
        query.text = "x".repeat(LONGEST_QUERY);
        assert_eq!(with_domains(&query), query.text);
        assert_eq!(check(&query), Ok(()));
    }

    #[test]
    fn what_needs_no_service_is_refused_with_its_code() {
        let ok = Query {
            text: "x".into(),
            ..Query::default()
        };
        for (query, code) in [
            (
                Query {
                    max_uses: Some(0),
                    ..ok.clone()
                },
                Code::MaxUsesExceeded,
            ),
            (Query::default(), Code::InvalidInput),
            (
                Query {
                    text: "é".repeat(LONGEST_QUERY + 1),
                    ..ok.clone()
                },
                Code::QueryTooLong,
            ),
            (
                Query {
                    has_wrong_domain: true,
                    ..ok.clone()
                },
                Code::InvalidInput,
            ),
        ] {
            assert_eq!(check(&query).expect_err("refused").code, code, "{query:?}");
        }
        assert_eq!(check(&ok), Ok(()));
    }

    #[test]
    fn each_refusal_has_its_code_and_says_what_to_do() {
        let of = |kind: Kind, url: &str, status: u16, body: &str| {
            let backend = Backend::at(kind, url, None).expect("a service");
            let status = StatusCode::from_u16(status).expect("a status");
            let failed = refused(&backend, status, body.as_bytes());
            (failed.code, format!("{}. {}", failed.why, failed.advice))
        };
        let searxng = |status| of(Kind::Searxng, "https://searx.example", status, "");
        let brave = |status, body| of(Kind::Brave, "https://brave.example", status, body);
        assert_eq!(searxng(429).0, Code::TooManyRequests);
        assert_eq!(searxng(400).0, Code::InvalidInput);
        assert_eq!(searxng(414).0, Code::QueryTooLong);
        assert_eq!(brave(422, "{}").0, Code::InvalidInput);
        for status in [301, 401, 403, 404, 500, 503] {
            assert_eq!(searxng(status).0, Code::Unavailable, "{status}");
        }
        insta::assert_snapshot!(searxng(403).1, @"The web search failed: searx.example refuses the search (403). Do not search again. Tell the user: its settings.yml must have `json` among the `formats` of `search`, and its limiter must let this machine through.");
        insta::assert_snapshot!(searxng(401).1, @"The web search failed: searx.example wants a user name and a password (401). Do not search again. Tell the user: they can stand in the URL: --web-search https://NAME:PASSWORD@HOST.");
        insta::assert_snapshot!(brave(422, r#"{"error":{"code":"SUBSCRIPTION_TOKEN_INVALID"}}"#).1, @"The web search failed: brave.example refuses the key (422). Do not search again. Tell the user: the key in BRAVE_API_KEY is not one that it takes.");
        let (code, said) = of(Kind::Tavily, "https://tavily.example", 432, "");
        assert_eq!(code, Code::TooManyRequests, "{said}");
        let (_, said) = of(Kind::Searxng, "https://me:pw@searx.example", 401, "");
        assert!(
            said.contains("refuses the user name") && !said.contains("pw"),
            "{said}"
        );
    }
}
