//! Asks an engine that cclocal does not run for its models and its window, before Claude Code is started on it.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Context, Error, Exit, Result};
use crate::gateway::{self, anthropic::ApiError};
use crate::session::remote::address::Address;
use crate::sys::network;
use crate::sys::secret::Secret;
use crate::ui::Progress;

/// How long an answer may take. Nothing is computed for it, but the engine may be busy with another prompt.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a question may take that can do without an answer.
const PROBE: Duration = Duration::from_secs(5);
/// How often an engine that loads its model is asked.
const LOADING_INTERVAL: Duration = Duration::from_secs(1);
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
    /// How many requests it works at together, if it tells.
    pub parallel: Option<u64>,
    /// The kind of server.
    server: Server,
    /// Note for the person.
    pub notices: Vec<String>,
}

/// A server, as its list of models tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    /// llama.cpp's, which tells more than its list holds.
    LlamaCpp,
    Vllm,
    /// Ray Serve LLM, with vLLM behind it.
    Ray,
    /// vllm-mlx, which takes one request at a time unless it was started for more.
    VllmMlx,
    Other,
}

/// An engine elsewhere.
pub struct Engine<'a> {
    address: &'a Address,
    token: Option<&'a Secret>,
    client: Client,
    began: Instant,
    /// How long it may take to load its model.
    patience: Duration,
}

impl<'a> Engine<'a> {
    pub fn new(
        address: &'a Address,
        token: Option<&'a Secret>,
        patience: Duration,
    ) -> Result<Self> {
        Ok(Self {
            address,
            token,
            began: Instant::now(),
            patience,
            client: gateway::client().context(
                Exit::Other,
                "the gateway cannot make connections to the engine",
            )?,
        })
    }

    /// The model of this name; without one, the only one that there is. Errors: it cannot be reached, lets nobody in, has no Messages API, does not
    /// serve that model, or serves several.
    ///
    /// `progress`: shows what is waited for.
    pub async fn model(&self, asked: Option<&str>, progress: &mut Progress) -> Result<Model> {
        let host = self.address.host();
        progress.step(&format!("asking {host} for its models"));
        let listed = self.models(progress).await?;
        let is_ray = |model: &Model| model.server == Server::Ray;
        let is_ray = listed.iter().flatten().any(is_ray);
        self.check_messages(is_ray).await?;
        let mut model = match listed {
            Some(listed) => choose(host, &listed, asked)?,
            None => unlisted(host, asked)?,
        };
        if model.window.is_none() || model.server == Server::LlamaCpp {
            self.ask_llama_cpp(&mut model).await;
        }
        if model.window.is_none() {
            self.ask_litellm(&mut model).await;
        }
        let (ignores_tools, checked) =
            tokio::join!(self.ignores_tools(&model.id), self.check_tools(&model));
        checked?;
        if ignores_tools {
            model.notices.push(format!(
                "{}: its chat template ignores tools: it can chat, but not read or write files",
                model.id
            ));
        }
        Ok(model)
    }

    /// Whether the chat template ignores tools: a prompt with a tool is then no longer than one without. Servers that cannot count say nothing.
    async fn ignores_tools(&self, model: &str) -> bool {
        let tokens = async |with_tool| {
            let body = probe(model, with_tool);
            let request = self.request(Method::POST, "/v1/messages/count_tokens");
            let answer = request.timeout(PROBE).json(&body).send().await.ok()?;
            let answer: Value = answer.error_for_status().ok()?.json().await.ok()?;
            answer["input_tokens"].as_u64().filter(|tokens| *tokens > 0)
        };
        let counts = tokio::join!(tokens(false), tokens(true));
        matches!(counts, (Some(without), Some(with)) if with <= without)
    }

    /// Checks that vLLM takes requests with tools: without two of its flags each of them fails. One token is generated for it. A server that is busy is not
    /// waited for.
    async fn check_tools(&self, model: &Model) -> Result<()> {
        if !matches!(model.server, Server::Vllm | Server::Ray) {
            return Ok(());
        }
        let mut body = probe(&model.id, true);
        body["max_tokens"] = 1.into();
        let request = self.request(Method::POST, "/v1/messages").timeout(PROBE);
        let Ok(answer) = request.json(&body).send().await else {
            return Ok(());
        };
        let status = answer.status();
        let said = answer.bytes().await.ok();
        let said = said.and_then(|body| ApiError::words(&body));
        match said.filter(|said| said.contains("--enable-auto-tool-choice")) {
            Some(said) if status.is_client_error() => Err(Error::new(
                Exit::Engine,
                format!("{} was started without tool calls", self.address.host()),
            )
            .cause(format!("it refuses each request with tools: {said}"))
            .hint("its owner starts it with: vllm serve MODEL --enable-auto-tool-choice --tool-call-parser PARSER")),
            _ => Ok(()),
        }
    }

    /// llama.cpp's server tells more at an address of its own: the window of one request, and how many it works at together.
    async fn ask_llama_cpp(&self, model: &mut Model) {
        let Some(props) = self.json("/props").await else {
            return;
        };
        let window = props["default_generation_settings"]["n_ctx"].as_u64();
        let told = |told: Option<u64>| told.filter(|told| *told > 0);
        model.window = model.window.or(told(window));
        model.parallel = model.parallel.or(told(props["total_slots"].as_u64()));
    }

    /// litellm's proxy has its models' windows in a list of its own.
    async fn ask_litellm(&self, model: &mut Model) {
        let Some(list) = self.json("/model/info").await else {
            return;
        };
        let mut cards = list["data"].as_array().into_iter().flatten();
        let card = cards.find(|card| card["model_name"] == model.id.as_str());
        let window = card.and_then(|card| card["model_info"]["max_input_tokens"].as_u64());
        model.window = window.filter(|tokens| *tokens > 0);
    }

    /// An answer that not every server has. None: this one has none.
    async fn json(&self, path: &str) -> Option<Value> {
        let answer = self.request(Method::GET, path).send().await.ok()?;
        let mut answer = answer.error_for_status().ok()?;
        let body = network::body(&mut answer, LONGEST).await.ok()?.bytes;
        serde_json::from_slice(&body).ok()
    }

    /// The models that it serves. None: it has no such list.
    async fn models(&self, progress: &mut Progress) -> Result<Option<Vec<Model>>> {
        let mut answer = self.send(Method::GET, "/v1/models").await?;
        // llama.cpp's server, and proxies whose server is not there yet.
        while answer.status == 503 && self.began.elapsed() < self.patience {
            let said = ApiError::words(&answer.body).filter(|said| said.len() < 80);
            let said = said.map_or_else(String::new, |said| format!(": {said}"));
            let host = self.address.host();
            progress.step(&format!("{host} is not ready yet (status 503{said})"));
            tokio::time::sleep(LOADING_INTERVAL).await;
            answer = self.send(Method::GET, "/v1/models").await?;
        }
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
    async fn check_messages(&self, is_ray: bool) -> Result<()> {
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
        .hint(match is_ray {
            true => "Ray Serve has it only with RAY_SERVE_ENABLE_HA_PROXY=1 and RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING=1 in its environment: ask whoever runs it",
            false => "vllm-mlx and newer versions of vLLM have it; if the engine is under a path, add the path to the URL",
        }))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.address.base_url());
        let mut request = self.client.request(method, url).timeout(DEADLINE);
        if let Some(token) = self.token {
            request = request.bearer_auth(token.expose());
        }
        request
    }

    async fn send(&self, method: Method, path: &str) -> Result<Answer> {
        let mut request = self.request(method.clone(), path);
        if method == Method::POST {
            request = request.json(&json!({}));
        }
        let mut response = request.send().await.map_err(|error| self.lost(&error))?;
        let status = response.status().as_u16();
        let body = network::body(&mut response, LONGEST).await;
        let body = body.map_err(|error| self.lost(&error))?.bytes;
        if matches!(status, 401 | 403) || is_about_keys(&body) {
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
        let said = ApiError::words(&answer.body).filter(|_| answer.status >= 400);
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

/// Whether litellm's proxy says that it does not know the key: it has no status for that.
fn is_about_keys(body: &[u8]) -> bool {
    let error = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let error = &error["error"];
    let said = error["message"].as_str().unwrap_or_default();
    matches!(
        error["type"].as_str(),
        Some("no_db_connection" | "auth_error")
    ) || said.contains("No connected db")
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

/// OpenAI's list, with what servers add to it.
#[derive(Deserialize)]
struct List {
    data: Vec<Card>,
}

#[derive(Deserialize)]
struct Card {
    id: String,
    /// The model that this one is an adapter of.
    parent: Option<String>,
    #[serde(flatten)]
    rest: Value,
}

impl Card {
    fn server(&self) -> Server {
        match self.rest["owned_by"].as_str() {
            Some("llamacpp") => Server::LlamaCpp,
            Some("vllm") => Server::Vllm,
            Some("vllm-mlx") => Server::VllmMlx,
            _ if self.rest["metadata"]["max_request_context_length"].is_u64() => Server::Ray,
            _ => Server::Other,
        }
    }

    /// The window, in tokens, as vLLM and cclocal, llama.cpp, litellm and Ray Serve LLM tell it.
    fn window(&self) -> Option<u64> {
        let card = &self.rest;
        let told = [
            &card["max_model_len"],
            &card["meta"]["n_ctx"],
            &card["max_input_tokens"],
            &card["metadata"]["max_request_context_length"],
        ];
        told.into_iter()
            .filter_map(Value::as_u64)
            .find(|tokens| *tokens > 0)
    }
}

fn read_models(body: &[u8]) -> Option<Vec<Model>> {
    let list: List = serde_json::from_slice(body).ok()?;
    let window = |card: &Card| {
        let parent = || {
            let name = card.parent.as_deref()?;
            list.data.iter().find(|card| card.id == name)?.window()
        };
        card.window().or_else(parent)
    };
    // What is no name is not shown, and not put into an environment: it comes from somebody else's machine.
    let is_name = |card: &&Card| {
        !card.id.is_empty() && card.id.len() <= LONGEST_NAME && !card.id.contains(char::is_control)
    };
    let models = list.data.iter().filter(is_name).map(|card| Model {
        id: card.id.clone(),
        window: window(card),
        parallel: (card.server() == Server::VllmMlx).then_some(1),
        server: card.server(),
        notices: Vec::new(),
    });
    Some(models.collect())
}

/// A short prompt, with a tool or without.
fn probe(model: &str, with_tool: bool) -> Value {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    if with_tool {
        let schema = json!({"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]});
        body["tools"] =
            json!([{"name": "Read", "description": "Reads a file", "input_schema": schema}]);
    }
    body
}

/// The model that was asked for, where the engine has no list.
fn unlisted(host: &str, asked: Option<&str>) -> Result<Model> {
    let Some(asked) = asked else {
        return Err(Error::new(
            Exit::Engine,
            format!("{host} does not say which model it serves"),
        )
        .cause("it has no list of models (404 for /v1/models)")
        .hint("name the model: --model ID"));
    };
    Ok(Model {
        id: asked.to_owned(),
        window: None,
        parallel: None,
        server: Server::Other,
        notices: Vec::new(),
    })
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
mod tests;
