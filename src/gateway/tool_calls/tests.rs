//! What arrives of a reply.

use std::sync::Arc;

use serde_json::{Value, json};

use super::schema::Tools;
use super::*;
use crate::catalog::Form;

fn tools() -> Arc<Tools> {
    let (s, n, b, o) = (
        json!({"type": "string"}),
        json!({"type": "number"}),
        json!({"type": "boolean"}),
        json!({"type": "object"}),
    );
    let tool = |name: &str, required: Value, properties: Value| json!({"name": name, "input_schema": {"type": "object", "properties": properties, "required": required}});
    Arc::new(Tools::new(&[
        tool(
            "Write",
            json!(["file_path", "content"]),
            json!({"file_path": s, "content": s}),
        ),
        tool(
            "Read",
            json!(["file_path"]),
            json!({"file_path": s, "offset": n, "limit": {"type": "integer"}}),
        ),
        tool(
            "Bash",
            json!(["command"]),
            json!({"command": s, "run_in_background": b, "timeout": n}),
        ),
        tool("mcp__my-server__do-it", json!(["arg"]), json!({"arg": s})),
        tool(
            "TodoWrite",
            json!([]),
            json!({"todos": {"type": "array", "items": o}, "meta": o}),
        ),
        tool(
            "Grep",
            json!(["pattern"]),
            json!({"pattern": s, "path": s, "-A": n, "-n": b, "-i": b, "output_mode": {"type": "string", "enum": ["content"]}}),
        ),
    ]))
}

fn options(form: Form) -> Options {
    Options {
        form,
        prose_calls: false,
        start: Start::Doubtful(2000),
    }
}

/// The pieces of a reply that comes in pieces of this many characters, texts and thoughts joined.
fn read(options: &Options, reply: &str, size: usize, ending: &Ending) -> Vec<Piece> {
    let mut reader = Reader::new(options, tools());
    let letters: Vec<char> = reply.chars().collect();
    let mut pieces = Vec::new();
    for part in letters.chunks(size) {
        pieces.extend(reader.push(&part.iter().collect::<String>()));
    }
    pieces.extend(reader.finish(ending));
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (joined.last_mut(), piece) {
            (Some(Piece::Text(last)), Piece::Text(more)) => last.push_str(&more),
            (Some(Piece::Thought(last)), Piece::Thought(more)) => last.push_str(&more),
            (_, piece) => joined.push(piece),
        }
    }
    joined
}

#[test]
fn replies_of_a_folder() {
    let Ok(folder) = std::env::var("REPLIES") else {
        return;
    };
    let expected: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{folder}/expected.json")).unwrap())
            .unwrap();
    let mut bad = 0;
    for (name, case) in expected.as_object().unwrap() {
        let form = serde_json::from_value::<Form>(case["form"].clone()).unwrap();
        let reply = std::fs::read_to_string(format!("{folder}/{name}.txt")).unwrap();
        for size in [1, 3, 7, 10000] {
            let pieces = read(&options(form), &reply, size, &Ending::Stop(None));
            let got: Vec<Value> = pieces
                .iter()
                .filter_map(|piece| match piece {
                    Piece::Text(text) if text.trim().is_empty() => None,
                    Piece::Text(text) => Some(json!({"text": text.trim()})),
                    Piece::Call(call) => Some(json!({"call": call.name, "input": call.input})),
                    Piece::Thought(_) => None,
                    Piece::Wrong(wrong) => Some(json!({"wrong": format!("{wrong:?}")})),
                })
                .collect();
            if json!(got) != case["blocks"] {
                bad += 1;
                eprintln!(
                    "{name} size {size}\n  want {}\n  got  {}",
                    case["blocks"],
                    json!(got)
                );
            }
        }
    }
    assert_eq!(bad, 0);
}
