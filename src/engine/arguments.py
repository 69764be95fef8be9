"""What a tool call's arguments really are: part of what starts the engine, see `bootstrap.py`."""

import json
import re


def keep_arguments():
    """Lets the calls of GLM models arrive as they were generated.

    vllm-mlx 0.6.0 (parser `glm47`) strips every argument and reads it as JSON where it can: a file that is written loses its last newline, an edit
    its indentation, and a JSON file its whole form. The template writes a string as it is, and everything else as JSON, so an argument that the
    tool declares to be a string is put back as it stands. A parser whose insides are not as expected is left alone.
    """
    try:
        from vllm_mlx.tool_parsers.glm47_tool_parser import Glm47ToolParser as Parser
    except ImportError:
        return
    extract = getattr(Parser, "extract_tool_calls", None)
    if not extract or not hasattr(Parser, "FUNC_DETAIL_PATTERN") or not hasattr(Parser, "strip_think_tags"):
        return

    def extract_whole(self, model_output, request=None):
        found = extract(self, model_output, request)
        try:
            put_back(found.tool_calls, self.FUNC_DETAIL_PATTERN.findall(self.strip_think_tags(model_output)), request)
        except Exception:  # Whatever is not as expected here: what the engine found is still there.
            pass
        return found

    Parser.extract_tool_calls = extract_whole


def put_back(calls, written, request):
    strings = {}
    for tool in request["tools"]:
        properties = (tool["function"].get("parameters") or {}).get("properties") or {}
        strings[tool["function"]["name"]] = {name for name, schema in properties.items() if schema.get("type") == "string"}
    # The engine passes over calls of tools that do not exist, and so does this.
    written = [(name.strip(), arguments) for name, arguments in written if name.strip() in strings]
    if [call["name"] for call in calls] != [name for name, _ in written]:
        return
    for call, (name, text) in zip(calls, written):
        arguments = json.loads(call["arguments"])
        for key, value in re.findall(r"<arg_key>\s*(.*?)\s*</arg_key>\s*<arg_value>(.*?)</arg_value>", text, re.DOTALL):
            if key in arguments and key in strings[name]:
                arguments[key] = value
        call["arguments"] = json.dumps(arguments, ensure_ascii=False)


