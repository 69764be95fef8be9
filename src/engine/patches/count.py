"""Counts a prompt as the engine will really see it: part of what starts the engine, see `bootstrap.py`."""

import asyncio
import os


def count_prompts():
    """Lets `count_tokens` count what a prompt really is.

    vllm-mlx 0.6.0 counts a prompt without its template and without its pictures. An engine whose insides are not as expected is left alone.
    """
    try:
        from vllm_mlx import server
    except ImportError as error:
        return not_applied("count-tokens", error)
    for route in getattr(getattr(server, "app", None), "routes", ()):
        if getattr(route, "path", "") == "/v1/messages/count_tokens" and hasattr(route, "dependant"):
            route.dependant.call = counting(server, route.dependant.call)
            return applied("count-tokens")
    not_applied("count-tokens", "the engine has no such route")


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
    from vllm_mlx.api.utils import has_media_content

    engine = server._engine
    server._validate_model_name(body["model"])
    request = anthropic_to_openai(AnthropicRequest(**{"max_tokens": 1, **body}))
    prepared = server._prepare_anthropic_invocation(engine, request, 1)
    options = dict(prepared.chat_kwargs.get("chat_template_kwargs") or {})
    thinking = prepared.chat_kwargs.get("enable_thinking")
    tools = prepared.chat_kwargs.get("tools")
    tools = convert_tools_for_template(tools) if tools else None
    if getattr(engine, "is_mllm", False) and has_media_content(prepared.messages):
        # To read a picture takes a while, in which the engine generates for others.
        return await asyncio.to_thread(with_pictures, engine._model, prepared.messages, tools, options, thinking)
    tokenizer = getattr(engine, "_text_tokenizer", None)
    if tokenizer is None:
        prompt = engine._apply_chat_template(
            prepared.messages, tools, chat_template_kwargs=options, enable_thinking=thinking
        )
        return len(engine.tokenizer.encode(prompt))
    return text_of_a_multimodal_model(tokenizer, prepared.messages, tools, options, thinking)


def with_pictures(model, messages, tools, options, thinking):
    """On the route for pictures, how many tokens one is depends on its size. Its own steps up to the prompt's tokens, as in `stream_chat`."""
    from mlx_vlm.prompt_utils import get_chat_template
    from mlx_vlm.utils import prepare_inputs, should_add_special_tokens
    from vllm_mlx.models.mllm import _build_mllm_chat_messages

    pictures = []
    chat = _build_mllm_chat_messages(messages, all_image_urls=pictures, video_frame_counts={})
    options = {"enable_thinking": True if thinking is None else thinking, **options}
    if tools:
        options["tools"] = tools
    config = model.model.config
    inputs = prepare_inputs(
        model.processor,
        images=model._prepare_images(pictures),
        prompts=get_chat_template(model.processor, chat, add_generation_prompt=True, **options),
        image_token_index=getattr(config, "image_token_index", None),
        add_special_tokens=should_add_special_tokens(config.model_type, model.processor),
    )
    return int(inputs["input_ids"].size)


def text_of_a_multimodal_model(tokenizer, messages, tools, options, thinking):
    """Without images, such a model is served through its text part alone, which has a tokenizer and a way of rendering of its own."""
    from vllm_mlx.engine.chat_template_safety import normalize_messages_for_chat_template

    if thinking is None:
        thinking = os.environ.get("VLLM_MLX_ENABLE_THINKING", "true").lower() in ("true", "1", "yes")
    options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": thinking, **options}
    if tools:
        options["tools"] = tools
    return len(tokenizer.encode(tokenizer.apply_chat_template(normalize_messages_for_chat_template(messages), **options)))
