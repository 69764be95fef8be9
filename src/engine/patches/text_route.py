"""The text part of a multimodal model, served by itself: part of what starts the engine, see `bootstrap.py`."""

import hashlib
import json
import os
from pathlib import Path

# Architectures of which mlx-lm knows the text part under the same name, and leaves the weights of the others unread.
WITH_A_TEXT_PART = {"gemma4": "Gemma4ForCausalLM", "qwen3_5": "Qwen3_5ForCausalLM", "qwen3_5_moe": "Qwen3_5MoeForCausalLM"}

# What names a part of a model that is not its text.
MEDIA = ("vision", "audio", "image", "video", "boi_", "eoi_", "boa_", "eoa_", "mm_")


def take_text_route():
    """Lets the engine serve the text part of a model that it has found or downloaded.

    The engine decides by the `config.json` of the model's folder whether a model is multimodal, and computes every turn of such a one anew.
    It is shown a folder of our own instead, below the one that `CCLOCAL_TEXT_ROUTE` names: links to the model's files, and its `config.json`
    without what is not text. The name that the model goes by stays. What is not as expected is left alone.
    """
    folders = os.environ.get("CCLOCAL_TEXT_ROUTE")
    if not folders:
        return not_wanted("text-route")
    try:
        from vllm_mlx.utils import download
    except ImportError as error:
        return not_applied("text-route", error)
    whole = getattr(download, "ensure_model_downloaded", None)
    if whole is None:
        return not_applied("text-route", "ensure_model_downloaded is missing")
    # Whether it applies is known with the model. It is asked for more than once.
    say = once(say_of_patch)

    def text_part(model_name, *arguments, **options):
        found = whole(model_name, *arguments, **options)
        reason = "the model has no text part of its own"
        try:
            folder = folder_of_links(Path(folders), str(model_name), Path(found))
        except (OSError, ValueError, TypeError) as error:
            folder, reason = None, error
        if folder is None:
            say("text-route", because(reason))
            return found
        say("text-route", "applied")
        return folder

    download.ensure_model_downloaded = text_part


def folder_of_links(folders, name, model):
    """The folder for this model, made or made anew. None if the model has no text part of its own."""
    config = text_config(json.loads(read_file(model / "config.json", LONGEST_CONFIG)))
    if config is None:
        return None
    folders.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = folders / folder_name(name, model)
    wanted = {entry.name: str(entry.absolute()) for entry in model.iterdir() if entry.is_file() and is_of_text(entry.name)}
    text = json.dumps(config, indent=1)
    if is_as_wanted(folder, wanted, text):
        return folder
    made = folders / f".{folder.name}.{os.getpid()}"
    clear(made)
    made.mkdir(mode=0o700)
    for link, target in wanted.items():
        (made / link).symlink_to(target)
    (made / "config.json").write_text(text)
    # Another engine may read the old folder now: it has its files open, and what it looks up later finds the new one in its place.
    clear(folder)
    try:
        made.rename(folder)
    except OSError:
        clear(made)  # Another engine was faster.
        if not is_as_wanted(folder, wanted, text):
            raise
    return folder


def folder_name(name, model):
    """As in the hub's cache; a folder elsewhere is told apart by its path."""
    if not Path(name).exists():
        return f"models--{name.replace('/', '--')}"
    path = str(model.resolve())
    return f"{model.resolve().name}--{hashlib.sha256(path.encode()).hexdigest()[:12]}"


def text_config(config):
    """The configuration without what is not text. None for a model that is text alone, or whose text part cannot be served by itself."""
    architecture = WITH_A_TEXT_PART.get(config.get("model_type"))
    media = [key for key in config if key.startswith(MEDIA)]
    if architecture is None or not media or not isinstance(config.get("text_config"), dict):
        return None
    rest = {key: value for key, value in config.items() if key not in media}
    return {**rest, "architectures": [architecture]}


def is_of_text(name):
    return name != "config.json" and not name.endswith("processor_config.json") and not name.startswith(".")


def is_as_wanted(folder, wanted, text):
    try:
        links = {entry.name: os.readlink(entry) for entry in folder.iterdir() if entry.name != "config.json"}
        return links == wanted and read_file(folder / "config.json", LONGEST_CONFIG).decode() == text
    except (OSError, UnicodeDecodeError):
        return False


def clear(folder):
    """Removes a folder of links, and nothing that they lead to."""
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        entry.unlink(missing_ok=True)
    folder.rmdir()


