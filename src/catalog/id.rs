//! What `--model` takes: a hub id (`org/name`) or a local folder.

use std::path::PathBuf;

use super::servable;
use crate::error::{Error, Result};
use crate::sys::environment::Environment;
use crate::sys::files;

/// `--model`, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelArgument {
    /// A hub id, `org/name`.
    Hub(String),
    /// A folder that exists, as an absolute path.
    Folder(PathBuf),
}

/// The longest hub id that huggingface_hub accepts (`huggingface_hub/utils/_validators.py`, REPO_ID_REGEX and its length check).
const LONGEST_ID: usize = 96;

/// Reads `--model`. What starts with `/`, `./`, `../` or `~` is a folder; anything else is a hub id, or the address of a model's page.
/// A wrong one is a usage error that says what an id looks like.
pub fn parse_model_argument(host: &Environment, argument: &str) -> Result<ModelArgument> {
    let looks_like_path = ["/", "./", "../", "~/"]
        .iter()
        .any(|start| argument.starts_with(start))
        || matches!(argument, "." | ".." | "~");
    if looks_like_path {
        return folder(host, argument);
    }
    let id = of_url(argument).unwrap_or_else(|| argument.to_owned());
    if let Err(why) = check_id(&id) {
        let error = Error::usage(format!("`{argument}` is not a model")).cause(why);
        return Err(
            if host.resolve(argument).is_dir() && !argument.starts_with('-') {
                error.hint(format!("for the folder of that name: --model ./{argument}"))
            } else {
                error.hint(
                "a hub id is org/name, such as mlx-community/gemma-4-e4b-it-4bit; a local folder starts with ./ or /",
            )
            },
        );
    }
    Ok(ModelArgument::Hub(id))
}

/// The id in the address of a model's page, or of one of its files, as a browser has it. None: it is no address of the hub's.
fn of_url(text: &str) -> Option<String> {
    let text = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .unwrap_or(text);
    let path = ["huggingface.co/", "www.huggingface.co/", "hf.co/"]
        .iter()
        .find_map(|host| text.strip_prefix(host))?;
    let path = path.split(['?', '#']).next()?;
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let (org, name) = (parts.next()?, parts.next()?);
    let is_page = parts
        .next()
        .is_none_or(|part| ["tree", "blob", "resolve", "discussions"].contains(&part));
    is_page.then(|| format!("{org}/{name}"))
}

fn folder(host: &Environment, argument: &str) -> Result<ModelArgument> {
    let path = host.resolve(argument);
    let path = path
        .canonicalize()
        .map_err(|error| {
            Error::usage(format!("there is no model folder {argument}")).because(error)
        })
        .map_err(|error| {
            error.hint("--model takes a folder that holds config.json and *.safetensors")
        })?;
    let files = files::names(&path);
    if servable::has_foreign_weights(&files) {
        servable::check_weights(argument, &files)?;
    }
    if !path.join("config.json").is_file() {
        return Err(Error::usage(format!("{argument} is not a model folder"))
            .cause("it has no config.json")
            .hint("--model takes a folder that holds config.json and *.safetensors"));
    }
    servable::check_weights(argument, &files)?;
    Ok(ModelArgument::Folder(path))
}

/// Whether it is a hub id that can name a model.
pub fn is_hub_id(id: &str) -> bool {
    check_id(id).is_ok()
}

/// huggingface_hub's own rules for a repository id, and the organisation that every model we could serve has.
fn check_id(id: &str) -> Result<(), &'static str> {
    if id.is_empty() {
        return Err("it is empty");
    }
    if id.starts_with('-') {
        return Err("it starts with a dash, like a flag");
    }
    if id.chars().any(char::is_whitespace) {
        return Err("it has a space in it");
    }
    if id.len() > LONGEST_ID {
        return Err("it is longer than the 96 characters of a hub id");
    }
    let Some((org, name)) = id.split_once('/') else {
        return Err("it has no organisation");
    };
    if name.contains('/') {
        return Err("it has more than one slash");
    }
    for part in [org, name] {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if part.is_empty() {
            return Err("a part of it is empty");
        }
        if !part.chars().all(allowed) {
            return Err(
                "it has a character that hub ids do not have (letters, digits, `-`, `_` and `.` are fine)",
            );
        }
        if part.contains("..") || part.contains("--") {
            return Err("hub ids have no `..` and no `--`");
        }
        if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
            return Err("a part of it starts or ends with `-` or `.`");
        }
    }
    if id.ends_with(".git") {
        return Err("a hub id does not end in .git");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasted_address_is_an_id() {
        let host = Environment::for_tests(std::path::Path::new("/home"), &[]);
        let id = "mlx-community/gemma-4-e4b-it-4bit";
        for address in [
            "https://huggingface.co/mlx-community/gemma-4-e4b-it-4bit",
            "https://huggingface.co/mlx-community/gemma-4-e4b-it-4bit/",
            "https://huggingface.co/mlx-community/gemma-4-e4b-it-4bit/tree/main?x=y",
            "huggingface.co/mlx-community/gemma-4-e4b-it-4bit#usage",
            "http://hf.co/mlx-community/gemma-4-e4b-it-4bit/blob/main/config.json",
        ] {
            let read = parse_model_argument(&host, address);
            assert_eq!(read, Ok(ModelArgument::Hub(id.into())), "{address}");
        }
        for other in [
            "https://huggingface.co/models",
            "https://huggingface.co/datasets/org/name",
            "https://example.com/org/name",
            "https://huggingface.co.example.com/org/name",
        ] {
            assert!(parse_model_argument(&host, other).is_err(), "{other}");
        }
    }

    #[test]
    fn hub_ids_are_told_from_everything_else() {
        let host = Environment::for_tests(std::path::Path::new("/nonexistent"), &[]);
        let parse = |text: &str| parse_model_argument(&host, text);
        assert_eq!(
            parse("mlx-community/Qwen3.5-9B-MLX-4bit"),
            Ok(ModelArgument::Hub(
                "mlx-community/Qwen3.5-9B-MLX-4bit".into()
            ))
        );
        for wrong in [
            "",
            "gemma",
            "-x/y",
            "a b/c",
            "a/../b",
            "a/..",
            "a//b",
            "a/b/c",
            "a/b--c",
            "org/.hidden",
            "a/b\n",
            "a/é",
            "a/b.git",
        ] {
            let error = parse(wrong).expect_err(wrong);
            assert_eq!(error.exit.code(), 2, "{wrong:?}");
            assert!(
                error.hint.is_some_and(|hint| hint.contains("org/name")),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn a_folder_needs_a_config() {
        let folder = tempfile::tempdir().expect("a folder");
        let host = Environment::for_tests(folder.path(), &[]);
        let error = parse_model_argument(&host, "./missing").expect_err("missing");
        assert_eq!(error.exit.code(), 2);
        let error = parse_model_argument(&host, ".").expect_err("no config");
        assert_eq!(error.cause.as_deref(), Some("it has no config.json"));
        let write = |name: &str| std::fs::write(folder.path().join(name), "{}").expect("written");
        write("model.gguf");
        let error = parse_model_argument(&host, ".").expect_err("GGUF");
        assert_eq!(
            error.cause.as_deref(),
            Some("it has GGUF files (model.gguf), and no *.safetensors")
        );
        write("config.json");
        assert_eq!(parse_model_argument(&host, "."), Err(error), "still");
        std::fs::remove_file(folder.path().join("model.gguf")).expect("removed");
        let error = parse_model_argument(&host, ".").expect_err("no weights");
        assert_eq!(error.cause.as_deref(), Some("it has no *.safetensors"));
        write("model.safetensors");
        let canonical = folder.path().canonicalize().expect("canonical");
        assert_eq!(
            parse_model_argument(&host, "."),
            Ok(ModelArgument::Folder(canonical.clone()))
        );
        assert_eq!(
            parse_model_argument(&host, "~/."),
            Ok(ModelArgument::Folder(canonical))
        );
    }
}
