//! Bodies of odd shapes, of about as many bytes as asked for.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// A name, and how a body of this shape is made.
pub type Shape = (&'static str, fn(usize) -> String);

pub const SHAPES: &[Shape] = &[
    ("one text", |size| {
        body(&message("user", &text(&"word ".repeat(size / 5))))
    }),
    ("text blocks", |size| {
        body(&message(
            "user",
            &many(size, |n| text(&format!("block {n}"))),
        ))
    }),
    ("messages", |size| {
        body(&many(size, |n| {
            let role = if n % 2 == 0 { "user" } else { "assistant" };
            message(role, &text("a line of the conversation"))
        }))
    }),
    ("user's messages as strings", |size| {
        body(&many(size, |n| {
            format!(r#"{{"role":"user","content":"line {n}"}}"#)
        }))
    }),
    ("system reminders", |size| {
        body(&many(size, |n| match n {
            0 => message("user", &text("hello")),
            n => format!(r#"{{"role":"system","content":"mind {n}"}}"#),
        }))
    }),
    ("reminders behind a result", |size| {
        let results = message("user", &result("a", "done"));
        let mind = many(size, |n| {
            message(
                "user",
                &text(&format!(
                    "<system-reminder>\\nmind {n}\\n</system-reminder>"
                )),
            )
        });
        body(&format!("{},{results},{mind}", call("a")))
    }),
    ("results in one message", |size| {
        body(&message(
            "user",
            &many(size, |n| result(&n.to_string(), "done")),
        ))
    }),
    ("calls and results, turn by turn", |size| {
        body(&many(size, |n| {
            let id = n.to_string();
            format!(
                "{},{}",
                call(&id),
                message("user", &result(&id, &format!("done {n}")))
            )
        }))
    }),
    ("the same call in each turn", |size| {
        body(&many(size, |n| {
            let id = n.to_string();
            format!("{},{}", call(&id), message("user", &result(&id, "done")))
        }))
    }),
    ("tools", |size| {
        let tools = many(size, |n| {
            format!(
                r#"{{"name":"tool_{n}","description":"does","input_schema":{{"type":"object","properties":{{"a":{{"type":"string"}}}}}}}}"#
            )
        });
        with(&format!(r#""tools":[{tools}]"#))
    }),
    ("tools with odd names", |size| {
        let tools = many(size, |n| {
            format!(r#"{{"name":"tool.{n}","input_schema":{{}}}}"#)
        });
        with(&format!(r#""tools":[{tools}]"#))
    }),
    ("system blocks", |size| {
        with(&format!(
            r#""system":[{}]"#,
            many(size, |n| text(&format!("rule {n}")))
        ))
    }),
    ("one system prompt of sections", |size| {
        let sections = "# Memory\\n\\nYou have a memory at `/x`.\\n\\n".repeat(size / 42);
        with(&format!(r#""system":"{sections}""#))
    }),
    ("pictures", |size| {
        let picture = BASE64_STANDARD.encode(png());
        body(&message("user", &many(size, |_| picture_block(&picture))))
    }),
    ("one picture", |size| {
        let mut bytes = png();
        bytes.resize(size / 4 * 3, 0);
        body(&message(
            "user",
            &picture_block(&BASE64_STANDARD.encode(bytes)),
        ))
    }),
    ("documents inside of documents", |size| {
        let mut block = text(&"word ".repeat(size / 5));
        for _ in 0..80 {
            block = format!(
                r#"{{"type":"document","source":{{"type":"content","content":[{block}]}}}}"#
            );
        }
        body(&message("user", &block))
    }),
    ("nested to the bound", |size| {
        let levels = 240;
        let nested = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let input = many(size, |_| nested.clone());
        body(&message(
            "assistant",
            &format!(r#"{{"type":"tool_use","id":"a","name":"A","input":{{"a":[{input}]}}}}"#),
        ))
    }),
    ("small values", |size| {
        body(&message(
            "assistant",
            &format!(
                r#"{{"type":"tool_use","id":"a","name":"A","input":{{"a":[{}]}}}}"#,
                many(size, |_| "1".into())
            ),
        ))
    }),
    ("fields of one object", |size| {
        body(&message(
            "assistant",
            &format!(
                r#"{{"type":"tool_use","id":"a","name":"A","input":{{{}}}}}"#,
                many(size, |n| format!(r#""field {n}":1"#))
            ),
        ))
    }),
    ("halves of characters", |size| {
        body(&message("user", &text(&r"\ud83d".repeat(size / 6))))
    }),
    ("backslashes", |size| {
        body(&message("user", &text(&r"\\".repeat(size / 2))))
    }),
    ("stop sequences", |size| {
        with(&format!(
            r#""stop_sequences":[{}]"#,
            many(size, |n| format!(r#""stop {n}""#))
        ))
    }),
    ("ends of reminders in a result", |size| {
        let ends = "</system-reminder>".repeat(size / 18);
        body(&format!(
            "{},{}",
            call("a"),
            message("user", &result("a", &ends))
        ))
    }),
];

/// Items until they are of this size, with commas.
fn many(size: usize, item: impl Fn(usize) -> String) -> String {
    let mut all = String::with_capacity(size + 1000);
    for n in 0.. {
        if all.len() >= size {
            break;
        }
        if n > 0 {
            all.push(',');
        }
        all += &item(n);
    }
    all
}

pub fn body(messages: &str) -> String {
    format!(r#"{{"model":"m","max_tokens":100,"stream":true,"messages":[{messages}]}}"#)
}

fn with(fields: &str) -> String {
    let message = message("user", &text("hello"));
    format!(r#"{{"model":"m","max_tokens":100,"stream":true,"messages":[{message}],{fields}}}"#)
}

pub fn message(role: &str, blocks: &str) -> String {
    format!(r#"{{"role":"{role}","content":[{blocks}]}}"#)
}

pub fn text(text: &str) -> String {
    format!(r#"{{"type":"text","text":"{text}"}}"#)
}

fn call(id: &str) -> String {
    message(
        "assistant",
        &format!(r#"{{"type":"tool_use","id":"{id}","name":"Read","input":{{"file_path":"/a"}}}}"#),
    )
}

fn result(id: &str, content: &str) -> String {
    format!(r#"{{"type":"tool_result","tool_use_id":"{id}","content":"{content}"}}"#)
}

fn picture_block(base64: &str) -> String {
    format!(
        r#"{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{base64}"}}}}"#
    )
}

/// One grey pixel.
fn png() -> Vec<u8> {
    const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";
    BASE64_STANDARD.decode(PNG).expect("base64")
}
