#!/usr/bin/env python3
"""Says what templates of each form make of a conversation with tools, through the engine's own preparation of a request. A line of JSON each.

    histories.py FOLDER          (run it with the engine's own Python; the folder is that of what starts the engine)

The templates are our own, and have of the real ones what decides how a conversation has to be put to them.
"""

import contextlib
import io
import json
import sys
from types import SimpleNamespace

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

CHATML_TURN = "{% for m in messages %}{% if m.role == 'tool' %}%TOOL%{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}%CALLS%<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
GEMMA_CALLS = """{% for c in m.tool_calls or [] %}<|tool_call>call:{{ c.function.name }}{{ c.function.arguments | tojson }}<tool_call|>{% endfor %}"""
GEMMA_ROLE = "{{ 'model' if m.role == 'assistant' else m.role }}"

TEMPLATES = {
    # Knows results by `tool_responses` alone, behind the calls of a message; then a turn goes on.
    "gemma4_inside": "{% set ns = namespace(open=false) %}{% for m in messages %}<|turn>" + GEMMA_ROLE + "\n" + GEMMA_CALLS
    + """{% for r in m.tool_responses or [] %}<|tool_response>response:{{ r.name }}{value:{{ r.response }}}<tool_response|>{% endfor %}{{ m.content | trim }}
{%- set ns.open = m.tool_responses and not m.content %}{% if not ns.open %}<turn|>\n{% endif %}{% endfor %}{% if add_generation_prompt and not ns.open %}<|turn>model\n{% endif %}""",
    # Looks for messages of tools behind the calls, and writes the text behind both.
    "gemma4": "{% for m in messages %}{% if m.role != 'tool' %}<|turn>" + GEMMA_ROLE + "\n" + GEMMA_CALLS
    + """{% if m.tool_calls %}{% set ns = namespace(on=true) %}{% for r in messages[loop.index0 + 1:] %}{% if r.role != 'tool' %}{% set ns.on = false %}{% elif ns.on %}<|tool_response>response:{{ r.name }}{value:{{ r.content }}}<tool_response|>{% endif %}{% endfor %}{% endif %}
{{- m.content | trim }}<turn|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|turn>model\n{% endif %}""",
    # Raises for results without a name, and leaves out the text beside a call.
    "hermes": CHATML_TURN.replace("{{ m.content }}", "{% if not m.tool_calls %}{{ m.content }}{% endif %}")
    .replace("%TOOL%", "{% if m.name is not defined %}{{ raise_exception('results have names') }}{% endif %}<|im_start|>tool\n<tool_response>\n{\"name\": \"{{ m.name }}\", \"content\": {{ m.content | tojson }}}\n</tool_response><|im_end|>\n")
    .replace("%CALLS%", "{% for c in m.tool_calls or [] %}<tool_call>\n{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}"),
    # Goes through the arguments, so that a string of JSON raises.
    "qwen3_coder": CHATML_TURN.replace("%TOOL%", "{% if loop.previtem.role != 'tool' %}<|im_start|>user\n{% endif %}<tool_response>\n{{ m.content }}\n</tool_response>\n{% if loop.last or loop.nextitem.role != 'tool' %}<|im_end|>\n{% endif %}")
    .replace("%CALLS%", "{% for c in m.tool_calls or [] %}\n<tool_call>\n<function={{ c.function.name }}>\n{% for k, v in c.function.arguments | items %}<parameter={{ k }}>\n{{ v if v is string else v | tojson }}\n</parameter>\n{% endfor %}</function>\n</tool_call>{% endfor %}"),
    "glm": """[gMASK]<sop>{% for m in messages %}{% if m.role == 'tool' %}{% if messages[loop.index0 - 1].role != 'tool' %}<|observation|>{% endif %}
<tool_response>
{{ m.content }}
</tool_response>{% else %}<|{{ m.role }}|>
{{ m.content }}{% for c in m.tool_calls or [] %}
<tool_call>{{ c.function.name }}
{% for k, v in c.function.arguments.items() %}<arg_key>{{ k }}</arg_key>
<arg_value>{{ v if v is string else v | tojson }}</arg_value>
{% endfor %}</tool_call>{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}""",
    # Takes one call a message.
    "llama3": """{% for m in messages %}{% if 'tool_calls' in m %}{% if m.tool_calls | length != 1 %}{{ raise_exception('one call at once') }}{% endif %}<|start_header_id|>assistant<|end_header_id|>

{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}<|eot_id|>{% elif m.role == 'tool' %}<|start_header_id|>ipython<|end_header_id|>

{{ m.content | tojson }}<|eot_id|>{% else %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}""",
    # Wants ids of nine letters and digits, and turns that alternate.
    "mistral": """{% set ns = namespace(turn=0) %}{% for m in messages if m.role in ['user', 'assistant'] and not m.tool_calls %}{% if (m.role == 'user') != (ns.turn % 2 == 0) %}{{ raise_exception('turns alternate') }}{% endif %}{% set ns.turn = ns.turn + 1 %}{% endfor %}
{%- for m in messages %}{% if m.role == 'system' %}[SYSTEM_PROMPT]{{ m.content }}[/SYSTEM_PROMPT]{% elif m.role == 'user' %}[INST]{{ m.content }}[/INST]{% elif m.tool_calls %}[TOOL_CALLS][{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}{{ ', ' if not loop.last }}{% endfor %}]</s>{% elif m.role == 'tool' %}{% if m.tool_call_id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}[TOOL_RESULTS]{"content": {{ m.content | tojson }}, "call_id": "{{ m.tool_call_id }}"}[/TOOL_RESULTS]{% else %}{{ m.content }}</s>{% endif %}{% endfor %}""",
    # Knows no calls at all.
    "none": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
}


def call(number, name, **arguments):
    return {"type": "tool_use", "id": f"toolu_01HZ{number}YxWvUtSrQpOnMlKj", "name": name, "input": arguments}


def result(number, text):
    return {"type": "tool_result", "tool_use_id": f"toolu_01HZ{number}YxWvUtSrQpOnMlKj", "content": [{"type": "text", "text": text}]}


# As Claude Code sends it, and the gateway folds it. The results of the two calls at once come in another order.
CONVERSATION = [
    ("user", "Look."),
    ("assistant", [{"type": "text", "text": "I look."}, call(1, "Read", path="/a", lines=[1, 20], all=True)]),
    ("user", [result(1, "of a")]),
    ("assistant", [call(2, "Read", path="/b"), call(3, "Bash", command='echo "é"\n')]),
    ("user", [result(3, "of the shell"), result(2, "of b")]),
    ("user", "And then?"),
    ("assistant", "Done."),
    ("user", "Thanks."),
]
# Before which messages a model is asked.
ASKED = (1, 3, 6, 8)
TOOLS = [{"name": name, "description": name, "input_schema": {"type": "object", "properties": {}}} for name in ("Read", "Bash")]


def main():
    parts = {}
    for name in ("patches", "history"):
        file = f"{sys.argv[1]}/{name}.py"
        exec(compile(open(file).read(), file, "exec"), parts)
    parts["write_history"]()
    from vllm_mlx import server
    from vllm_mlx.api.anthropic_adapter import anthropic_to_openai
    from vllm_mlx.api.anthropic_models import AnthropicRequest
    from vllm_mlx.engine.batched import BatchedEngine

    def engine_with(template, **options):
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
        tokenizer.chat_template = template
        return SimpleNamespace(tokenizer=tokenizer, _model_name="m", _is_mllm=False, _processor=None, **options)

    def prepared(engine, messages):
        messages = [{"role": role, "content": content} for role, content in messages]
        request = AnthropicRequest(model="m", max_tokens=9, system="Be brief.", messages=messages, tools=TOOLS)
        return server._prepare_anthropic_invocation(engine, anthropic_to_openai(request), 9)

    def prompt(engine, messages, asks=True):
        made = prepared(engine, messages)
        return BatchedEngine._apply_chat_template(engine, made.messages, made.chat_kwargs["tools"], chat_template_kwargs={"add_generation_prompt": asks})

    for name, template in TEMPLATES.items():
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            engine = engine_with(template)
            whole = prompt(engine, CONVERSATION)
            again = prompt(engine, CONVERSATION)
        told = [prompt(engine, CONVERSATION[:end], asks=False) for end in ASKED]
        multimodal = prompt(engine_with(template, is_mllm=True), CONVERSATION)
        print(
            json.dumps(
                {
                    "name": name,
                    "said": said.getvalue(),
                    "way": None if engine.cclocal_history is None else str(engine.cclocal_history),
                    "prompt": whole,
                    "is_steady": whole == again,
                    "only_grows": all(after.startswith(before) for before, after in zip(told, told[1:])),
                    "is_same_with_pictures": multimodal == whole,
                    # A call that was lost, as after a summary of what was said.
                    "orphan": prompt(engine, [("user", [result(1, "of a")]), *CONVERSATION[3:5]]),
                }
            )
        )


main()
