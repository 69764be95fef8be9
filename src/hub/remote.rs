//! What the hub says of a model that is not on this disk.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::host::Host;

/// How long the hub may take. Its answer is welcome, but a launch goes on without it.
const DEADLINE: Duration = Duration::from_secs(3);

/// How long an answer may be, in bytes. The list of the files of the biggest models takes some hundred kB, a configuration some ten.
const LONGEST_ANSWER: usize = 8 << 20;

/// Where the hub is, unless `HF_ENDPOINT` says otherwise. Source: huggingface_hub, `constants.py`.
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

/// Bytes that the engine will download of this model. None if the hub is not to be asked, cannot be reached, or does not tell; whatever is
/// wrong with the model, the engine's own attempt will show.
pub async fn size(host: &Host, id: &str) -> Option<u64> {
    let answer = ask(host, &format!("api/models/{id}/revision/main?blobs=true")).await?;
    sum(&serde_json::from_slice(&answer).ok()?)
}

/// The model's `config.json`, which says how it is to be served. None as above.
pub async fn config(host: &Host, id: &str) -> Option<Value> {
    let answer = ask(host, &format!("{id}/resolve/main/config.json")).await?;
    serde_json::from_slice(&answer).ok()
}

async fn ask(host: &Host, path: &str) -> Option<Vec<u8>> {
    if host.switch("HF_HUB_OFFLINE") || host.switch("TRANSFORMERS_OFFLINE") {
        return None;
    }
    let endpoint = host.var("HF_ENDPOINT").unwrap_or(ENDPOINT);
    let url = format!("{}/{path}", endpoint.trim_end_matches('/'));
    // reqwest drops the token itself where a redirect leads to another host.
    let client = reqwest::Client::builder().timeout(DEADLINE).build().ok()?;
    let mut request = client.get(url);
    if let Some(token) = token(host) {
        request = request.bearer_auth(token);
    }
    match request.send().await {
        Ok(response) if response.status().is_success() => read(response).await,
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

/// The answer, unless it is too long or breaks off.
async fn read(mut response: reqwest::Response) -> Option<Vec<u8>> {
    let mut answer = Vec::new();
    while let Some(piece) = response.chunk().await.ok()? {
        answer.extend_from_slice(&piece);
        if answer.len() > LONGEST_ANSWER {
            return None;
        }
    }
    Some(answer)
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

/// Whether the engine downloads a file of this name. Source: vllm-mlx 0.6.0, `utils/download.py`; its two lists differ in names that MLX
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
fn token(host: &Host) -> Option<String> {
    if host.switch("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        return None;
    }
    let set = host.var("HF_TOKEN").or(host.var("HUGGING_FACE_HUB_TOKEN"));
    let token = match set {
        Some(token) => token.to_owned(),
        None => fs_err::read_to_string(token_file(host)).ok()?,
    };
    let token = token.trim();
    (!token.is_empty()).then(|| token.to_owned())
}

fn token_file(host: &Host) -> PathBuf {
    if let Some(path) = host.var("HF_TOKEN_PATH") {
        return host.resolve(path);
    }
    match (host.var("HF_HOME"), host.var("XDG_CACHE_HOME")) {
        (Some(home), _) => host.resolve(home).join("token"),
        (None, Some(cache)) => host.resolve(cache).join("huggingface/token"),
        (None, None) => host.home.join(".cache/huggingface/token"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// What the two questions come to at a hub that answers them so.
    fn asked(answer: Vec<u8>) -> (Option<u64>, Option<Value>) {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let endpoint = format!("http://{}/", listener.local_addr().expect("an address"));
        let hub = std::thread::spawn(move || {
            for expected in ["GET /api/models/org/name/", "GET /org/name/resolve/main/"] {
                let (mut stream, _) = listener.accept().expect("accepted");
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).expect("a request");
                    head.extend(byte);
                }
                assert!(head.starts_with(expected.as_bytes()));
                let start = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
                // One that has read enough goes away.
                let _ = stream
                    .write_all(start)
                    .and_then(|()| stream.write_all(&answer));
            }
        });
        let host = Host::for_tests(std::path::Path::new("/"), &[("HF_ENDPOINT", &endpoint)]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let told = runtime.expect("a runtime").block_on(async {
            (
                size(&host, "org/name").await,
                config(&host, "org/name").await,
            )
        });
        hub.join().expect("ended");
        told
    }

    #[test]
    fn the_hub_is_asked_and_not_believed_without_end() {
        let said = r#"{"siblings":[{"rfilename":"config.json","size":7}],"model_type":"llama"}"#;
        let (size, config) = asked(said.into());
        assert_eq!(size, Some(7));
        assert_eq!(config.expect("a configuration")["model_type"], "llama");
        assert_eq!(asked(b"<html>".to_vec()), (None, None));
        assert_eq!(asked(vec![b' '; LONGEST_ANSWER + 2]), (None, None));
    }

    #[test]
    fn the_token_is_found_where_the_hubs_own_library_finds_it() {
        let home = tempfile::tempdir().expect("a home");
        let file = home.path().join(".cache/huggingface/token");
        fs_err::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs_err::write(&file, "hf_file\n").expect("written");
        let token = |vars: &[(&str, &str)]| token(&Host::for_tests(home.path(), vars));
        assert_eq!(token(&[]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_TOKEN", "hf_set")]).as_deref(), Some("hf_set"));
        assert_eq!(token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(token(&[("HF_HOME", "/nowhere")]), None);
    }
}
