"""Earlier calls and their results as the model's own template writes them: part of what starts the engine, see `bootstrap.py`."""

import collections
import hashlib
import inspect
import itertools
import logging
import sys

# How a conversation may have to be adapted to its template. Where several serve equally well, the first is taken, and as few as possible.
ADAPTATIONS = {
    "ids": "ids of nine characters",
    "split": "one call a message",
    "inside": "results inside the message of their calls",
    "apart": "text in a message before its calls",
    "fold": "words behind results in the last of them",
}

# What a probe is told with. None of it means anything to a template.
PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": "read_probe",
        "description": "Reads",
        "parameters": {
            "type": "object",
            "properties": {"path": {"type": "string", "description": "Path"}, "count": {"type": "integer", "description": "Count"}},
            "required": ["path"],
        },
    },
}


def write_history():
    """Lets each model's template have earlier calls as `tool_calls`, with arguments as objects, and their results as messages of tools.

    vllm-mlx 0.6.0 does so where the parser of calls says that it can, and else writes both as text: results as words of the user. Models take that
    for a form of theirs and imitate it. Here the template decides. It is shown a few conversations once, and what it does with them tells how
    it wants them: some raise for ids of other lengths, or for two calls in a message; some know results by another name alone; some write the
    text beside a call behind the results. A template that has no place for calls gets them as text, as before. One that makes no prompt at all
    ends the start: no request could be answered.
    """
    try:
        from vllm_mlx import server
        from vllm_mlx.engine.batched import BatchedEngine
        from vllm_mlx.engine.chat_template_safety import normalize_messages_for_chat_template
        from vllm_mlx.engine.simple import SimpleEngine
    except ImportError as error:
        return not_applied("native-history", error)
    prepare = getattr(server, "_prepare_chat_messages", None)
    if prepare is None or list(inspect.signature(prepare).parameters) != ["engine", "request_messages"]:
        return not_applied("native-history", "_prepare_chat_messages is another function")
    histories = Histories(server, normalize_messages_for_chat_template)

    def prepared(engine, request_messages):
        if getattr(engine, "use_harmony_rendering", False):
            return prepare(engine, request_messages)
        history = histories.of(engine)
        engine.preserve_native_tool_format = history is not None
        messages, *rest = prepare(engine, request_messages)
        return (messages if history is None else history.adapted(messages), *rest)

    def probing(start):
        async def started(engine, *arguments, **options):
            result = await start(engine, *arguments, **options)
            if histories.of(engine) is None:
                histories.check(engine)
            return result

        return started

    server._prepare_chat_messages = prepared
    for engine in (BatchedEngine, SimpleEngine):
        engine.start = probing(engine.start)
    return histories


class Histories:
    """What the template of each engine wants. There is one engine."""

    def __init__(self, server, normalized):
        self.server, self.normalized = server, normalized

    def of(self, engine):
        """The way for this engine's template. None if it has no place for calls."""
        if not hasattr(engine, "cclocal_history"):
            try:
                render = self.renderer(engine)
                engine.cclocal_history = best_history(render)
                reason = "the chat template has no place for tool calls" + ("" if engine.cclocal_history else why_not(render))
            except Exception as error:
                engine.cclocal_history, reason = None, f"{type(error).__name__}: {error}"
            if engine.cclocal_history is None:
                not_applied("native-history", reason)
            else:
                applied("native-history")
                logging.getLogger("vllm_mlx.server").info("[history] calls and results as the template has them: %s", engine.cclocal_history)
            if getattr(engine, "is_mllm", False):
                keep_what_messages_have()
        return engine.cclocal_history

    def check(self, engine):
        """Ends the start of an engine whose template makes no prompt of any conversation. Read by `exit_reason.rs`."""
        # These make their prompts in other ways.
        if getattr(engine, "use_harmony_rendering", False) or getattr(engine, "is_mllm", False):
            return
        try:
            render = self.renderer(engine)
        except Exception:
            return
        if reason := unusable(render):
            raise RuntimeError(f"the model's chat template cannot be used: {reason}")

    def renderer(self, engine):
        template = getattr(engine, "_text_tokenizer", None) or engine.tokenizer
        options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False, **(self.server._default_chat_template_kwargs or {})}

        def render(messages):
            messages = self.normalized(messages)
            try:
                return template.apply_chat_template(messages, tools=[PROBE_TOOL], **options)
            except TypeError:  # Of options that it does not take.
                return template.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

        return render


class History:
    """A way to write calls and results."""

    def __init__(self, adaptations=()):
        self.adaptations = frozenset(adaptations)

    def __str__(self):
        return ", ".join(words for name, words in ADAPTATIONS.items() if name in self.adaptations) or "as they are"

    def adapted(self, messages):
        """The conversation in this way. Each message depends on those before it and on what answers it alone, so that a prompt only grows."""
        written, rest = [], collections.deque(messages)
        while rest:
            message = rest.popleft()
            calls = message.get("tool_calls") if message.get("role") == "assistant" else None
            if message.get("role") == "tool":
                self.say(written, as_text(message))
            elif calls:
                results = []
                while rest and rest[0].get("role") == "tool":
                    results.append(rest.popleft())
                # In the order of the calls: many templates have no other way to tell which is whose.
                order = {call.get("id"): number for number, call in enumerate(calls)}
                results.sort(key=lambda result: order.get(result.get("tool_call_id"), len(order)))
                if "fold" in self.adaptations and results and rest and rest[0].get("role") == "user" and is_text(rest[0], results[-1]):
                    results[-1] = {**results[-1], "content": f"{results[-1]['content']}\n\n{rest.popleft()['content']}"}
                self.exchange(written, message, calls, results)
            else:
                self.say(written, dict(message))
        return written

    def say(self, written, message):
        """Adds a message without calls. Where results are inside a message, what the model says then is, too."""
        last = written[-1] if written else {}
        if message.get("role") == "assistant" and last.get("tool_responses") and not last.get("content") and message.get("content"):
            last["content"] = message["content"]
        else:
            written.append(message)

    def exchange(self, written, message, calls, results):
        """Adds calls and their results."""
        if "apart" in self.adaptations and message.get("content"):
            self.say(written, {"role": "assistant", "content": message["content"]})
            message = {**message, "content": ""}
        known = {call.get("id"): call for call in calls}
        for group in [[call] for call in calls] if "split" in self.adaptations else [calls]:
            own = [result for call in group for result in results if result.get("tool_call_id") == call.get("id")]
            named = [(known[result["tool_call_id"]]["function"]["name"], result) for result in own]
            asked = {**message, "tool_calls": [{**call, "id": self.identity(call.get("id"))} for call in group]}
            written.append(asked)
            if "inside" in self.adaptations:
                if named:
                    asked["tool_responses"] = [{"name": name, "response": result.get("content")} for name, result in named]
            else:
                written += [{**result, "tool_call_id": self.identity(result["tool_call_id"]), "name": name} for name, result in named]
            message = {**message, "content": ""}
        for result in results:
            if result.get("tool_call_id") not in known:
                self.say(written, as_text(result))

    def identity(self, name):
        if "ids" not in self.adaptations:
            return name
        return hashlib.sha256(str(name).encode()).hexdigest()[:9]


def as_text(result):
    """A result whose call is not there, as the engine writes it for templates that know none."""
    return {"role": "user", "content": f"[Tool Result ({result.get('tool_call_id') or ''})]: {result.get('content') or ''}"}


def is_text(*messages):
    return all(isinstance(message.get("content"), str) for message in messages)


def best_history(render):
    """The way that this template does most with. None if it has no place for calls and their results."""
    best, most = None, None
    for number in range(len(ADAPTATIONS) + 1):
        for adaptations in itertools.combinations(ADAPTATIONS, number):
            history = History(adaptations)
            worth = worth_of(history, render)
            if worth is not None and (most is None or worth > most):
                best, most = history, worth
            if most is not None and all(most):
                return best
    return best


def worth_of(history, render):
    """What comes of the probes, the most important first. None if calls or results are missing, or if the template raises."""
    ordered = True
    try:
        for messages, orders in probes():
            text = render(history.adapted(messages))
            for order in orders:
                places = [text.find(word) for word in order]
                # Some leave out the text beside a call, as they were trained. In messages of its own it would end turns before the call.
                if any(place < 0 for word, place in zip(order, places) if not word.startswith("said")):
                    return None
                found = [place for place in places if place >= 0]
                ordered = ordered and found == sorted(found)
        knows_results = "inside" in history.adaptations or not is_like_any_role(history, render)
    except Exception:
        return None
    return knows_results, ordered


def why_not(render):
    """What a template raises for calls as they are, if it does."""
    for messages, _ in probes():
        try:
            render(History().adapted(messages))
        except Exception as error:
            return f": {type(error).__name__}: {error}"
    return ""


def unusable(render):
    """Why a template makes no prompt, if it makes none of the simplest conversations."""
    asked = {"role": "user", "content": "ask"}
    for messages in ([{"role": "system", "content": "be"}, asked], [{"role": "user", "content": [{"type": "text", "text": "ask"}]}], [asked]):
        try:
            render(messages)
            return None
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
    return reason


def is_like_any_role(history, render):
    """Whether a tool's message is to this template a turn of somebody that it does not know."""
    messages, _ = probes()[0]
    told = history.adapted(messages[:3])
    other = [{**message, "role": "otherrole"} if message["role"] == "tool" else message for message in told]
    try:
        return render(told) == render(other).replace("otherrole", "tool")
    except Exception:
        return False


def probes():
    """Conversations, and words in them that come in an order."""

    def user(text):
        return {"role": "user", "content": text}

    def said(text, *calls):
        made = [
            {"id": f"toolu_01{name}ABCDEFGHIJ", "type": "function", "function": {"name": "read_probe", "arguments": {"path": f"arg{name}", "count": 3}}}
            for name in calls
        ]
        return {"role": "assistant", "content": text, **({"tool_calls": made} if made else {})}

    def result(name):
        return {"role": "tool", "tool_call_id": f"toolu_01{name}ABCDEFGHIJ", "content": f"result{name}"}

    return (
        (
            [user("askone"), said("saidone", "one"), result("one"), said("saidtwo", "two"), result("two"), said("saidthree"), user("asktwo")],
            ["askone saidone argone resultone saidtwo argtwo resulttwo saidthree asktwo".split()],
        ),
        (
            [user("askone"), said("", "one", "two"), result("one"), result("two"), said("saidone"), user("asktwo")],
            ["askone argone argtwo resulttwo saidone asktwo".split(), "argone resultone resulttwo".split()],
        ),
        (
            [user("askone"), said("", "one"), result("one"), user("asktwo"), said("saidone"), user("askthree")],
            ["askone argone resultone asktwo saidone askthree".split()],
        ),
    )


def keep_what_messages_have():
    """Lets a conversation with pictures keep the names of tools and the results inside a message, which its route leaves out."""
    module = sys.modules.get("vllm_mlx.models.mllm")
    build = getattr(module, "_build_mllm_chat_messages", None)
    if build is None or getattr(build, "keeps_all", False):
        return

    def built(messages, *, all_image_urls, video_frame_counts):
        made = []
        for number, message in enumerate(messages):
            frames = {0: video_frame_counts[number]} if number in video_frame_counts else {}
            for one in build([message], all_image_urls=all_image_urls, video_frame_counts=frames):
                made.append({**one, **{key: message[key] for key in ("name", "tool_responses") if key in message}})
        return made

    built.keeps_all = True
    module._build_mllm_chat_messages = built
