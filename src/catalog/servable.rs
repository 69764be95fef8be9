//! Files and parts without which a model cannot be served, and the words in which it is refused. Pure.

use serde_json::Value;

use super::{Model, Source, catalog};
use crate::error::Error;

/// The model that is named to those whose own cannot be served.
const SUCH_AS: &str = "mlx-community/gemma-4-e4b-it-4bit";

/// How many files are named.
const NAMED: usize = 2;

/// Weights that are not MLX's, by the end of their files' names.
const FOREIGN: &[(&str, &[&str])] = &[
    ("GGUF", &[".gguf"]),
    ("PyTorch", &[".bin", ".pt", ".pth", ".ckpt"]),
];

/// Refuses a model whose files, with these names, hold no `*.safetensors`. `model`: as it was asked for.
pub fn check_weights(model: &str, files: &[String]) -> Result<(), Error> {
    if files.iter().any(|name| name.ends_with(".safetensors")) {
        return Ok(());
    }
    let error = Error::usage(format!("{model} has no weights that cclocal can serve"));
    let hint = format!("cclocal needs an MLX model, such as {SUCH_AS}");
    Err(match foreign(files) {
        Some((kind, named)) => error
            .cause(format!(
                "it has {kind} files ({named}), and no *.safetensors"
            ))
            .hint(hint),
        None => error.cause("it has no *.safetensors").hint(hint),
    })
}

/// Whether there are weights among these files, all of them of kinds that cannot be served.
pub fn has_foreign_weights(files: &[String]) -> bool {
    foreign(files).is_some() && !files.iter().any(|name| name.ends_with(".safetensors"))
}

/// The kind of the first weights that are not MLX's, and their names in words.
fn foreign(files: &[String]) -> Option<(&'static str, String)> {
    let of = |ends: &[&str]| -> Vec<&str> {
        let mut names: Vec<&str> = (files.iter().map(String::as_str))
            // PyTorch files that are no weights.
            .filter(|name| !name.ends_with("training_args.bin"))
            .filter(|name| ends.iter().any(|end| name.ends_with(end)))
            .collect();
        names.sort_unstable();
        names
    };
    FOREIGN.iter().find_map(|(kind, ends)| {
        let names = of(ends);
        let shown = names.get(..NAMED.min(names.len()))?.join(", ");
        match names.len().checked_sub(NAMED) {
            _ if names.is_empty() => None,
            None | Some(0) => Some((*kind, shown)),
            Some(more) => Some((*kind, format!("{shown} and {more} more"))),
        }
    })
}

/// Refuses a model that has no chat template, after it was looked for. Those of the catalogue have one. `config`: its `config.json`.
pub fn check_template(model: &Model, config: Option<&Value>) -> Result<(), Error> {
    let known = match &model.source {
        Source::Hub(id) => catalog().by_id(id).is_some(),
        Source::Folder(_) => false,
    };
    if model.template.is_some() || known || config.is_some_and(engine_has_template) {
        return Ok(());
    }
    Err(
        Error::usage(format!("{} has no chat template", model.engine_argument()))
            .cause("it is a base model: it continues text instead of answering")
            .hint(format!("use an instruct model, such as {SUCH_AS}")),
    )
}

/// Whether the engine has a chat template of its own for a model with this `config.json`. Source: vllm-mlx 0.6.0, `utils/tokenizer.py`.
fn engine_has_template(config: &Value) -> bool {
    [config, &config["text_config"]]
        .iter()
        .any(|config| config["model_type"] == "deepseek_v4")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(files: &[&str]) -> String {
        let files: Vec<String> = files.iter().map(|name| (*name).to_owned()).collect();
        check_weights("./model", &files).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn only_safetensors_are_weights() {
        assert_eq!(refused(&["config.json", "model.safetensors", "m.gguf"]), "");
        insta::assert_snapshot!(refused(&["README.md", "c.gguf", "a.gguf", "b.gguf"]), @"
        error: ./model has no weights that cclocal can serve
          cause: it has GGUF files (a.gguf, b.gguf and 1 more), and no *.safetensors
          hint: cclocal needs an MLX model, such as mlx-community/gemma-4-e4b-it-4bit
        ");
        insta::assert_snapshot!(refused(&["config.json", "pytorch_model.bin", "training_args.bin"]), @"
        error: ./model has no weights that cclocal can serve
          cause: it has PyTorch files (pytorch_model.bin), and no *.safetensors
          hint: cclocal needs an MLX model, such as mlx-community/gemma-4-e4b-it-4bit
        ");
        insta::assert_snapshot!(refused(&["config.json"]), @"
        error: ./model has no weights that cclocal can serve
          cause: it has no *.safetensors
          hint: cclocal needs an MLX model, such as mlx-community/gemma-4-e4b-it-4bit
        ");
    }
}
