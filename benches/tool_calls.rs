//! What the reading of a reply costs: `cargo bench --bench tool_calls`.
//!
//! Two words after it choose a form and a content. For each form, a call that writes a file of ordinary code, and of what is hard to read: the form's own markers, quotes, brackets, white space; the
//! same without a call around it; and JSON that is nested deeply. Whole and in pieces of 4 bytes, as tokens come. Nothing is bounded: the sizes show
//! whether the time grows as the text does.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use cclocal::catalog::Form;
use cclocal::gateway::tool_calls::schema::Tools;
use cclocal::gateway::tool_calls::{Ending, Options, Reader, Start};
use serde_json::{Value, json};

/// The lengths of a content, in bytes.
const SIZES: [usize; 3] = [100_000, 1_000_000, 4_000_000];

/// The parts that a content is made of: what it is called, and what is repeated.
const CONTENTS: [(&str, &str); 22] = [
    (
        "code",
        "    let value = map.get(\"key\").unwrap_or(&default);\n",
    ),
    ("letters", "abcdefgh"),
    ("new lines", "\n"),
    ("spaces", " "),
    ("<", "<"),
    ("quotes", "\""),
    ("\",", "\","),
    ("\"}", "\"}"),
    ("}", "}"),
    ("backticks", "`"),
    ("fences", "```\n"),
    ("backslashes", "\\"),
    ("\\b\\d", "\\b\\d"),
    ("Gemma's quotes", "<|\"|>,"),
    ("<|tool_call>", "<|tool_call>call:Write{\n"),
    ("<tool_call|>", "<|\"|>}<tool_call|>"),
    ("<tool_call>", "<tool_call>\n"),
    (
        "</tool_call>",
        "</arg_value>\n</parameter>\n</function>\n</tool_call>",
    ),
    ("<tool_call>{", "<tool_call>{\"name\": \"a\" "),
    ("parameters", "</parameter>\n<parameter=abc>\n"),
    ("<|call|>", "<|call|><|end|><|channel|>"),
    ("</think>", "</think>\n<think>\n"),
];

fn main() {
    let tools = Arc::new(Tools::new(&[
        json!({"name": "Write", "input_schema": {"type": "object", "required": ["file_path", "content"],
            "properties": {"file_path": {"type": "string"}, "content": {"type": "string"}}}}),
        json!({"name": "Any", "input_schema": {"type": "object"}}),
    ]));
    println!(
        "{:12} {:24} {:>24} {:>24}",
        "form", "content", "whole, ms", "by 4 bytes, ms"
    );
    let only: Vec<String> = std::env::args()
        .skip(1)
        .filter(|only| !only.starts_with("--"))
        .collect();
    let is_asked = |number: usize, name: &str| {
        only.get(number)
            .is_none_or(|only| name.contains(only.as_str()))
    };
    for (form, name) in [
        (Form::Gemma4, "Gemma 4"),
        (Form::Hermes, "Hermes"),
        (Form::Qwen3Coder, "Qwen3-Coder"),
        (Form::Glm47, "GLM"),
        (Form::Llama3, "Llama 3"),
        (Form::Mistral, "Mistral"),
        (Form::Harmony, "harmony"),
    ] {
        if !is_asked(0, name) {
            continue;
        }
        let contents = CONTENTS.into_iter();
        for (called, part) in contents.filter(|(called, _)| is_asked(1, called)) {
            let content = |size: usize| part.repeat(size / part.len());
            row(form, name, called, &tools, |size| {
                call(
                    form,
                    "Write",
                    &json!({"file_path": "/tmp/a", "content": content(size)}),
                )
            });
            row(form, name, &format!("{called}, text"), &tools, |size| {
                format!("Well: {}", content(size))
            });
            row(form, name, &format!("{called}, alone"), &tools, content);
            row(form, name, &format!("{called}, fenced"), &tools, |size| {
                format!("So:\n```\n{}\n```\nyes", content(size))
            });
            row(form, name, &format!("{called}, thought"), &tools, |size| {
                format!("<think>\n{}\n</think>\nyes", content(size))
            });
        }
        if !is_asked(1, "others") {
            continue;
        }
        row(form, name, "nested", &tools, |size| {
            let deep = format!("{}{}", "[".repeat(400), "]".repeat(400));
            let items = vec![deep; size / 800].join(",");
            call(form, "Any", &json!({"a": "VALUE"}))
                .replace("\"VALUE\"", &format!("[{items}]"))
                .replace("VALUE", &format!("[{items}]"))
        });
        row(form, name, "keys", &tools, |size| {
            let keys: serde_json::Map<String, Value> = (0..size / 50)
                .map(|n| (format!("key{n}"), n.into()))
                .collect();
            call(form, "Any", &keys.into())
        });
        row(form, name, "calls", &tools, |size| {
            let one = call(
                form,
                "Write",
                &json!({"file_path": "/tmp/a", "content": "x"}),
            );
            vec![one.as_str(); size / one.len()].join("\n")
        });
        row(form, name, "calls, fenced", &tools, |size| {
            let one = call(
                form,
                "Write",
                &json!({"file_path": "/tmp/a", "content": "x"}),
            );
            format!(
                "```\n{}\n```",
                vec![one.as_str(); size / one.len()].join("\n")
            )
        });
        row(form, name, "calls, quoted", &tools, |size| {
            let one = call(
                form,
                "Write",
                &json!({"file_path": "/tmp/a", "content": "x"}),
            )
            .replace('\n', "");
            vec![format!("`{one}`"); size / one.len()].join(" ")
        });
    }
}

fn row(form: Form, name: &str, called: &str, tools: &Arc<Tools>, reply: impl Fn(usize) -> String) {
    let replies = SIZES.map(reply);
    let whole = replies
        .each_ref()
        .map(|reply| best(form, tools, reply, usize::MAX));
    let split = replies.each_ref().map(|reply| best(form, tools, reply, 4));
    let cells = |times: [Duration; 3]| {
        times
            .map(|time| format!("{:.1}", time.as_secs_f64() * 1000.0))
            .join(" / ")
    };
    println!(
        "{name:12} {called:24} {:>24} {:>24}",
        cells(whole),
        cells(split)
    );
}

/// The shortest of three times: the least that others on the machine took part in.
fn best(form: Form, tools: &Arc<Tools>, reply: &str, size: usize) -> Duration {
    let times = [(); 3].map(|()| time(form, tools, reply, size));
    times.into_iter().min().unwrap_or_default()
}

fn time(form: Form, tools: &Arc<Tools>, reply: &str, size: usize) -> Duration {
    let options = Options {
        form,
        prose_calls: form == Form::Hermes,
        start: Start::Doubtful(2000),
    };
    let mut reader = Reader::new(&options, tools.clone());
    let started = now();
    let mut rest = reply;
    while !rest.is_empty() {
        let mut end = size.min(rest.len());
        while !rest.is_char_boundary(end) {
            end += 1;
        }
        std::hint::black_box(reader.push(&rest[..end], &[]));
        rest = &rest[end..];
    }
    std::hint::black_box(reader.finish(&Ending::Stop(None)));
    now().saturating_sub(started)
}

/// The processor's time that this thread took. Where the system doesn't tell, the time by the clock.
fn now() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let first = told.as_deref().and_then(|told| told.split(' ').next());
    match first.and_then(|first| first.parse().ok()) {
        Some(nanoseconds) => Duration::from_nanos(nanoseconds),
        None => START.elapsed(),
    }
}

/// A call as the form's chat template writes it.
fn call(form: Form, name: &str, input: &Value) -> String {
    let fields = input.as_object().into_iter().flatten();
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match form {
        Form::Hermes => {
            format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {input}}}\n</tool_call>")
        }
        Form::Qwen3Coder => {
            let arguments: String = fields
                .map(|(key, value)| format!("<parameter={key}>\n{}\n</parameter>\n", plain(value)))
                .collect();
            format!("<tool_call>\n<function={name}>\n{arguments}</function>\n</tool_call>")
        }
        Form::Glm47 => {
            let arguments: String = fields
                .map(|(key, value)| {
                    format!(
                        "<arg_key>{key}</arg_key>\n<arg_value>{}</arg_value>\n",
                        plain(value)
                    )
                })
                .collect();
            format!("<tool_call>{name}\n{arguments}</tool_call>")
        }
        Form::Gemma4 => {
            let arguments: Vec<String> = fields
                .map(|(key, value)| match value {
                    Value::String(text) => format!("{key}:<|\"|>{text}<|\"|>"),
                    other => format!("{key}:{other}"),
                })
                .collect();
            format!(
                "<|tool_call>call:{name}{{{}}}<tool_call|>",
                arguments.join(",")
            )
        }
        Form::Llama3 => format!("<|python_tag|>{{\"name\": \"{name}\", \"parameters\": {input}}}"),
        Form::Mistral => format!("[TOOL_CALLS]{name}[ARGS]{input}"),
        Form::Harmony => format!(
            "<|start|>assistant<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{input}<|call|>"
        ),
    }
}
