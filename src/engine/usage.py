"""What the engine knows of a reply and does not say: part of what starts the engine, see `bootstrap.py`."""

import contextvars
import inspect
import json
import logging
import re

# What a tool call opens and closes with, whatever the parser.
TOOL_CALL = (("<tool_call>", "</tool_call>"), ("<|tool_call>", "<tool_call|>"), ("<function=", "</function>"))
TOOL_NAME = re.compile(r"""\s*(?:\{\s*"name"\s*:\s*"|<function=|call:)?\s*([\w.-]+)(?=[^\w.-])""")

reply_now = contextvars.ContextVar("reply_now", default=None)


def report_usage():
    """Lets a streamed reply end with true figures.

    vllm-mlx 0.6.0 streams `input_tokens: 0` and never says that a reply was cut by its limit. All of it is known inside. It goes into the stream's `message_delta`: `input_tokens`, `cache_read_input_tokens` and `output_tokens` in `usage`,
    `stop_reason: "max_tokens"`, and, if the cut fell inside a tool call, `cut_call` with the tool's `name` and how many `whole_calls`
    came before. An engine whose insides are not as expected is left alone.
    """
    try:
        from vllm_mlx import server
    except ImportError:
        return  # The engine's own start will say what is wrong.
    stream = getattr(server, "_stream_anthropic_messages", None)
    if inspect.isasyncgenfunction(stream) and next(iter(inspect.signature(stream).parameters), None) == "engine":

        async def told(engine, *arguments, **options):
            reply = Reply()
            frames = stream(Watched(engine, reply), *arguments, **options)
            try:
                async for frame in frames:
                    yield reply.told(frame)
            finally:
                await closed(frames)

        server._stream_anthropic_messages = told
        logging.getLogger("vllm_mlx.engine.simple").addFilter(reused_in_simple_mode)


class Reply:
    """What is seen of one reply."""

    def __init__(self):
        self.prompt = self.reused = self.generated = 0
        self.end = None
        self.text = []

    def see(self, output, engine):
        if not self.prompt:
            self.prompt = getattr(output, "prompt_tokens", 0) or 0
            if self.prompt:
                self.reused = reused_in_batched_mode(engine, self.prompt) or self.reused
        self.generated = getattr(output, "completion_tokens", 0) or self.generated
        self.text.append(getattr(output, "new_text", "") or "")
        if getattr(output, "finished", False):
            self.end = output.finish_reason

    def told(self, frame):
        if not frame.startswith("event: message_delta\n"):
            return frame
        try:
            event = json.loads(frame.split("data: ", 1)[1])
            if self.prompt:
                reused = min(self.reused, self.prompt)
                event["usage"].update(
                    input_tokens=self.prompt - reused, cache_read_input_tokens=reused, output_tokens=self.generated
                )
            if self.end == "length":
                event["delta"]["stop_reason"] = "max_tokens"
                cut = cut_call("".join(self.text))
                if cut:
                    event["cut_call"] = cut
            return f"event: message_delta\ndata: {json.dumps(event)}\n\n"
        except (LookupError, TypeError, ValueError, AttributeError):
            return frame


class Watched:
    """The engine, with what it generates seen on its way."""

    def __init__(self, engine, reply):
        self._engine_itself = engine
        self._reply = reply

    def __getattr__(self, name):
        return getattr(self._engine_itself, name)

    async def stream_chat(self, *arguments, **options):
        # The first step of the engine runs in this context, and says there what it reuses.
        reply_now.set(self._reply)
        outputs = self._engine_itself.stream_chat(*arguments, **options)
        try:
            async for output in outputs:
                self._reply.see(output, self._engine_itself)
                yield output
        finally:
            await closed(outputs)


async def closed(generator):
    """Ends it now, and what it holds with it, rather than when it is collected."""
    if hasattr(generator, "aclose"):
        await generator.aclose()


def reused_in_batched_mode(engine, prompt):
    """Prompt tokens that the scheduler found in its cache."""
    try:
        requests = list(engine._engine.engine.scheduler.requests.values())
        same = [request.cached_tokens for request in requests if request.num_prompt_tokens == prompt]
        return int(same[-1] or 0) if same else 0
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return 0


def reused_in_simple_mode(record):
    """Simple mode tells its log alone. A filter that lets everything pass."""
    reply = reply_now.get()
    if reply is not None and isinstance(record.msg, str) and "cache HIT" in record.msg:
        try:
            reply.reused = max(reply.reused, int(record.args[0]))
        except (LookupError, TypeError, ValueError):
            pass
    return True


def cut_call(text):
    """The tool call that `text` ends inside of, with the number of those before."""
    whole = position = 0
    while True:
        found = [(text.find(opening, position), opening, closing) for opening, closing in TOOL_CALL]
        start, opening, closing = min((item for item in found if item[0] >= 0), default=(-1, "", ""))
        if start < 0:
            return None
        end = text.find(closing, start + len(opening))
        if end < 0:
            rest = text[start:] if opening == "<function=" else text[start + len(opening) :]
            name = TOOL_NAME.match(rest)
            return {"name": name.group(1) if name else None, "whole_calls": whole}
        whole += 1
        position = end + len(closing)
