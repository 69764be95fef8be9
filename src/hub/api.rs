//! The hub's API: facts about a model that is not on this disk.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::catalog::template::{self, Traits};
use crate::sys::environment::Environment;
use crate::sys::files;
use crate::sys::network;
use crate::sys::paths;

/// The longest wait for the hub. Its answer is welcome, but a launch goes on without it.
const DEADLINE: Duration = Duration::from_secs(3);

/// The longest answer, in bytes. The list of the files of the biggest models takes some hundred kB, a configuration some ten.
const LONGEST_ANSWER: usize = 8 << 20;

/// The hub's address, unless `HF_ENDPOINT` is set. Source: huggingface_hub, `constants.py`.
const ENDPOINT: &str = "https://huggingface.co";

#[derive(Deserialize)]
struct Info {
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
}

/// Facts about a model that decide how it is served.
#[derive(Debug, Default)]
pub struct ModelInfo {
    /// Its `config.json`.
    pub config: Option<Value>,
    /// The names of its files.
    pub files: Option<Vec<String>>,
    /// Bytes that the engine will download.
    pub size: Option<u64>,
    /// True if every file that may hold a chat template was read.
    pub template_asked: bool,
    /// Traits of the chat template, if there is one.
    pub template: Option<Traits>,
}

/// Bytes that the engine will download of this model. None: the hub is not to be asked, cannot be reached, or does not tell. What is wrong
/// with the model, the engine's own attempt will show.
pub async fn size(host: &Environment, id: &str) -> Option<u64> {
    sum(&info(host, id).await?)
}

/// Facts about a model before it is downloaded. Those that the hub does not tell are left open.
pub async fn model_info(host: &Environment, id: &str) -> ModelInfo {
    let config = file(host, id, "config.json");
    let (info, config) = tokio::join!(info(host, id), config);
    let mut found = ModelInfo {
        config: config.and_then(|text| serde_json::from_slice(&text).ok()),
        size: info.as_ref().and_then(sum),
        files: info.map(|info| {
            let names = info.siblings.into_iter();
            names.map(|sibling| sibling.rfilename).collect()
        }),
        ..ModelInfo::default()
    };
    let Some(files) = &found.files else {
        return found;
    };
    let [tool_use, jinja, tokenizer, json] = template::FILES.map(|name| async move {
        match files.iter().any(|file| file == name) {
            true => Some((name, file(host, id, name).await)),
            false => None,
        }
    });
    let (tool_use, jinja, tokenizer, json) = tokio::join!(tool_use, jinja, tokenizer, json);
    let texts: Vec<_> = [tool_use, jinja, tokenizer, json]
        .into_iter()
        .flatten()
        .collect();
    found.template_asked = texts.iter().all(|(_, text)| text.is_some());
    found.template = template::read(|name| {
        let (_, text) = texts.iter().find(|(file, _)| *file == name)?;
        String::from_utf8(text.clone()?).ok()
    });
    found
}

async fn info(host: &Environment, id: &str) -> Option<Info> {
    let answer = ask(host, &format!("api/models/{id}/revision/main?blobs=true")).await?;
    serde_json::from_slice(&answer).ok()
}

async fn file(host: &Environment, id: &str, name: &str) -> Option<Vec<u8>> {
    ask(host, &format!("{id}/resolve/main/{name}")).await
}

async fn ask(host: &Environment, path: &str) -> Option<Vec<u8>> {
    if host.switch("HF_HUB_OFFLINE") || host.switch("TRANSFORMERS_OFFLINE") {
        return None;
    }
    let endpoint = host.var("HF_ENDPOINT").unwrap_or(ENDPOINT);
    let url = format!("{}/{path}", endpoint.trim_end_matches('/'));
    // reqwest drops the token itself where a redirect leads to another host.
    let client = network::http().timeout(DEADLINE).build().ok()?;
    let mut request = client.get(url);
    if let Some(token) = token(host) {
        request = request.bearer_auth(token);
    }
    match request.send().await {
        Ok(mut response) if response.status().is_success() => {
            let body = network::body(&mut response, LONGEST_ANSWER).await.ok()?;
            (!body.is_cut).then_some(body.bytes)
        }
        Ok(response) => {
            tracing::debug!(status = %response.status(), "the hub does not tell");
            None
        }
        Err(error) => {
            tracing::debug!(error = %error.without_url(), "the hub does not answer");
            None
        }
    }
}

fn sum(info: &Info) -> Option<u64> {
    let sizes = info
        .siblings
        .iter()
        .filter(|sibling| is_downloaded(&sibling.rfilename))
        .map(|sibling| sibling.size);
    // A size that is missing makes the sum a guess.
    sizes.sum::<Option<u64>>().filter(|bytes| *bytes > 0)
}

/// True for the names of files that the engine downloads. Source: vllm-mlx 0.6.0, `utils/download.py`; its two lists differ in names that MLX
/// models do not have.
fn is_downloaded(name: &str) -> bool {
    const ENDINGS: &[&str] = &[
        ".json",
        ".safetensors",
        ".py",
        ".model",
        ".tiktoken",
        ".txt",
        ".jsonl",
        ".jinja",
    ];
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// The user's token, found as huggingface_hub finds it (`get_token`).
fn token(host: &Environment) -> Option<String> {
    if host.switch("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        return None;
    }
    let set = host.var("HF_TOKEN").or(host.var("HUGGING_FACE_HUB_TOKEN"));
    let token = match set {
        Some(token) => token.to_owned(),
        None => files::read_text(&paths::hub_token(host), files::ONE_LINE).ok()?,
    };
    let token = token.trim();
    (!token.is_empty()).then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Form;

    fn info(files: &[(&str, Option<u64>)]) -> Info {
        Info {
            siblings: files
                .iter()
                .map(|(name, size)| Sibling {
                    rfilename: (*name).to_owned(),
                    size: *size,
                })
                .collect(),
        }
    }

    #[test]
    fn only_what_the_engine_downloads_counts() {
        let files = [
            ("model-00001-of-00002.safetensors", Some(1_000)),
            ("config.json", Some(10)),
            ("README.md", Some(500)),
            ("pytorch_model.bin", Some(9_000)),
            (".gitattributes", None),
        ];
        assert_eq!(sum(&info(&files)), Some(1_010));
        assert_eq!(sum(&info(&[("config.json", None)])), None);
        assert_eq!(sum(&info(&[("README.md", Some(1))])), None);
    }

    /// The facts about a model at a hub that answers a request for a path with this function's result, or with 404.
    fn asked(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static) -> ModelInfo {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let endpoint = format!("http://{}/", listener.local_addr().expect("an address"));
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let hub = std::thread::spawn(move || {
            loop {
                let (mut stream, _) = listener.accept().expect("accepted");
                if ended.try_recv().is_ok() {
                    return;
                }
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).expect("a request");
                    head.extend(byte);
                }
                let head = String::from_utf8(head).expect("text");
                let path = head.split(' ').nth(1).expect("a path");
                let path = path.strip_prefix("/org/name/resolve/main/").unwrap_or(path);
                let (status, body) = match answer(path) {
                    Some(body) => ("200 OK", body),
                    None => ("404 Not Found", Vec::new()),
                };
                let start = format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n");
                // One that has read enough goes away.
                let _ = stream
                    .write_all(start.as_bytes())
                    .and_then(|()| stream.write_all(&body));
            }
        });
        let host = Environment::for_tests(std::path::Path::new("/"), &[("HF_ENDPOINT", &endpoint)]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let told = runtime
            .expect("a runtime")
            .block_on(model_info(&host, "org/name"));
        end.send(()).expect("sent");
        let address = endpoint.trim_start_matches("http://").trim_end_matches('/');
        std::net::TcpStream::connect(address).expect("woken");
        hub.join().expect("ended");
        told
    }

    const LISTING: &str = "/api/models/org/name/revision/main?blobs=true";

    #[test]
    fn the_hub_is_asked_and_not_believed_without_end() {
        let listing = r#"{"siblings":[{"rfilename":"config.json","size":7},{"rfilename":"tokenizer_config.json","size":9}]}"#;
        let hub = move |path: &str| {
            let text = match path {
                LISTING => listing,
                "config.json" => r#"{"model_type":"llama"}"#,
                "tokenizer_config.json" => r#"{"chat_template":"[TOOL_CALLS] tools"}"#,
                other => panic!("asked for {other}"),
            };
            Some(text.into())
        };
        let told = asked(hub);
        assert_eq!(told.size, Some(16));
        assert_eq!(told.config.expect("a configuration")["model_type"], "llama");
        assert_eq!(
            told.files.expect("files"),
            ["config.json", "tokenizer_config.json"]
        );
        assert!(told.template_asked);
        let form = told.template.and_then(|traits| traits.form);
        assert_eq!(form, Some(Form::Mistral));

        for nonsense in [b"<html>".to_vec(), vec![b' '; LONGEST_ANSWER + 2]] {
            let told = asked(move |_| Some(nonsense.clone()));
            assert!(told.size.is_none() && told.config.is_none() && told.files.is_none());
            assert!(!told.template_asked && told.template.is_none());
        }
    }

    #[test]
    fn a_template_that_did_not_come_is_not_taken_for_none() {
        let listing =
            r#"{"siblings":[{"rfilename":"m.safetensors"},{"rfilename":"tokenizer_config.json"}]}"#;
        let cut = asked(move |path| (path == LISTING).then(|| listing.into()));
        assert!(!cut.template_asked && cut.template.is_none());
        let listing = r#"{"siblings":[{"rfilename":"m.safetensors"}]}"#;
        let none = asked(move |path| (path == LISTING).then(|| listing.into()));
        assert!(none.template_asked && none.template.is_none());
    }

    #[test]
    fn the_token_is_found_where_the_hubs_own_library_finds_it() {
        let home = tempfile::tempdir().expect("a home");
        let file = home.path().join(".cache/huggingface/token");
        fs_err::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs_err::write(&file, "hf_file\n").expect("written");
        let token = |vars: &[(&str, &str)]| token(&Environment::for_tests(home.path(), vars));
        assert_eq!(token(&[]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_TOKEN", "hf_set")]).as_deref(), Some("hf_set"));
        assert_eq!(token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(token(&[("HF_HOME", "/nowhere")]), None);
    }
}
