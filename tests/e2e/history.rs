//! What chat templates of each form receive of earlier calls and their results, through the engine's own preparation of a request.

use std::path::Path;

use serde_json::Value;

use crate::real;
use crate::turns::python;

#[test]
fn history_reaches_each_template_as_it_takes_it() {
    let stage = real::stage(&real::client());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine/patches");
    let said = python(&stage, "histories.py", &[source]);
    let forms: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(forms.len(), 8);
    let form = |name: &str| {
        let form = forms
            .iter()
            .find(|form| form["name"] == name)
            .expect("a form");
        assert_eq!(
            form["is_steady"], true,
            "{name}: the same request, the same prompt"
        );
        assert_eq!(
            form["only_grows"], true,
            "{name}: a prompt begins with those before it"
        );
        let words = |field: &str| form[field].as_str().unwrap_or_default().to_owned();
        if form["way"].is_string() {
            assert_eq!(form["is_same_with_pictures"], true, "{name}");
            assert_eq!(
                words("said"),
                "[cclocal] patch native-history: applied\n",
                "{name}"
            );
        }
        // A result whose call is not there is the user's.
        assert!(
            words("orphan").contains("[Tool Result (toolu_01HZ1"),
            "{name}"
        );
        format!("{}\n{}", words("way"), words("prompt"))
    };
    // Gemma-4 as it came: results are inside the message of their calls, and the model's words behind them. Words before calls are a message of their own.
    insta::assert_snapshot!(form("gemma4_inside"), @r##"
    results inside the message of their calls, text in a message before its calls
    <|turn>system
    Be brief.<turn|>
    <|turn>user
    Look.<turn|>
    <|turn>model
    I look.<turn|>
    <|turn>model
    <|tool_call>call:Read{"path": "/a", "lines": [1, 20], "all": true}<tool_call|><|tool_response>response:Read{value:of a}<tool_response|><|turn>model
    <|tool_call>call:Read{"path": "/b"}<tool_call|><|tool_call>call:Bash{"command": "echo \"é\"\n"}<tool_call|><|tool_response>response:Read{value:of b}<tool_response|><|tool_response>response:Bash{value:of the shell}<tool_response|><|turn>user
    And then?<turn|>
    <|turn>model
    Done.<turn|>
    <|turn>user
    Thanks.<turn|>
    <|turn>model
    "##);
    // Gemma-4's newer templates look for the messages of tools.
    insta::assert_snapshot!(form("gemma4"), @r##"
    text in a message before its calls
    <|turn>system
    Be brief.<turn|>
    <|turn>user
    Look.<turn|>
    <|turn>model
    I look.<turn|>
    <|turn>model
    <|tool_call>call:Read{"path": "/a", "lines": [1, 20], "all": true}<tool_call|><|tool_response>response:Read{value:of a}<tool_response|><turn|>
    <|turn>model
    <|tool_call>call:Read{"path": "/b"}<tool_call|><|tool_call>call:Bash{"command": "echo \"é\"\n"}<tool_call|><|tool_response>response:Read{value:of b}<tool_response|><|tool_response>response:Bash{value:of the shell}<tool_response|><turn|>
    <|turn>user
    And then?<turn|>
    <|turn>model
    Done.<turn|>
    <|turn>user
    Thanks.<turn|>
    <|turn>model
    "##);
    // Qwen2.5 and Hermes: results have the names of their tools.
    insta::assert_snapshot!(form("hermes"), @r##"
    as they are
    <|im_start|>system
    Be brief.<|im_end|>
    <|im_start|>user
    Look.<|im_end|>
    <|im_start|>assistant
    <tool_call>
    {"name": "Read", "arguments": {"path": "/a", "lines": [1, 20], "all": true}}
    </tool_call><|im_end|>
    <|im_start|>tool
    <tool_response>
    {"name": "Read", "content": "of a"}
    </tool_response><|im_end|>
    <|im_start|>assistant
    <tool_call>
    {"name": "Read", "arguments": {"path": "/b"}}
    </tool_call><tool_call>
    {"name": "Bash", "arguments": {"command": "echo \"é\"\n"}}
    </tool_call><|im_end|>
    <|im_start|>tool
    <tool_response>
    {"name": "Read", "content": "of b"}
    </tool_response><|im_end|>
    <|im_start|>tool
    <tool_response>
    {"name": "Bash", "content": "of the shell"}
    </tool_response><|im_end|>
    <|im_start|>user
    And then?<|im_end|>
    <|im_start|>assistant
    Done.<|im_end|>
    <|im_start|>user
    Thanks.<|im_end|>
    <|im_start|>assistant
    "##);
    // Qwen3-Coder and Qwen3.5: arguments are an object.
    insta::assert_snapshot!(form("qwen3_coder"), @r##"
    as they are
    <|im_start|>system
    Be brief.<|im_end|>
    <|im_start|>user
    Look.<|im_end|>
    <|im_start|>assistant
    I look.<tool_call>
    <function=Read>
    <parameter=path>
    /a
    </parameter>
    <parameter=lines>
    [1, 20]
    </parameter>
    <parameter=all>
    true
    </parameter>
    </function>
    </tool_call><|im_end|>
    <|im_start|>user
    <tool_response>
    of a
    </tool_response>
    <|im_end|>
    <|im_start|>assistant
    <tool_call>
    <function=Read>
    <parameter=path>
    /b
    </parameter>
    </function>
    </tool_call><tool_call>
    <function=Bash>
    <parameter=command>
    echo "é"

    </parameter>
    </function>
    </tool_call><|im_end|>
    <|im_start|>user
    <tool_response>
    of b
    </tool_response>
    <tool_response>
    of the shell
    </tool_response>
    <|im_end|>
    <|im_start|>user
    And then?<|im_end|>
    <|im_start|>assistant
    Done.<|im_end|>
    <|im_start|>user
    Thanks.<|im_end|>
    <|im_start|>assistant
    "##);
    // GLM: arguments are an object.
    insta::assert_snapshot!(form("glm"), @r##"
    as they are
    [gMASK]<sop><|system|>
    Be brief.<|user|>
    Look.<|assistant|>
    I look.<tool_call>Read
    <arg_key>path</arg_key>
    <arg_value>/a</arg_value>
    <arg_key>lines</arg_key>
    <arg_value>[1, 20]</arg_value>
    <arg_key>all</arg_key>
    <arg_value>true</arg_value>
    </tool_call><|observation|><tool_response>
    of a
    </tool_response><|assistant|>
    <tool_call>Read
    <arg_key>path</arg_key>
    <arg_value>/b</arg_value>
    </tool_call><tool_call>Bash
    <arg_key>command</arg_key>
    <arg_value>echo "é"
    </arg_value>
    </tool_call><|observation|><tool_response>
    of b
    </tool_response><tool_response>
    of the shell
    </tool_response><|user|>
    And then?<|assistant|>
    Done.<|user|>
    Thanks.<|assistant|>
    "##);
    // Llama 3: one call a message, with its result behind it.
    insta::assert_snapshot!(form("llama3"), @r##"
    one call a message
    <|start_header_id|>system<|end_header_id|>

    Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>

    Look.<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    {"name": "Read", "parameters": {"path": "/a", "lines": [1, 20], "all": true}}<|eot_id|><|start_header_id|>ipython<|end_header_id|>

    "of a"<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    {"name": "Read", "parameters": {"path": "/b"}}<|eot_id|><|start_header_id|>ipython<|end_header_id|>

    "of b"<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    {"name": "Bash", "parameters": {"command": "echo \"é\"\n"}}<|eot_id|><|start_header_id|>ipython<|end_header_id|>

    "of the shell"<|eot_id|><|start_header_id|>user<|end_header_id|>

    And then?<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    Done.<|eot_id|><|start_header_id|>user<|end_header_id|>

    Thanks.<|eot_id|><|start_header_id|>assistant<|end_header_id|>
    "##);
    // Mistral: ids of nine characters, and what the user says behind results is in the last of them.
    insta::assert_snapshot!(form("mistral"), @r##"
    ids of nine characters, words behind results in the last of them
    [SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Look.[/INST][TOOL_CALLS][{"name": "Read", "arguments": {"path": "/a", "lines": [1, 20], "all": true}, "id": "b8eaabbb8"}]</s>[TOOL_RESULTS]{"content": "of a", "call_id": "b8eaabbb8"}[/TOOL_RESULTS][TOOL_CALLS][{"name": "Read", "arguments": {"path": "/b"}, "id": "14c57952c"}, {"name": "Bash", "arguments": {"command": "echo \"é\"\n"}, "id": "0bead8a38"}]</s>[TOOL_RESULTS]{"content": "of b", "call_id": "14c57952c"}[/TOOL_RESULTS][TOOL_RESULTS]{"content": "of the shell\n\nAnd then?", "call_id": "0bead8a38"}[/TOOL_RESULTS]Done.</s>[INST]Thanks.[/INST]
    "##);
    // A template that has no place for calls.
    insta::assert_snapshot!(form("none"), @r##"

    <|im_start|>system
    Be brief.<|im_end|>
    <|im_start|>user
    Look.<|im_end|>
    <|im_start|>assistant
    I look.
    [Calling tool: Read({"path": "/a", "lines": [1, 20], "all": true})]<|im_end|>
    <|im_start|>user
    [Tool Result (toolu_01HZ1YxWvUtSrQpOnMlKj)]: of a<|im_end|>
    <|im_start|>assistant
    [Calling tool: Read({"path": "/b"})]
    [Calling tool: Bash({"command": "echo \"\u00e9\"\n"})]<|im_end|>
    <|im_start|>user
    [Tool Result (toolu_01HZ3YxWvUtSrQpOnMlKj)]: of the shell

    [Tool Result (toolu_01HZ2YxWvUtSrQpOnMlKj)]: of b

    And then?<|im_end|>
    <|im_start|>assistant
    Done.<|im_end|>
    <|im_start|>user
    Thanks.<|im_end|>
    <|im_start|>assistant
    "##);
    let said = forms[7]["said"].as_str().expect("words");
    assert_eq!(
        said,
        "[cclocal] patch native-history: not applied (the chat template has no place for tool calls)\n"
    );
}
