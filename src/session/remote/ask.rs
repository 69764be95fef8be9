//! Asks an engine that cclocal does not run for its models and its window, before Claude Code is started on it.

use std::time::Duration;

use reqwest::{Client, Method};
use serde::Deserialize;

use crate::error::{Context, Error, Exit, Result};
use crate::gateway;
use crate::session::remote::address::Address;
use crate::sys::network;
use crate::sys::secret::Secret;

/// How long an answer may take. Nothing is computed for it, but the engine may be busy with another prompt.
const DEADLINE: Duration = Duration::from_secs(30);
/// The longest answer that is read, in bytes.
const LONGEST: usize = 4 << 20;

/// The longest name of a model, in bytes. A path is one, too.
const LONGEST_NAME: usize = 512;
/// The most models that an error lists.
const SHOWN: usize = 20;

/// A model that the engine serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    pub id: String,
    /// Its window in tokens, if the engine tells.
    pub window: Option<u64>,
}

/// An engine elsewhere.
pub struct Engine<'a> {
    address: &'a Address,
    token: Option<&'a Secret>,
    client: Client,
}

impl<'a> Engine<'a> {
    pub fn new(address: &'a Address, token: Option<&'a Secret>) -> Result<Self> {
        Ok(Self {
            address,
            token,
            client: gateway::client().context(
                Exit::Other,
                "the gateway cannot make connections to the engine",
            )?,
        })
    }

    /// The model of this name; without one, the only one that there is. Errors: it cannot be reached, lets nobody in, has no Messages API, does not
    /// serve that model, or serves several.
    pub async fn model(&self, asked: Option<&str>) -> Result<Model> {
        let host = self.address.host();
        let listed = self.models().await?;
        self.check_messages().await?;
        let Some(listed) = listed else {
            return asked
                .map(|asked| Model {
                    id: asked.to_owned(),
                    window: None,
                })
                .ok_or_else(|| {
                    Error::new(
                        Exit::Engine,
                        format!("{host} does not say which model it serves"),
                    )
                    .cause("it has no list of models (404 for /v1/models)")
                    .hint("name the model: --model ID")
                });
        };
        choose(host, &listed, asked)
    }

    /// The models that it serves. None: it has no such list.
    async fn models(&self) -> Result<Option<Vec<Model>>> {
        let answer = self.send(Method::GET, "/v1/models").await?;
        if answer.status == 404 {
            return Ok(None);
        }
        let read = (answer.status == 200).then(|| read_models(&answer.body));
        match read.flatten() {
            Some(models) => Ok(Some(models)),
            None => Err(self.senseless(&answer)),
        }
    }

    /// Checks that the engine has `POST /v1/messages`. Nothing is generated for it.
    async fn check_messages(&self) -> Result<()> {
        // Most servers say that it is not to be read; some know no path but with its method.
        for method in [Method::GET, Method::POST] {
            if self.send(method, "/v1/messages").await?.status != 404 {
                return Ok(());
            }
        }
        Err(Error::new(
            Exit::Engine,
            format!("{} has no Anthropic Messages API", self.address.host()),
        )
        .cause(format!("404 for {}/v1/messages", self.address.base_url()))
        .hint("vllm-mlx and newer versions of vLLM have it; if the engine is under a path, add the path to the URL"))
    }

    async fn send(&self, method: Method, path: &str) -> Result<Answer> {
        let url = format!("{}{path}", self.address.base_url());
        let mut request = self.client.request(method.clone(), url).timeout(DEADLINE);
        if method == Method::POST {
            request = request
                .header("content-type", "application/json")
                .body("{}");
        }
        if let Some(token) = self.token {
            request = request.bearer_auth(token.expose());
        }
        let mut response = request.send().await.map_err(|error| self.lost(&error))?;
        let status = response.status().as_u16();
        let body = network::body(&mut response, LONGEST).await;
        let body = body.map_err(|error| self.lost(&error))?.bytes;
        if matches!(status, 401 | 403) {
            return Err(self.not_let_in(status));
        }
        Ok(Answer { status, body })
    }

    fn not_let_in(&self, status: u16) -> Error {
        let host = self.address.host();
        match self.token {
            Some(_) => Error::new(Exit::Engine, format!("{host} refused the token"))
                .cause(format!("it answered with status {status}"))
                .hint("check that the variable named with --token-env holds the engine's key"),
            None => Error::new(Exit::Engine, format!("{host} needs a token"))
                .cause(format!("it answered with status {status}"))
                .hint("put the engine's key into a variable and pass its name: --token-env NAME"),
        }
    }

    fn senseless(&self, answer: &Answer) -> Error {
        let words = match answer.status {
            200 => "something that is not a list of models".to_owned(),
            status => format!("status {status}"),
        };
        let said = gateway::words(&answer.body).filter(|_| answer.status >= 400);
        Error::new(
            Exit::Engine,
            format!("{} does not answer like an engine", self.address.host()),
        )
        .cause(format!(
            "it answered {}/v1/models with {words}{}",
            self.address.base_url(),
            said.map_or_else(String::new, |said| {
                let said: String = said.chars().filter(|letter| !letter.is_control()).collect();
                format!(": {said:.200}")
            })
        ))
        .hint("check that the URL is the engine's own")
    }

    /// No answer came.
    fn lost(&self, error: &reqwest::Error) -> Error {
        let host = self.address.host();
        let chain: Vec<_> =
            std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| {
                error.source()
            })
            .collect();
        // The deepest says most, and has no URL in it.
        let deepest = chain.last().map_or_else(String::new, ToString::to_string);
        if self.address.is_encrypted()
            && error.is_connect()
            && chain.iter().any(|error| is_tls(*error))
        {
            return Error::new(Exit::Engine, format!("there is no safe connection to {host}"))
                .cause(deepest)
                .hint("if the certificate is from your own authority, set SSL_CERT_FILE to that authority's file; if the engine has no TLS, use http:// with --insecure");
        }
        let cause = match error.is_timeout() {
            true => format!("no answer within {} s", DEADLINE.as_secs()),
            false => deepest,
        };
        Error::new(Exit::Engine, format!("no engine answers at {host}"))
            .cause(cause)
            .hint(format!(
                "check that it runs, listens there and is not behind a firewall: curl {}/v1/models",
                self.address.base_url()
            ))
    }
}

/// Whether it was TLS that failed, in the words of the library, which are no type of ours: bad data, or an end in the middle of the handshake.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let Some(error) = error.downcast_ref::<std::io::Error>() else {
        return false;
    };
    error.kind() == std::io::ErrorKind::InvalidData
        || error.to_string().contains("tls handshake")
        || error.get_ref().is_some_and(|inner| is_tls(inner))
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// OpenAI's list, with vLLM's additions.
#[derive(Deserialize)]
struct List {
    data: Vec<Card>,
}

#[derive(Deserialize)]
struct Card {
    id: String,
    max_model_len: Option<u64>,
    /// The model that this one is an adapter of.
    parent: Option<String>,
}

fn read_models(body: &[u8]) -> Option<Vec<Model>> {
    let list: List = serde_json::from_slice(body).ok()?;
    let window = |card: &Card| {
        let parent = || {
            let name = card.parent.as_deref()?;
            list.data.iter().find(|card| card.id == name)?.max_model_len
        };
        card.max_model_len.or_else(parent)
    };
    // What is no name is not shown, and not put into an environment: it comes from somebody else's machine.
    let is_name = |card: &&Card| {
        !card.id.is_empty() && card.id.len() <= LONGEST_NAME && !card.id.contains(char::is_control)
    };
    let models = list.data.iter().filter(is_name).map(|card| Model {
        id: card.id.clone(),
        window: window(card).filter(|tokens| *tokens > 0),
    });
    Some(models.collect())
}

fn choose(host: &str, listed: &[Model], asked: Option<&str>) -> Result<Model> {
    let mut names: Vec<&str> = (listed.iter().take(SHOWN))
        .map(|model| model.id.as_str())
        .collect();
    if listed.len() > SHOWN {
        names.push("and more");
    }
    let names = names.join(", ");
    match (asked, listed) {
        (_, []) => Err(Error::new(Exit::Engine, format!("{host} serves no model"))
            .cause("its list of models is empty")
            .hint("check that its model is loaded")),
        (Some(asked), listed) => listed
            .iter()
            .find(|model| model.id == asked)
            .cloned()
            .ok_or_else(|| {
                Error::new(Exit::Engine, format!("{host} does not serve {asked}"))
                    .cause(format!("it serves {names}"))
                    .hint(match listed {
                        [_] => "leave --model out to use the one that it serves",
                        _ => "name one of these with --model",
                    })
            }),
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(Error::usage(format!("{host} serves more than one model"))
            .cause(format!("it serves {names}"))
            .hint("name one of these with --model")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_where_they_are_told() {
        let vllm = br#"{"object":"list","data":[
            {"id":"base","object":"model","owned_by":"vllm","root":"base","parent":null,"max_model_len":131072,"permission":[]},
            {"id":"adapter","object":"model","owned_by":"vllm","root":"/a","parent":"base","max_model_len":null},
            {"id":"other","parent":"nobody"}]}"#;
        let models = read_models(vllm).expect("a list");
        let windows: Vec<_> = models
            .iter()
            .map(|model| (model.id.as_str(), model.window))
            .collect();
        assert_eq!(
            windows,
            [
                ("base", Some(131_072)),
                ("adapter", Some(131_072)),
                ("other", None)
            ]
        );
        let odd = br#"{"data":[{"id":""},{"id":"a\u001b[2J"},{"id":"b\u0000"},{"id":"c","max_model_len":0}]}"#;
        let models = read_models(odd).expect("a list");
        assert_eq!(
            models,
            [Model {
                id: "c".into(),
                window: None
            }]
        );
        for no_list in ["", "[]", "{}", r#"{"data":[{"name":"x"}]}"#, "<html>"] {
            assert_eq!(read_models(no_list.as_bytes()), None, "{no_list}");
        }
    }
}
