"""What stands before a conversation, kept for the next engine: part of what starts the engine, see `bootstrap.py`."""

import collections
import hashlib
import importlib.metadata
import json
import logging
import os
import struct
import threading
import time
from pathlib import Path

# How many are kept of one model: a session on a terminal, one of `-p`, their subagents, and those of the client's version before.
KEPT_FILES = 8

# How much all models may have kept, in bytes.
KEPT_BYTES = 4 << 30

# What the disk has to have left beside what is written, in bytes.
KEPT_SPARE = 1 << 30

# How long a turn may wait for what it needs to be written, in seconds: computing it again takes longer.
LONGEST_WRITING = 10

# What is shorter is computed again sooner than it is worth a file, in tokens.
LEAST_KEPT = 1024

# How many fronts, and how many prompts, are remembered between their template and their schedule.
KEPT_IN_MIND = 8

# First messages that begin in different ways, so that no token of what stands before depends on what follows.
PROBES = ("0", "A", "\n\n0", "  0", "<0>")

# As safetensors names them. Python has no numbers of 16 bits with the range of 32.
KEPT_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "uint32": "U32", "int32": "I32", "uint8": "U8", "int8": "I8", "bool": "BOOL"}

kept_log = logging.getLogger("vllm_mlx.scheduler")


def keep_prefixes():
    """Keeps what the model computed of the system prompt and the tools on the disk, and lets a first turn begin with it.

    The prefix cache of vllm-mlx ends with the engine, and of a cache that cannot be cut back no second conversation has a use. But all sessions
    of one version of the client begin with the same system prompt and the same tools. Where they end, the prefill pauses, what was computed
    so far is taken out and written in the background, into the folder that `CCLOCAL_KEPT_PREFIX` names: nothing of the first message or of what
    follows. A prompt that the prefix cache knows less of begins with what is kept. An engine whose insides are not as expected is left alone,
    and whatever goes wrong with a file, the turn is computed without it.
    """
    folders = os.environ.get("CCLOCAL_KEPT_PREFIX")
    if not folders:
        return not_wanted("kept-prefix")
    try:
        import mlx.core as mx
        from mlx_lm.generate import PromptProcessingBatch
        from mlx_lm.models.cache import make_prompt_cache
        from vllm_mlx.engine.batched import BatchedEngine
        from vllm_mlx.memory_cache import MemoryAwarePrefixCache
        from vllm_mlx.scheduler import Scheduler
        from vllm_mlx.utils import download
    except ImportError as error:
        return not_applied("kept-prefix", error)
    needed = (
        (BatchedEngine, "_apply_chat_template"),
        (PromptProcessingBatch, "prompt"),
        (PromptProcessingBatch, "extract_cache"),
        (MemoryAwarePrefixCache, "fetch"),
        (Scheduler, "add_request"),
        (Scheduler, "_schedule_waiting"),
        (Scheduler, "_cache_coverage"),
        (Scheduler, "_bounded_kv_size"),
        (download, "ensure_model_downloaded"),
    )
    if missing := [name for owner, name in needed if not hasattr(owner, name)]:
        return not_applied("kept-prefix", f"{missing[0]} is missing")
    kept = KeptPrefixes(mx, make_prompt_cache, Path(folders))
    kept.watch_model(download)
    kept.watch_templates(BatchedEngine)
    kept.watch_requests(Scheduler, MemoryAwarePrefixCache)
    pause_prefills(PromptProcessingBatch, kept.planned, kept.reached)
    applied("kept-prefix")
    return kept


class KeptPrefixes:
    def __init__(self, mx, make_layers, folders):
        self.mx, self.make_layers, self.folders = mx, make_layers, folders
        self.files = None
        self.fronts = collections.OrderedDict()
        self.prompts = collections.OrderedDict()
        self.adding = None
        self.planned = {}
        self.writer = self.writing = None

    def watch_model(self, download):
        """Learns which model is served. The engine asks for it before it does anything else; what it asks for later is the same one."""
        whole = download.ensure_model_downloaded

        def watched(model_name, *arguments, **options):
            found = whole(model_name, *arguments, **options)
            try:
                if self.files is None:
                    folder = self.folders / folder_name(str(model_name), Path(str(model_name)))
                    self.files = KeptFiles(self.folders, folder, identity_of(Path(found)))
                    self.files.tidy()
            except (OSError, ValueError, importlib.metadata.PackageNotFoundError) as error:
                kept_log.warning("[kept_prefix] nothing is kept: %s", error)
            return found

        download.ensure_model_downloaded = watched

    def watch_templates(self, engine):
        """Learns of each prompt where its first message begins."""
        apply = engine._apply_chat_template

        def watched(engine, messages, *arguments, **options):
            prompt = apply(engine, messages, *arguments, **options)
            try:
                front = next((front for front in self.fronts if prompt.startswith(front)), None)
                if front is None:
                    system = messages[:1] if messages[0].get("role") == "system" else []
                    probes = [apply(engine, [*system, {"role": "user", "content": probe}], *arguments, **options) for probe in PROBES]
                    front = os.path.commonprefix([prompt, *probes])
                    remember(self.fronts, front, Front(probes))
                remember(self.prompts, prompt, self.fronts[front])
            except Exception:  # A template that does not take such messages: nothing is kept of its prompts.
                pass
            return prompt

        engine._apply_chat_template = watched

    def watch_requests(self, scheduler, memory):
        add, schedule, fetch = scheduler.add_request, scheduler._schedule_waiting, memory.fetch

        def adding(scheduler, request):
            self.adding = (scheduler, request)
            try:
                return add(scheduler, request)
            finally:
                self.adding = None

        def fetching(memory, tokens):
            found, remaining = fetch(memory, tokens)
            if self.adding is None or self.files is None or not tokens:
                return found, remaining
            # The scheduler computes anew what the cache has all of.
            known = len(tokens) - len(remaining) if found and remaining else 0
            try:
                kept = self.begin(*self.adding, tokens, known)
            except Exception as error:  # A turn that begins with nothing is only slower.
                kept_log.warning("[kept_prefix] not looked for: %s: %s", type(error).__name__, error)
                kept = None
            if kept is None:
                return found, remaining
            memory._last_match_type, memory._last_matched_key = "prefix", None
            return kept

        def scheduling(scheduler):
            scheduled = schedule(scheduler)
            for request in scheduled:
                self.plan(scheduler, request)
            return scheduled

        scheduler.add_request = adding
        scheduler._schedule_waiting = scheduling
        memory.fetch = fetching

    def begin(self, scheduler, request, tokens, known):
        """The layers that a prompt can begin with and the tokens that remain, if more of it is kept than is known."""
        front = self.prompts.get(request.prompt) if isinstance(request.prompt, str) else None
        if front is None or scheduler._bounded_kv_size() is not None:
            return None
        request.cclocal_front = front.tokens(scheduler.tokenizer, tokens)
        if known >= len(request.cclocal_front):
            return None
        # What an engine is asked before the first question is written while that question waits.
        if self.writer is not None and self.writing == request.cclocal_front:
            self.writer.join(LONGEST_WRITING)
        best, shared = self.files.best(tokens)
        if best is None or shared <= known:
            return None
        started = time.monotonic()
        try:
            layers = self.layers(best, scheduler.model, shared)
        except Exception as error:
            kept_log.warning("[kept_prefix] not read, and removed: %s: %s", type(error).__name__, error)
            self.files.remove(best)
            return None
        self.files.used(best)
        kept_log.info("[kept_prefix] read tokens=%d of prompt_tokens=%d bytes=%d time=%.3fs", shared, len(tokens), best.bytes, time.monotonic() - started)
        return layers, tokens[shared:]

    def layers(self, kept, model, shared):
        """Layers as a model makes them, with what is kept in them: of a cache that can be cut back, as many tokens as are asked for."""
        arrays = self.mx.load(str(kept.path))
        layers = self.make_layers(model)
        if [type(layer).__name__ for layer in layers] != [layer["class"] for layer in kept.layers]:
            raise ValueError("the model has other layers")
        for layer, told in zip(layers, kept.layers):
            state = unpacked(told["state"], arrays)
            if shared < len(kept.tokens):
                state = [part[..., :shared, :] for part in state]
            layer.state = state
            layer.meta_state = told["meta"]
        # Here and now: another thread could not compute what this one began.
        self.mx.eval([layer.state for layer in layers])
        return layers

    def plan(self, scheduler, request):
        """Lets the prefill pause where the first message begins, if what stands before it is computed now and not kept yet."""
        self.planned.clear()
        front = getattr(request, "cclocal_front", ())
        computed = len(front) - (request.cached_tokens or 0)
        if len(front) >= LEAST_KEPT and computed > 0 and not self.files.has(front):
            self.planned[request.batch_uid] = FrontEnd(scheduler, front, computed)

    def reached(self, batch, pause):
        try:
            self.keep(batch, pause)
        except Exception as error:  # The next engine computes it again.
            kept_log.warning("[kept_prefix] not kept: %s: %s", type(error).__name__, error)

    def keep(self, batch, pause):
        if self.writer is not None and self.writer.is_alive():
            return  # One at a time: each holds its arrays until they are written.
        layers = batch.extract_cache(0)
        if pause.scheduler._cache_coverage(layers) != len(pause.front):
            return
        arrays = []
        told = [{"class": type(layer).__name__, "state": packed(layer.state, arrays), "meta": layer.meta_state} for layer in layers]
        types = [KEPT_TYPES[str(array.dtype).rsplit(".", 1)[-1]] for array in arrays]
        shapes = [list(array.shape) for array in arrays]
        arrays = [self.mx.contiguous(array.view(self.mx.uint16) if kind == "BF16" else array) for array, kind in zip(arrays, types)]
        self.mx.eval(arrays)
        if sum(array.nbytes for array in arrays) > KEPT_BYTES // 2:
            return
        self.writing = pause.front
        self.writer = threading.Thread(target=self.files.write, args=(pause.front, told, types, shapes, arrays), daemon=True)
        self.writer.start()


class Front:
    """What stands before the first message, as prompts that go on in different ways."""

    def __init__(self, probes):
        self.probes, self.common = probes, None

    def tokens(self, tokenizer, prompt):
        """The tokens that are the same whatever follows, if this prompt begins with them."""
        if self.common is None:
            encode = getattr(tokenizer, "encode", None) or tokenizer.tokenizer.encode
            self.common, self.probes = tuple(os.path.commonprefix([list(encode(probe)) for probe in self.probes])), None
        return self.common if tuple(prompt[: len(self.common)]) == self.common else ()


class FrontEnd(Pause):
    """Where the first message begins."""

    def __init__(self, scheduler, front, left):
        super().__init__(left)
        self.scheduler, self.front = scheduler, front


class Kept:
    """A file as its header describes it."""

    def __init__(self, path):
        self.path = path
        with open_file(path) as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > 64 << 20:
                raise ValueError("no header")
            header = json.loads(file.read(length))
            self.bytes = os.fstat(file.fileno()).st_size
        told = header.pop("__metadata__")
        if self.bytes != 8 + length + max(tensor["data_offsets"][1] for tensor in header.values()):
            raise ValueError("it is cut")
        self.model, self.tokens, self.layers = told["model"], json.loads(told["tokens"]), json.loads(told["layers"])
        self.can_be_cut = all(layer["class"] == "KVCache" for layer in self.layers)


class KeptFiles:
    """The files of one model, all for this user alone. What is there is read again at each use: another engine may write, too."""

    def __init__(self, folders, folder, model):
        self.folders, self.folder, self.model = folders, folder, model
        self.known = {}

    def all(self):
        found = {}
        try:
            names = [entry.name for entry in os.scandir(self.folder) if entry.name.endswith(".safetensors") and not entry.name.startswith(".")]
        except OSError:
            names = []
        for name in names:
            kept = self.known.get(name)
            try:
                if kept is None:
                    kept = Kept(self.folder / name)
                    if kept.model != self.model:
                        raise ValueError("it is of another model or engine")
                found[name] = kept
            except FileNotFoundError:
                continue
            except Exception:  # Whatever it is, it is of no use to this engine.
                removed(self.folder / name)
        self.known = found
        return found.values()

    def best(self, tokens):
        """The file with most of these tokens, and how many it has. One token at least remains to be computed."""
        best, most = None, 0
        for kept in self.all():
            shared = len(os.path.commonprefix([kept.tokens, tokens[:-1]]))
            whole = shared == len(kept.tokens)
            if shared > most and (whole or (kept.can_be_cut and shared >= LEAST_KEPT)):
                best, most = kept, shared
        return best, most

    def has(self, tokens):
        return any(tuple(kept.tokens) == tokens for kept in self.all())

    def used(self, kept):
        try:
            os.utime(kept.path)
        except OSError:
            pass  # It may go sooner than it should.

    def remove(self, kept):
        self.known.pop(kept.path.name, None)
        removed(kept.path)

    def write(self, front, layers, types, shapes, arrays):
        """Runs in the background. An engine that ends does not wait for it; what it leaves then goes at the next start."""
        key = hashlib.sha256(json.dumps([front, self.model, layers]).encode()).hexdigest()
        unfinished = self.folder / f".{key}.{os.getpid()}"
        try:
            started = time.monotonic()
            for folder in (self.folders, self.folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
            header, end = {}, 0
            for number, (array, kind, shape) in enumerate(zip(arrays, types, shapes)):
                header[str(number)] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + array.nbytes]}
                end += array.nbytes
            header["__metadata__"] = {"model": self.model, "tokens": json.dumps(front), "layers": json.dumps(layers)}
            header = json.dumps(header).encode()
            header += b" " * (-len(header) % 8)
            disk = os.statvfs(self.folder)
            if disk.f_bavail * disk.f_frsize < end + KEPT_SPARE:
                raise OSError("the disk is nearly full")
            file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(file, "wb") as file:
                file.write(struct.pack("<Q", len(header)) + header)
                while arrays:
                    file.write(memoryview(arrays.pop(0)))
                file.flush()
                os.fsync(file.fileno())
            os.rename(unfinished, self.folder / f"{key}.safetensors")
            self.bound()
            kept_log.info("[kept_prefix] written tokens=%d bytes=%d time=%.3fs", len(front), end, time.monotonic() - started)
        except Exception as error:
            removed(unfinished)
            kept_log.warning("[kept_prefix] not kept: %s: %s", type(error).__name__, error)

    def tidy(self):
        """Removes what engines left that ended while they wrote, and what is of no use to this one."""
        self.all()
        for entry in os.scandir(self.folder) if self.folder.is_dir() else ():
            if entry.name.startswith(".") and not is_running(entry.name.rsplit(".", 1)[-1]):
                removed(Path(entry.path))

    def bound(self):
        """What was not used for the longest time goes first."""
        for path in by_use(self.folder.glob("*.safetensors"))[KEPT_FILES:]:
            removed(path)
        total = 0
        for path in by_use(self.folders.glob("*/*.safetensors")):
            total += path.stat().st_size
            if total > KEPT_BYTES:
                removed(path)


def identity_of(model):
    """What makes a prefix that was computed by another engine one of this engine's own: the weights, and what computes with them."""
    versions = [importlib.metadata.version(package) for package in ("vllm-mlx", "mlx", "mlx-lm")]
    weights = []
    for entry in sorted(model.iterdir()):
        if entry.name == "config.json":
            weights.append(hashlib.sha256(read_file(entry, LONGEST_CONFIG)).hexdigest())
        elif entry.suffix in (".safetensors", ".npz"):
            file = entry.stat()
            weights.append([entry.name, str(entry.resolve()), file.st_size, file.st_mtime_ns])
    return hashlib.sha256(json.dumps([versions, weights]).encode()).hexdigest()


def packed(state, arrays):
    """The state of a layer with numbers in place of its arrays, which are added to `arrays`."""
    if state is None:
        return None
    if isinstance(state, (list, tuple)):
        return [packed(part, arrays) for part in state]
    arrays.append(state)
    return len(arrays) - 1


def unpacked(state, arrays):
    if isinstance(state, list):
        return [unpacked(part, arrays) for part in state]
    return None if state is None else arrays[str(state)]


def remember(those, key, value):
    those[key] = value
    those.move_to_end(key)
    while len(those) > KEPT_IN_MIND:
        those.popitem(last=False)


def by_use(paths):
    """The newest first."""
    return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)


def is_running(pid):
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:
        pass
    return True


def removed(path):
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # It is looked at again at the next start.


