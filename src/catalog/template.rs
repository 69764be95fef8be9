//! A model's chat template, read for what it shows of the model: how it writes tool calls, whether it knows tools and thoughts. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Form;

/// The files that may hold a model's chat template, the one that counts first. Source: transformers 5, `tokenization_utils_base.py`.
pub const FILES: [&str; 4] = [
    "additional_chat_templates/tool_use.jinja",
    "chat_template.jinja",
    "tokenizer_config.json",
    "chat_template.json",
];

/// The most that is read of such a file, in bytes. Gemma's `tokenizer_config.json`, the longest seen, has 1.2 MB.
pub const LONGEST_FILE: u64 = 8 << 20;

/// Properties of a model that its chat template shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traits {
    /// How the model writes tool calls. None: in none of the known forms.
    pub form: Option<Form>,
    /// Whether the template takes tools at all.
    pub tools: bool,
    /// Whether thoughts can be turned on, or come anyway.
    pub thinking: bool,
}

impl Traits {
    /// Of a template that is code of the engine, and not text.
    const OF_CODE: Self = Self {
        form: None,
        tools: true,
        thinking: true,
    };
}

/// The traits of a model with these files. `file` gives the text of one of [`FILES`]. None: it has no template, or an empty one.
pub fn read(file: impl Fn(&str) -> Option<String>) -> Option<Traits> {
    FILES.iter().find_map(|name| {
        let text = file(name)?;
        if name.ends_with(".jinja") {
            return (!text.trim().is_empty()).then(|| traits(&text));
        }
        let config: Value = serde_json::from_str(&text).ok()?;
        // mlx-lm's own key: the template is one of its Python modules.
        if config
            .get("chat_template_type")
            .is_some_and(Value::is_string)
        {
            return Some(Traits::OF_CODE);
        }
        chosen(config.get("chat_template")?).map(traits)
    })
}

/// The template that is used where tools are given, of one or of several with names.
fn chosen(value: &Value) -> Option<&str> {
    let text = match value {
        Value::String(text) => text.as_str(),
        Value::Array(named) => ["tool_use", "default"].iter().find_map(|name| {
            let one = named.iter().find(|one| one["name"] == **name)?;
            one["template"].as_str()
        })?,
        Value::Object(named) => ["tool_use", "default"]
            .iter()
            .find_map(|name| named.get(*name)?.as_str())?,
        _ => return None,
    };
    (!text.trim().is_empty()).then_some(text)
}

/// The traits that this template shows.
pub fn traits(template: &str) -> Traits {
    let text = without_comments(template);
    let has = |mark: &str| text.contains(mark);
    Traits {
        form: form(&text),
        tools: has("tools"),
        thinking: ["enable_thinking", "<think>", "<|think|>", "reasoning"]
            .into_iter()
            .any(has),
    }
}

/// Marks of forms that no reader knows. Several of them hold the marks of known ones, so these are looked for first.
const OTHERS: &[&str] = &[
    // DeepSeek, Kimi K2, MiniMax, LFM2.
    "tool▁call",
    "DSML",
    "<|tool_calls_section_begin|>",
    "<|tool_call_begin|>",
    "<minimax:tool_call>",
    "<|tool_call_start|>",
    // Granite 3 and Phi-4-mini, Seed-OSS, Nemotron, Apriel and Hunyuan.
    "<|tool_call|>",
    "<seed:tool_call>",
    "<TOOLCALL>",
    "<tool_calls>",
    // Cohere, InternLM, OLMo 3, MiroThinker.
    "<|START_ACTION|>",
    "<|action_start|>",
    "<function_calls>",
    "<use_mcp_tool>",
];

/// The marks of a form: all of `all`, and one of `any`, where there is one.
struct Marks {
    form: Form,
    all: &'static [&'static str],
    any: &'static [&'static str],
}

/// What templates of each form hold, quotes as they are in the prompt. The first that fits counts: `<tool_call>` is in three of them.
const KNOWN: &[Marks] = &[
    Marks {
        form: Form::Harmony,
        all: &["<|start|>", "<|channel|>", "<|message|>", "functions"],
        any: &[],
    },
    Marks {
        form: Form::Gemma4,
        all: &["<|tool_call>", "call:", "<tool_call|>"],
        any: &[],
    },
    Marks {
        form: Form::Glm47,
        all: &["<tool_call>", "<arg_key>", "<arg_value>"],
        any: &[],
    },
    Marks {
        form: Form::Qwen3Coder,
        all: &["<tool_call>", "<function=", "<parameter="],
        any: &[],
    },
    Marks {
        form: Form::Hermes,
        all: &["<tool_call>", "</tool_call>"],
        any: &[
            "\"arguments\"",
            "'arguments'",
            "tool_call | tojson",
            "tool_call|tojson",
        ],
    },
    Marks {
        form: Form::Mistral,
        all: &["[TOOL_CALLS]"],
        any: &[],
    },
    Marks {
        form: Form::Llama3,
        all: &["\"name\":", "\"parameters\":"],
        any: &["<|start_header_id|>", "<|header_start|>"],
    },
];

fn form(text: &str) -> Option<Form> {
    // Templates write quotes within quotes.
    let text = text.replace("\\\"", "\"").replace("\\'", "'");
    let has = |mark: &&str| text.contains(*mark);
    if OTHERS.iter().any(has) {
        return None;
    }
    let fits = |marks: &&Marks| {
        marks.all.iter().all(has) && (marks.any.is_empty() || marks.any.iter().any(has))
    };
    KNOWN.iter().find(fits).map(|marks| marks.form)
}

/// The template without `{# … #}`, which never gets into a prompt.
fn without_comments(template: &str) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, comment)) = rest.split_once("{#") {
        text.push_str(before);
        rest = comment.split_once("#}").map_or("", |(_, after)| after);
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Templates as short as they can be, in the manner of real ones.
    const SHORT: &[(Option<Form>, &str)] = &[
        (
            Some(Form::Gemma4),
            "{% if tools %}<|tool>{{ tools }}<tool|>{% endif %}{{ '<|tool_call>call:' + name + '{' }}{{ '}<tool_call|>' }}",
        ),
        (
            Some(Form::Glm47),
            r"{% if tools %}<tools></tools> <tool_call>{name}<arg_key>{k}</arg_key><arg_value>{v}</arg_value></tool_call>{% endif %}",
        ),
        (
            Some(Form::Qwen3Coder),
            r"{% if tools %}{{ '<tool_call>\n<function=f>\n<parameter=p>\nv\n</parameter>\n</function>\n</tool_call>' }}{% endif %}",
        ),
        // A JSON example in a Jinja string, and the other order of its keys.
        (
            Some(Form::Hermes),
            r#"{% if tools %}{{ "<tool_call>\n{\"name\": <f>, \"arguments\": <a>}\n</tool_call>" }}{% endif %}"#,
        ),
        (
            Some(Form::Hermes),
            r#"{% if tools %}<tool_call>{"arguments": <args>, "name": <name>}</tool_call>{% endif %}<|start_header_id|>"#,
        ),
        (
            Some(Form::Hermes),
            "{% for tool_call in tools %}<tool_call>{{ tool_call | tojson }}</tool_call>{% endfor %}",
        ),
        (
            Some(Form::Llama3),
            r#"<|start_header_id|>{% if tools %}{{ 'Respond with {"name": f, "parameters": {}}' }}{% endif %}"#,
        ),
        (
            Some(Form::Mistral),
            "{% if tools %}[AVAILABLE_TOOLS]{{ tools }}{% endif %}[TOOL_CALLS]{{ name }}[ARGS]{{ args }}",
        ),
        (
            Some(Form::Harmony),
            r#"{% if tools %}namespace functions{% endif %}{{ "<|start|>assistant to=" }}{{ "functions." + name + "<|channel|>commentary json<|message|>" }}"#,
        ),
        // Others, which hold marks of those above.
        (
            None,
            "{% if tools %}<tools>{% endif %}<minimax:tool_call><invoke name=\"f\"><parameter name=\"p\">v</parameter></invoke></minimax:tool_call>",
        ),
        (
            None,
            r#"{% if tools %}use {{ '<tools>\n{"name": "f", "arguments": {}}\n</tools>' }}{% endif %}"#,
        ),
        (
            None,
            r#"{% if tools %}<tool_calls>[{"name": "f", "arguments": {}}]</tool_calls>{% endif %}"#,
        ),
        (
            None,
            "{% if tools %}<seed:tool_call><function=f><parameter=p>v</parameter></function></seed:tool_call>{% endif %}",
        ),
        (
            None,
            "<|start_header_id|>{% if tools %}[func_name1(params_name1=value)]{% endif %}",
        ),
        (
            None,
            r#"<|start_header_id|>{% if tools %}[{"name": "f", "arguments": {}}]{% endif %}"#,
        ),
        (
            None,
            "<|start_header_id|>{% if tools %}<function=f>{\"p\": 1}</function>{% endif %}",
        ),
        (
            None,
            "{% if tools %}<|tool_call_start|>[f(p=1)]<|tool_call_end|>{% endif %}",
        ),
        (
            None,
            "{% if tools %}<|tool_calls_section_begin|><|tool_call_begin|>f<|tool_call_argument_begin|>{}<|tool_call_end|>{% endif %}",
        ),
        (
            None,
            "{% if tools %}<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>{% endif %}",
        ),
        (
            None,
            r#"{% if tools %}<|tool_call|>[{"name": "f", "arguments": {}}]{% endif %}"#,
        ),
        (
            None,
            "{% if tools %}<|open|>call tool=\"f\"<|sep|>{% endif %}<|start|><|message|>functions",
        ),
    ];

    #[test]
    fn a_form_is_known_by_its_own_marks_and_no_other_is_taken_for_it() {
        for (form, template) in SHORT {
            let traits = traits(template);
            assert_eq!(traits.form, *form, "{template}");
            assert!(traits.tools, "{template}");
        }
    }

    #[test]
    fn templates_of_this_project_are_known() {
        assert_eq!(
            traits(include_str!("../demo/template.jinja")),
            Traits {
                form: Some(Form::Hermes),
                tools: true,
                thinking: false
            }
        );
    }

    #[test]
    fn comments_show_nothing() {
        let read = traits("{# <tool_call> \"arguments\" tools <think> #}{{ messages }}{#");
        let nothing = Traits {
            form: None,
            tools: false,
            thinking: false,
        };
        assert_eq!(read, nothing);
    }

    #[test]
    fn thoughts_are_seen() {
        for template in [
            "{% if enable_thinking %}",
            "{{ '<think>\\n' }}",
            "{{ '<|think|>' }}",
            "{{ message.reasoning_content }}",
        ] {
            assert!(traits(template).thinking, "{template}");
        }
        assert!(!traits("I think {{ messages }}").thinking);
    }

    /// The form of a model with these files, and whether it has a template.
    fn of_files(files: &[(&str, &str)]) -> (bool, Option<Form>) {
        let traits = read(|name| {
            let (_, text) = files.iter().find(|(known, _)| *known == name)?;
            Some((*text).to_owned())
        });
        (traits.is_some(), traits.and_then(|traits| traits.form))
    }

    #[test]
    fn a_template_is_found_wherever_it_may_be() {
        let mistral = r#"{"chat_template": "tools [TOOL_CALLS]"}"#;
        let several = r#"{"chat_template": [{"name": "default", "template": "x"}, {"name": "tool_use", "template": "[TOOL_CALLS]"}]}"#;
        let default = r#"{"chat_template": [{"name": "rag", "template": "x"}, {"name": "default", "template": "[TOOL_CALLS]"}]}"#;
        for text in [mistral, several, default] {
            assert_eq!(
                of_files(&[("tokenizer_config.json", text)]),
                (true, Some(Form::Mistral)),
                "{text}"
            );
        }
        assert_eq!(
            of_files(&[("chat_template.json", mistral)]),
            (true, Some(Form::Mistral))
        );
        let file = ("chat_template.jinja", "{{ messages }}");
        assert_eq!(
            of_files(&[file, ("tokenizer_config.json", mistral)]),
            (true, None)
        );
        let more = ("additional_chat_templates/tool_use.jinja", "[TOOL_CALLS]");
        assert_eq!(of_files(&[file, more]), (true, Some(Form::Mistral)));
        let code = r#"{"chat_template_type": "deepseek_v32"}"#;
        assert_eq!(of_files(&[("tokenizer_config.json", code)]), (true, None));
    }

    #[test]
    fn an_empty_template_is_none() {
        for text in [
            "{}",
            r#"{"chat_template": null}"#,
            r#"{"chat_template": " \n"}"#,
            r#"{"chat_template": []}"#,
            "not JSON",
        ] {
            let files = [
                ("tokenizer_config.json", text),
                ("chat_template.jinja", " \n"),
            ];
            assert_eq!(of_files(&files), (false, None), "{text}");
        }
        assert_eq!(of_files(&[]), (false, None));
    }
}
