"""Replies exactly as they were generated: part of what starts the engine, see `bootstrap.py`."""

import asyncio
import contextvars
import inspect
import json
import logging
import sys
import time
import uuid

# What models mark calls, thoughts and turns with. Where the tokenizer has one as a token of its own, a reply tells a real one from its letters.
MARKERS = (
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
    *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<|observation|>", "<|system|>", "<|user|>", "<|assistant|>"),
    *("<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", "<|tool>", "<tool|>", '<|"|>', "<|think|>"),
    *("<|channel>", "<channel|>", "<|turn>", "<turn|>", "<start_of_turn>", "<end_of_turn>"),
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|python_tag|>", "<|eom_id|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[TOOL_CONTENT]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[THINK]", "[/THINK]", "[INST]", "[/INST]"),
    *("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|call|>", "<|return|>"),
    *("<eos>", "<bos>", "</s>", "<s>"),
)

# How much of the prompt's end is told, in characters.
PROMPT_TAIL = 64

# A character has four bytes at most, and so tokens. More that make no text are no characters.
LONGEST_PENDING = 64

reply_now = contextvars.ContextVar("reply_now", default=None)


def stream_raw():
    """Lets `/v1/messages` stream a reply exactly as it was generated, with true figures.

    vllm-mlx 0.6.0 takes tool calls, thoughts and special tokens out of a stream, and may lose the last words before a call and at the end. Here
    text is made of the tokens themselves: complete, unstripped, special tokens included, with the places of real marker tokens, the token that
    ended the reply, a true stop reason and true usage. `message_start` says so in `as_generated`. An engine whose insides are not as expected
    streams as it always did.
    """
    try:
        import mlx_lm
        from vllm_mlx import server
        from vllm_mlx.engine.batched import BatchedEngine
        from vllm_mlx.engine.simple import SimpleEngine
        from vllm_mlx.engine_core import EngineCore
        from vllm_mlx.scheduler import Scheduler
    except ImportError as error:
        return not_applied("raw-stream", error)
    needed = (
        *((server, name) for name in ("_raise_if_generation_error", "_response_model_name", "_metrics_result_from_status", "HTTPException")),
        *((EngineCore, name) for name in ("add_request", "stream_outputs")),
        *((Scheduler, name) for name in ("add_request", "_get_detokenizer")),
        (SimpleEngine, "_render_chat_prompt"),
        (mlx_lm, "stream_generate"),
    )
    if missing := [name for owner, name in needed if not hasattr(owner, name)]:
        return not_applied("raw-stream", f"{missing[0]} is missing")
    stream = getattr(server, "_stream_anthropic_messages", None)
    takes = ["engine", "openai_request", "anthropic_request", "prepared", "metrics_tracker"]
    if not inspect.isasyncgenfunction(stream) or list(inspect.signature(stream).parameters) != takes:
        return not_applied("raw-stream", "_stream_anthropic_messages is another function")
    raw = RawStream(server, stream, BatchedEngine, SimpleEngine)
    raw.watch_batches(EngineCore, Scheduler)
    raw.watch_simple_mode(mlx_lm, SimpleEngine)
    server._stream_anthropic_messages = raw.stream
    applied("raw-stream")
    return raw


class RawStream:
    def __init__(self, server, stream, batched, simple):
        self.server, self.streamed, self.batched, self.simple = server, stream, batched, simple
        self.replies = {}

    async def stream(self, engine, openai_request, anthropic_request, prepared, metrics_tracker=None):
        try:
            reply = self.reply(engine)
        except Exception as error:  # A tokenizer or an engine of another kind.
            say_of_replies(logging.WARNING, "a reply is streamed as the engine does it: %s: %s", type(error).__name__, error)
            reply = None
        if reply is None:
            frames = self.streamed(engine, openai_request, anthropic_request, prepared, metrics_tracker)
        else:
            frames = self.frames(reply, engine, anthropic_request, prepared, metrics_tracker)
        try:
            async for frame in frames:
                yield frame
        finally:
            await closed(frames)

    def reply(self, engine):
        """What a reply of this engine begins with. None if the tokens of its replies cannot be seen."""
        if isinstance(engine, self.batched):
            if getattr(engine, "is_mllm", False):
                return None
        elif isinstance(engine, self.simple):
            if getattr(engine, "is_mllm", False) and not watch_multimodal():
                return None
        else:
            return None
        tokenizer = engine.tokenizer
        return Reply(getattr(tokenizer, "tokenizer", tokenizer))

    async def frames(self, reply, engine, anthropic_request, prepared, metrics_tracker):
        server, started, result = self.server, time.perf_counter(), "success"
        yield frame(
            "message_start",
            message={
                "id": f"msg_{uuid.uuid4().hex[:24]}",
                "type": "message",
                "role": "assistant",
                "model": server._response_model_name(anthropic_request.model),
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {"input_tokens": 0, "output_tokens": 0},
            },
            as_generated={"vocabulary": reply.text.vocabulary},
        )
        outputs = None
        try:
            # The first step of the engine runs in this context, and says there what it reuses and what the prompt ends in.
            reply_now.set(reply)
            outputs = engine.stream_chat(messages=prepared.messages, **prepared.chat_kwargs)
            begun = False
            async for output in outputs:
                server._raise_if_generation_error(output)
                if metrics_tracker is not None:
                    metrics_tracker.observe_ttft()
                text, marks = reply.see(output)
                if text and not begun:
                    begun = True
                    yield reply.begin()
                if text:
                    yield reply.delta(text, marks)
            if not begun:
                yield reply.begin()
            yield frame("content_block_stop", index=0)
            yield reply.end()
            took = time.perf_counter() - started
            rate = reply.generated / took if took > 0 else 0
            server.logger.info(f"Anthropic messages (stream): {reply.generated} tokens in {took:.2f}s ({rate:.1f} tok/s)")
            yield frame("message_stop")
        except server.HTTPException as error:
            result = server._metrics_result_from_status(error.status_code)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            result = "cancelled"
            raise
        except Exception:
            result = "error"
            raise
        finally:
            if metrics_tracker is not None:
                metrics_tracker.finish(result=result, prompt_tokens=reply.prompt, completion_tokens=reply.generated)
            await closed(outputs)

    def watch_batches(self, core, scheduler):
        """Lets batched mode hand on the tokens of each reply that is streamed raw, and not make text of them itself."""
        add, add_to_schedule = core.add_request, scheduler.add_request
        outputs_of, detokenizer = core.stream_outputs, scheduler._get_detokenizer

        async def adding(core, prompt, sampling_params=None, request_id=None, *arguments, **options):
            reply = reply_now.get()
            if reply is None or reply.is_added:
                return await add(core, prompt, sampling_params, request_id, *arguments, **options)
            reply.is_added = True
            reply.see_prompt(prompt)
            request_id = request_id or str(uuid.uuid4())
            self.replies[request_id] = reply
            try:
                return await add(core, prompt, sampling_params, request_id, *arguments, **options)
            except BaseException:
                self.replies.pop(request_id, None)
                raise

        def scheduling(scheduler, request, *arguments, **options):
            reply = self.replies.get(request.request_id)
            if reply is not None:
                reply.request = request
            return add_to_schedule(scheduler, request, *arguments, **options)

        async def watched(core, request_id, *arguments, **options):
            outputs = outputs_of(core, request_id, *arguments, **options)
            try:
                async for output in outputs:
                    if request_id in self.replies:
                        tokens = list(output.new_token_ids)
                        stop = tokens.pop() if output.finish_reason == "stop" and tokens else None
                        output.new_text = Said(output.new_text, tokens, stop)
                    yield output
            finally:
                self.replies.pop(request_id, None)
                await closed(outputs)

        def without_text(scheduler, request_id):
            if request_id in self.replies:
                scheduler._detokenizer_pool[request_id] = NO_TEXT
            return detokenizer(scheduler, request_id)

        core.add_request, core.stream_outputs = adding, watched
        scheduler.add_request, scheduler._get_detokenizer = scheduling, without_text

    def watch_simple_mode(self, mlx_lm, simple):
        render = simple._render_chat_prompt

        def rendering(engine, *arguments, **options):
            rendered = render(engine, *arguments, **options)
            reply = reply_now.get()
            if reply is not None:
                reply.see_prompt(rendered[0])
            return rendered

        simple._render_chat_prompt = rendering
        # Others take it from the package at each use.
        mlx_lm.stream_generate = telling_tokens(mlx_lm.stream_generate, last_is_new=True)
        logging.getLogger("vllm_mlx.engine.simple").addFilter(reused_in_simple_mode)


class Reply:
    """One reply, as far as it has come."""

    def __init__(self, tokenizer):
        self.text = Detokenizer(tokenizer)
        self.prompt = self.reused = self.generated = 0
        self.prompt_tail = self.finished = self.stop = self.request = None
        self.is_added = self.has_tokens = False

    def see_prompt(self, prompt):
        if isinstance(prompt, str):
            self.prompt_tail = prompt[-PROMPT_TAIL:]
        else:
            self.prompt_tail = self.text.decode(list(prompt[-PROMPT_TAIL:]))[-PROMPT_TAIL:]

    def see(self, output):
        """What an output adds: text, and where in it real markers are."""
        if not self.prompt:
            self.prompt = getattr(output, "prompt_tokens", 0) or 0
            self.reused = getattr(self.request, "cached_tokens", 0) or self.reused
        # Empty text has its tokens, too.
        said = "" if (said := getattr(output, "new_text", None)) is None else said
        tokens = getattr(said, "tokens", None)
        if tokens is None:
            text, marks = self.text.pass_on(said)
            if not self.has_tokens:
                self.generated = getattr(output, "completion_tokens", 0) or self.generated
        else:
            if self.prompt_tail is None and said.prompt is not None:
                self.see_prompt(said.prompt)
            text, marks = self.text.push(tokens)
            self.has_tokens = True
            self.stop = said.stop if said.stop is not None else self.stop
            self.generated += len(tokens) + (said.stop is not None)
        if getattr(output, "finished", False):
            self.finished = output.finish_reason
            text += self.text.finish()
        return text, marks

    def begin(self):
        return frame("content_block_start", index=0, content_block={"type": "text", "text": ""}, prompt_tail=self.prompt_tail or "")

    def delta(self, text, marks):
        return frame("content_block_delta", index=0, delta={"type": "text_delta", "text": text}, **({"marks": marks} if marks else {}))

    def end(self):
        # Some routes say "stop" at their limit. A reply that stopped by itself has the token that it did so with.
        is_cut = self.finished == "length" or (self.finished == "stop" and self.has_tokens)
        is_cut = is_cut and self.stop is None
        reused = min(self.reused, self.prompt)
        usage = {"input_tokens": self.prompt - reused, "cache_read_input_tokens": reused, "output_tokens": self.generated}
        return frame(
            "message_delta",
            delta={"stop_reason": "max_tokens" if is_cut else "end_turn", "stop_sequence": None},
            usage=usage,
            stopped_by=None if self.stop is None else self.text.decode([self.stop]),
        )


class Detokenizer:
    """Text of tokens as they come, in time that grows with their number alone."""

    def __init__(self, tokenizer):
        self.decode = decoder(tokenizer)
        self.markers = markers_of(tokenizer)
        self.vocabulary = list(self.markers.values())
        # Tokens that are text already, which those after them are decoded with: a token's text can depend on the one before.
        self.context, self.shown = [], 0
        # Tokens that end in a part of a character, and how much of their text was handed on.
        self.pending, self.told = [], 0

    def push(self, tokens):
        text, marks, start = "", [], 0
        for place, token in enumerate(tokens):
            marker = self.markers.get(token)
            if marker is None:
                continue
            self.pending += tokens[start:place]
            text += self.finish()
            marks.append([len(text), marker])
            text += marker
            self.settle([token])
            start = place + 1
        self.pending += tokens[start:]
        return text + self.ready(len(self.pending) > LONGEST_PENDING), marks

    def finish(self):
        """What is left, be it whole characters or not."""
        return self.ready(True)

    def ready(self, all_of_it):
        if not self.pending:
            return ""
        text = self.decode(self.context + self.pending)[self.shown :]
        whole = text if all_of_it else text.rstrip("\ufffd")
        new = whole[self.told :]
        self.told = max(self.told, len(whole))
        if len(whole) == len(text):
            self.settle(self.pending)
        return new

    def settle(self, tokens):
        self.context, self.shown = tokens, len(self.decode(tokens))
        self.pending, self.told = [], 0

    def pass_on(self, text):
        """Text that came without its tokens. Its markers may be real ones."""
        before = self.finish() if text else ""
        marks = [[at, marker] for marker in self.vocabulary for at in places(text, marker)]
        return before + text, sorted([len(before) + at, marker] for at, marker in marks)


class Said(str):
    """Text with the tokens that it was made of. An engine hands on text alone, so they travel in it."""

    def __new__(cls, text, tokens, stop=None, prompt=None):
        said = super().__new__(cls, text)
        said.tokens, said.stop, said.prompt = tokens, stop, prompt
        return said


class NoText:
    """Stands in for the scheduler's own detokenizer, which decodes the whole line again for each token of it."""

    text = last_segment = ""

    def add_token(self, token):
        pass

    def finalize(self):
        pass


NO_TEXT = NoText()


def telling_tokens(generate, last_is_new):
    """A `stream_generate` of which each response has its token in its text. `last_is_new`: the last response brings a token, too, if the limit
    ends the reply."""

    def told(model, tokenizer, prompt, *arguments, **options):
        # Here, as arrays are of use to the thread alone that made them.
        first = prompt[-PROMPT_TAIL:]
        first = first.tolist() if hasattr(first, "tolist") else first
        for response in generate(model, tokenizer, prompt, *arguments, **options):
            token, reason = getattr(response, "token", None), getattr(response, "finish_reason", None)
            if token is not None and not getattr(response, "is_draft", False):
                token = int(token)
                tokens = [token] if reason is None or (reason == "length" and last_is_new) else []
                response.text = Said(response.text, tokens, token if reason == "stop" else None, first)
                first = None
            yield response

    return told


def watch_multimodal():
    """Whether the tokens of multimodal replies can be seen. Their route is imported with the first model that needs it."""
    module = sys.modules.get("vllm_mlx.models.mllm")
    outputs = getattr(module, "_stream_mllm_generated_outputs", None)
    if getattr(outputs, "tells_tokens", False):
        return True
    if outputs is None or "stream_generate_fn" not in inspect.signature(outputs).parameters:
        return False

    def watched(*, stream_generate_fn, **options):
        return outputs(stream_generate_fn=telling_tokens(stream_generate_fn, last_is_new=False), **options)

    watched.tells_tokens = True
    module._stream_mllm_generated_outputs = watched
    return True


def reused_in_simple_mode(record):
    """Simple mode tells its log alone. A filter that lets everything pass."""
    reply = reply_now.get()
    if reply is not None and isinstance(record.msg, str) and "cache HIT" in record.msg:
        try:
            reply.reused = max(reply.reused, int(record.args[0]))
        except (LookupError, TypeError, ValueError):
            pass
    return True


def decoder(tokenizer):
    """What makes text of tokens, with all that is in it."""
    try:
        tokenizer.decode([0], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    except (TypeError, ValueError):
        return tokenizer.decode
    return lambda tokens: tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def markers_of(tokenizer):
    """The markers that are one token each, by that token."""
    found = {}
    for marker in MARKERS:
        token = tokenizer.convert_tokens_to_ids(marker)
        if isinstance(token, int) and tokenizer.convert_ids_to_tokens(token) == marker:
            found[token] = marker
    return found


def places(text, words):
    at = text.find(words)
    while at >= 0:
        yield at
        at = text.find(words, at + len(words))


def frame(kind, **fields):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"


async def closed(generator):
    """Ends it now, and what it holds with it, rather than when it is collected."""
    if hasattr(generator, "aclose"):
        await generator.aclose()


def say_of_replies(level, text, *figures):
    logging.getLogger("vllm_mlx.server").log(level, "[raw_stream] " + text, *figures)
