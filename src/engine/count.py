"""Counts a prompt as the engine will really see it: part of what starts the engine, see `bootstrap.py`."""

import os


def count_prompts():
    """Lets `count_tokens` count what a prompt really is.

    vllm-mlx 0.6.0 counts a prompt without its template. An engine whose insides are not as expected is left alone.
    """
    try:
        from vllm_mlx import server
    except ImportError:
        return  # The engine's own start will say what is wrong.
    for route in getattr(getattr(server, "app", None), "routes", ()):
        if getattr(route, "path", "") == "/v1/messages/count_tokens" and hasattr(route, "dependant"):
            route.dependant.call = counting(server, route.dependant.call)


def counting(server, approximate):
    async def count(request):
        try:
            return {"input_tokens": await exact(server, await request.json())}
        except Exception:  # Whatever is not as expected here: the engine's own way is still there.
            return await approximate(request)

    return count


async def exact(server, body):
    from vllm_mlx.api.anthropic_adapter import anthropic_to_openai
    from vllm_mlx.api.anthropic_models import AnthropicRequest
    from vllm_mlx.api.tool_calling import convert_tools_for_template

    engine = server._engine
    server._validate_model_name(body["model"])
    request = anthropic_to_openai(AnthropicRequest(**{"max_tokens": 1, **body}))
    prepared = server._prepare_anthropic_invocation(engine, request, 1)
    options = dict(prepared.chat_kwargs.get("chat_template_kwargs") or {})
    thinking = prepared.chat_kwargs.get("enable_thinking")
    tools = prepared.chat_kwargs.get("tools")
    tools = convert_tools_for_template(tools) if tools else None
    tokenizer = getattr(engine, "_text_tokenizer", None)
    if tokenizer is None:
        prompt = engine._apply_chat_template(
            prepared.messages, tools, chat_template_kwargs=options, enable_thinking=thinking
        )
        return len(engine.tokenizer.encode(prompt))
    return text_of_a_multimodal_model(tokenizer, prepared.messages, tools, options, thinking)


def text_of_a_multimodal_model(tokenizer, messages, tools, options, thinking):
    """Without images, such a model is served through its text part alone, which has a tokenizer and a way of rendering of its own."""
    from vllm_mlx.engine.chat_template_safety import normalize_messages_for_chat_template

    if thinking is None:
        thinking = os.environ.get("VLLM_MLX_ENABLE_THINKING", "true").lower() in ("true", "1", "yes")
    options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": thinking, **options}
    if tools:
        options["tools"] = tools
    return len(tokenizer.encode(tokenizer.apply_chat_template(normalize_messages_for_chat_template(messages), **options)))
