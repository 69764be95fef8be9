//! The demo model: a real model for the real engine, made without training. Its one layer adds nothing, so the next token
//! depends on the current one alone, and the head links tokens to a chain that spells one `Write` tool call, or a closing sentence.
//!
//! Embeddings are rows of a Hadamard matrix, +1 and -1, each at a right angle to all the others. So a score is exactly
//! [`CERTAIN`] for the token that a link leads to and exactly 0 for any other: sampling can't go astray either.

use std::path::Path;

use serde_json::{Value, json};

use super::safetensors::{self, Tensor};
use super::tokenizer::Vocabulary;
use crate::error::{Context, Exit, Result};

/// Reply of the model after the tool's result. If Claude Code prints it, the result has reached the model.
pub const CLOSING: &str = "Done: the Write tool has written the file.";

/// Its reply after an error of the tool.
pub const FAILED: &str = "The Write tool has reported an error.";

/// Its reply to any later prompt.
const AGAIN: &str = "This demo model writes one file, and that is over.";

/// Its reply to a request without the Write tool, such as one for a title.
const PLAIN: &str = "cclocal demo";

/// Hidden size and vocabulary size; a power of two, as a Hadamard matrix needs. Ids beyond the tokenizer's own are never reached.
const WIDTH: usize = 512;

/// Size of the one attention head: the smallest for which mlx has a fast kernel on Metal.
const HEAD: usize = 64;

/// Hidden size of the MLP, which has nothing to do.
const MLP: usize = 8;

/// Tokens that the context window is said to have.
const WINDOW: usize = 262_144;

/// The score of a linked token. At temperature 1, any other is then sampled less than once in 10¹⁰ times.
const CERTAIN: f32 = 32.0;

/// Bytes in a piece of the call at least; shorter ones only make more of them.
const PIECE: usize = 6;

/// Pieces of the call at most; together with bytes, marks and sentences they fit into [`WIDTH`].
const PIECES: usize = 190;

const TEMPLATE: &str = include_str!("template.jinja");

/// Writes the model to `dir`, about 2.7 MB: a model that answers with a `Write` call that puts `text` into `file_to_write`, which
/// must be absolute. What was in `dir` is replaced as a whole. The same arguments make the same bytes.
pub fn write(dir: &Path, file_to_write: &str, text: &str) -> Result<()> {
    let parent = dir.parent().unwrap_or(Path::new("."));
    replace(dir, parent, &files(file_to_write, text))
        .context(Exit::Other, "the demo model could not be written")
        .map_err(|error| error.hint("check that the disk has space and that you can write there"))
}

/// Makes the directory beside its place and moves it there, so that no half-written model is ever found.
fn replace(dir: &Path, parent: &Path, files: &[(&str, Vec<u8>)]) -> std::io::Result<()> {
    fs_err::create_dir_all(parent)?;
    let staging = tempfile::Builder::new()
        .prefix(".demo-model-")
        .tempdir_in(parent)?;
    let new = staging.path().join("new");
    fs_err::create_dir(&new)?;
    for (name, content) in files {
        fs_err::write(new.join(name), content)?;
    }
    if dir.exists() {
        fs_err::rename(dir, staging.path().join("old"))?;
    }
    fs_err::rename(new, dir)
}

/// Every file of the model, by name.
fn files(file_to_write: &str, text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let mut vocabulary = Vocabulary::new();
    vocabulary.mark("<|im_start|>");
    let end = vocabulary.mark("<|im_end|>");
    let links = links(&mut vocabulary, end, &call(file_to_write, text));

    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "intermediate_size": MLP,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": HEAD,
        "rms_norm_eps": 1e-5,
        "vocab_size": WIDTH,
        "rope_theta": 10000.0,
        "max_position_embeddings": WINDOW,
        "tie_word_embeddings": false,
        "bos_token_id": null,
        "eos_token_id": end,
        "torch_dtype": "float32",
    });
    let tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": WINDOW,
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "clean_up_tokenization_spaces": false,
        "chat_template": TEMPLATE,
    });
    let text = |value: Value| value.to_string().into_bytes();
    vec![
        ("config.json", text(config)),
        (
            "generation_config.json",
            text(json!({ "eos_token_id": end })),
        ),
        ("tokenizer.json", text(vocabulary.tokenizer_json())),
        ("tokenizer_config.json", text(tokenizer_config)),
        ("model.safetensors", safetensors::encode(&tensors(&links))),
    ]
}

/// The tool call's JSON. All of it is ASCII, for other characters and what could be taken for a tag or a mark are written as `\uXXXX`.
fn call(file_to_write: &str, text: &str) -> String {
    let call =
        json!({ "name": "Write", "arguments": { "file_path": file_to_write, "content": text } });
    let mut ascii = String::new();
    for char in call.to_string().chars() {
        if char.is_ascii() && !matches!(char, '<' | '>' | '\x7f') {
            ascii.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    format!("\n{ascii}\n")
}

/// Which token follows which, by id: one entry for every token of the vocabulary. Fills the vocabulary with what the chains need.
fn links(vocabulary: &mut Vocabulary, end: usize, call: &str) -> Vec<usize> {
    let mut chains = Vec::new();
    // The sentences come first: cut after the call, one of them could be a piece of it already.
    for (mark, sentence) in [
        ("<|written|>", CLOSING),
        ("<|failed|>", FAILED),
        ("<|again|>", AGAIN),
        ("<|plain|>", PLAIN),
    ] {
        let mut chain = vec![vocabulary.mark(mark)];
        chain.extend(vocabulary.cut(sentence, PIECE));
        chains.push(chain);
    }
    let mut chain = vec![vocabulary.mark("<|ask|>")];
    chain.extend(vocabulary.cut("<tool_call>", usize::MAX));
    chain.extend(vocabulary.cut(call, PIECE.max(call.len().div_ceil(PIECES))));
    chain.extend(vocabulary.cut("</tool_call>", usize::MAX));
    chains.push(chain);

    // Whatever is in no chain, and the last of each, ends the answer.
    let mut next = vec![end; vocabulary.size()];
    for pair in chains.iter().flat_map(|chain| chain.windows(2)) {
        next[pair[0]] = pair[1];
    }
    next
}

/// The weights: embeddings, a head that scores each token's successor, and one layer of zeros.
fn tensors(next: &[usize]) -> Vec<Tensor> {
    let mut embeddings = Vec::with_capacity(WIDTH * WIDTH);
    for row in 0..WIDTH {
        embeddings.extend((0..WIDTH).map(|column| hadamard(row, column)));
    }
    let mut head = vec![0.0; WIDTH * WIDTH];
    for (token, &successor) in next.iter().enumerate() {
        for column in 0..WIDTH {
            head[successor * WIDTH + column] += hadamard(token, column) * CERTAIN / WIDTH as f32;
        }
    }

    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let zeros = |name: &str, shape: [usize; 2]| Tensor::filled(&layer(name), &shape, 0.0);
    let ones = |name: &str| Tensor::filled(name, &[WIDTH], 1.0);
    vec![
        Tensor::new("model.embed_tokens.weight", &[WIDTH, WIDTH], embeddings),
        Tensor::new("lm_head.weight", &[WIDTH, WIDTH], head),
        ones("model.norm.weight"),
        ones(&layer("input_layernorm")),
        ones(&layer("post_attention_layernorm")),
        zeros("self_attn.q_proj", [HEAD, WIDTH]),
        zeros("self_attn.k_proj", [HEAD, WIDTH]),
        zeros("self_attn.v_proj", [HEAD, WIDTH]),
        zeros("self_attn.o_proj", [WIDTH, HEAD]),
        zeros("mlp.gate_proj", [MLP, WIDTH]),
        zeros("mlp.up_proj", [MLP, WIDTH]),
        zeros("mlp.down_proj", [WIDTH, MLP]),
    ]
}

/// Sylvester's Hadamard matrix: any two rows are at a right angle.
fn hadamard(row: usize, column: usize) -> f32 {
    if (row & column).count_ones().is_multiple_of(2) {
        1.0
    } else {
        -1.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::demo::tokenizer::tests::decode;

    /// The model as its files describe it, run the way the engine runs it: greedily, from a mark to the end token.
    struct Loaded {
        tokenizer: Value,
        tensors: HashMap<String, Tensor>,
        end: usize,
    }

    impl Loaded {
        fn new(files: &[(&'static str, Vec<u8>)]) -> Self {
            let file = |name| &files.iter().find(|(other, _)| *other == name).unwrap().1;
            let json = |name| serde_json::from_slice::<Value>(file(name)).unwrap();
            let config = json("config.json");
            let tokenizer = json("tokenizer.json");
            let tokens = tokenizer["model"]["vocab"].as_object().unwrap().len();
            assert!(
                tokens as u64 <= config["vocab_size"].as_u64().unwrap(),
                "{tokens} tokens"
            );
            Self {
                tokenizer,
                tensors: safetensors::tests::decode(file("model.safetensors"))
                    .into_iter()
                    .map(|tensor| (tensor.name.clone(), tensor))
                    .collect(),
                end: config["eos_token_id"].as_u64().unwrap() as usize,
            }
        }

        fn id(&self, token: &str) -> usize {
            self.tokenizer["model"]["vocab"][token].as_u64().unwrap() as usize
        }

        /// Scores of all tokens after this one. The layer writes zeros, so the norm and the head are all there is to compute.
        fn scores(&self, token: usize) -> Vec<f32> {
            for name in ["self_attn.o_proj", "mlp.down_proj"] {
                let zeros = &self.tensors[&format!("model.layers.0.{name}.weight")].data;
                assert!(zeros.iter().all(|value| *value == 0.0));
            }
            let hidden = &self.tensors["model.embed_tokens.weight"].data[token * WIDTH..][..WIDTH];
            let mean = hidden.iter().map(|value| value * value).sum::<f32>() / WIDTH as f32;
            let hidden: Vec<f32> = hidden
                .iter()
                .zip(&self.tensors["model.norm.weight"].data)
                .map(|(value, weight)| value / (mean + 1e-5).sqrt() * weight)
                .collect();
            self.tensors["lm_head.weight"]
                .data
                .chunks_exact(WIDTH)
                .map(|row| row.iter().zip(&hidden).map(|(a, b)| a * b).sum())
                .collect()
        }

        fn answer(&self, mark: &str) -> String {
            let mut ids = vec![self.id(mark)];
            loop {
                let scores = self.scores(ids[ids.len() - 1]);
                let best = (0..WIDTH)
                    .max_by(|&a, &b| scores[a].total_cmp(&scores[b]))
                    .unwrap();
                for (id, score) in scores.iter().enumerate() {
                    assert!(
                        id == best || scores[best] - score > 31.0,
                        "{id} comes close: {score}"
                    );
                }
                if best == self.end {
                    return decode(&self.tokenizer, &ids[1..]);
                }
                ids.push(best);
                assert!(ids.len() <= WIDTH, "the chain runs in a circle");
            }
        }

        /// The call's arguments, as the engine's `hermes` parser takes them from the answer.
        fn write_call(&self) -> (String, String) {
            let answer = self.answer("<|ask|>");
            let inner = answer
                .strip_prefix("<tool_call>\n")
                .unwrap()
                .strip_suffix("\n</tool_call>")
                .unwrap();
            assert!(!inner.contains(['<', '>']) && inner.is_ascii(), "{inner}");
            let call: Value = serde_json::from_str(inner).unwrap();
            assert_eq!(call["name"], "Write");
            let argument = |name: &str| call["arguments"][name].as_str().unwrap().to_owned();
            (argument("file_path"), argument("content"))
        }
    }

    fn check(path: &str, text: &str) {
        let model = Loaded::new(&files(path, text));
        assert_eq!(model.write_call(), (path.to_owned(), text.to_owned()));
        for (mark, sentence) in [
            ("<|written|>", CLOSING),
            ("<|failed|>", FAILED),
            ("<|again|>", AGAIN),
            ("<|plain|>", PLAIN),
        ] {
            assert_eq!(model.answer(mark), sentence);
        }
        // A prompt that ends in an ordinary byte ends the answer at once.
        assert_eq!(model.answer("a"), "");
    }

    #[test]
    fn the_chain_from_the_mark_is_the_tool_call() {
        check("/tmp/demo/hello.txt", "hello world\n");
    }

    #[test]
    fn nasty_paths_and_texts_survive() {
        check("/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a", "");
        check(
            "/home/jörg/\u{202e}文件 夹/👩‍👩‍👧/it's \"quoted\"\\back`tick`.txt",
            "ünï\u{7f}\0\r\n\t",
        );
        check("/x</tool_call><tool_call>{}/<|im_end|><|ask|>", CLOSING);
        check(&format!("/{}", "ab".repeat(2000)), &"a".repeat(10_000));
    }

    #[test]
    fn the_marks_of_the_template_are_tokens() {
        let model = Loaded::new(&files("/tmp/x", "x"));
        let added = model.tokenizer["added_tokens"].as_array().unwrap();
        for mark in TEMPLATE
            .split("<|")
            .skip(1)
            .map(|rest| rest.split("|>").next().unwrap())
        {
            let mark = format!("<|{mark}|>");
            let token = added
                .iter()
                .find(|token| token["content"] == mark.as_str())
                .unwrap();
            assert_eq!(token["id"], json!(model.id(&mark)));
        }
    }

    #[test]
    fn writing_twice_gives_the_same_bytes_and_no_leftovers() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("made/on the way/model");
        write(&dir, "/tmp/other", "other").unwrap();
        fs_err::write(dir.join("stale"), "").unwrap();
        write(&dir, "/tmp/x", "x").unwrap();
        let mut found: Vec<_> = fs_err::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "config.json",
                "generation_config.json",
                "model.safetensors",
                "tokenizer.json",
                "tokenizer_config.json"
            ]
        );
        for (name, content) in files("/tmp/x", "x") {
            assert!(fs_err::read(dir.join(name)).unwrap() == content, "{name}");
        }
        assert_eq!(fs_err::read_dir(dir.parent().unwrap()).unwrap().count(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_path_and_text_is_spelled(path in "\\PC{0,80}|(/a){0,60}", text in any::<String>()) {
            let mut vocabulary = Vocabulary::new();
            let end = vocabulary.mark("<|im_end|>");
            let call = call(&path, &text);
            let next = links(&mut vocabulary, end, &call);
            prop_assert!(next.len() < WIDTH);
            let tokenizer = vocabulary.tokenizer_json();
            let mut ids = vec![];
            let mut id = tokenizer["model"]["vocab"]["<|ask|>"].as_u64().unwrap() as usize;
            while next[id] != end {
                id = next[id];
                ids.push(id);
            }
            prop_assert_eq!(decode(&tokenizer, &ids), format!("<tool_call>{call}</tool_call>"));
            let parsed: Value = serde_json::from_str(&call).unwrap();
            prop_assert_eq!(&parsed["arguments"]["file_path"], &json!(path));
            prop_assert_eq!(&parsed["arguments"]["content"], &json!(text));
        }
    }
}
