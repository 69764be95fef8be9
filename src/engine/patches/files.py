"""Reading only what is a file and has an end: part of what starts the engine, see `bootstrap.py`.

A name below a model's folder can lead to a device that never ends, to a pipe that nobody writes to, or to a file of a terabyte.
"""

import os
import stat

# The longest `config.json`, in bytes. The longest list a quantization for each layer: some ten kilobytes. `files.rs` has the same.
LONGEST_CONFIG = 1 << 20

# The longest of the other files of a model that are no weights, in bytes. The longest tokenizers take 40 MB.
LONGEST_TEXT = 256 << 20

# The names of what is read whole, and of weights, which may have any length. Other files of a folder concern nobody. `hub/mod.rs` has the same.
TEXTS = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".jsonl", ".py")
WEIGHTS = (".safetensors", ".npz")


def open_file(path):
    """A regular file, links followed, open for reading. Raises `OSError` for anything else, and never waits for another program."""
    # Some devices do something when they are opened.
    be_a_file(path, os.stat(path))
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb")
    try:
        be_a_file(path, os.fstat(file.fileno()))
    except OSError:
        file.close()
        raise
    return file


def read_file(path, limit):
    """What is in a regular file of at most so many bytes. Raises `OSError` for anything else."""
    with open_file(path) as file:
        be_no_longer(path, os.fstat(file.fileno()).st_size, limit)
        read = file.read(limit + 1)
    be_no_longer(path, len(read), limit)
    return read


def be_a_file(path, status):
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path} is no regular file")


def be_no_longer(path, length, limit):
    if length > limit:
        raise OSError(f"{path} is longer than {limit} bytes")


def check_model_files():
    """Ends an engine whose model has something else than files, before it reads any of it."""
    try:
        from vllm_mlx.utils import download
    except ImportError as error:
        return not_applied("model-files", error)
    whole = getattr(download, "ensure_model_downloaded", None)
    if whole is None:
        return not_applied("model-files", "ensure_model_downloaded is missing")

    def checked(model_name, *arguments, **options):
        found = whole(model_name, *arguments, **options)
        with os.scandir(found) as entries:
            for entry in entries:
                check_model_file(entry)
        return found

    download.ensure_model_downloaded = checked
    applied("model-files")


def check_model_file(entry):
    if not entry.name.endswith(TEXTS + WEIGHTS):
        return
    try:
        status = entry.stat()
    except OSError:
        return  # A link that leads nowhere. Whoever needs it will say so.
    if stat.S_ISDIR(status.st_mode):
        return
    be_a_file(entry.path, status)
    if entry.name.endswith(TEXTS):
        be_no_longer(entry.path, status.st_size, LONGEST_CONFIG if entry.name == "config.json" else LONGEST_TEXT)


