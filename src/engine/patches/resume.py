"""Downloads that go on where they stopped: part of what starts the engine, see `bootstrap.py`."""

import contextlib
import fcntl
import hashlib
import inspect
import os

# Bytes that are written at a time. The library's own 10 MB take a slow line longer than the stall limit: at 40 kB/s, and eight files are
# fetched side by side.
CHUNK = 256 * 1024


def resume_downloads():
    """Lets huggingface_hub keep what it has of a file when it is interrupted, and go on from there the next time.

    huggingface_hub 2.x gives every attempt a file of its own name and starts it anew; a model's weights are fetched side by side, so an
    interrupted download would lose nearly all of it. What an attempt downloads by the Xet protocol cannot be resumed at all, so files
    come by plain HTTP. Versions before resume by themselves and are left alone.
    """
    try:
        from huggingface_hub import constants
        from huggingface_hub import file_download as hub
    except ImportError as error:
        return not_applied("resume", error)
    if hasattr(constants, "DOWNLOAD_CHUNK_SIZE"):
        constants.DOWNLOAD_CHUNK_SIZE = CHUNK
    # A model's files stand in its own folder, not in the store that models share: what is there of it is then what was downloaded.
    if hasattr(constants, "HF_HUB_DISABLE_SHARED_BLOBS"):
        constants.HF_HUB_DISABLE_SHARED_BLOBS = True
    try:
        anew = hub._download_to_tmp_and_move
        if "uuid" not in inspect.getsource(anew) or "resume_size" not in inspect.signature(hub.http_get).parameters:
            return not_applied("resume", "this version resumes by itself")
    except (AttributeError, OSError, TypeError) as error:
        return not_applied("resume", error)

    def resumed(
        incomplete_path,
        destination_path,
        url_to_download,
        headers,
        expected_size,
        filename,
        force_download,
        etag,
        xet_file_data,
        tqdm_class=None,
    ):
        if destination_path.exists() and not force_download:
            return
        with contextlib.ExitStack() as stack:
            file = None
            # The hub serves bigger files by Xet alone.
            if (expected_size or 0) <= getattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", float("inf")):
                file = alone(incomplete_path, stack)
            if file is None:
                return anew(
                    incomplete_path,
                    destination_path,
                    url_to_download,
                    headers,
                    expected_size,
                    filename,
                    force_download,
                    etag,
                    xet_file_data,
                    tqdm_class,
                )
            # Whoever had it before may have finished it.
            if destination_path.exists() and not force_download:
                incomplete_path.unlink()
                return
            there = file.seek(0, 2)
            if force_download or (expected_size is not None and there > expected_size):
                there = file.truncate(0)
                file.seek(0)
            if expected_size is not None:
                hub._check_disk_space(expected_size - there, incomplete_path.parent)
            hub.http_get(
                url_to_download,
                file,
                resume_size=there,
                headers=headers,
                expected_size=expected_size,
                tqdm_class=tqdm_class,
            )
            file.flush()
            # The etag of a large file is its SHA-256. What was put together from two attempts is looked at as a whole.
            if there and etag and len(etag) == 64 and digest(incomplete_path) != etag:
                incomplete_path.unlink()
                raise OSError(f"{filename}: what was downloaded is damaged and was removed; run it again")
            hub._chmod_and_move(incomplete_path, destination_path)

    if list(inspect.signature(anew).parameters) != list(inspect.signature(resumed).parameters):
        return not_applied("resume", "_download_to_tmp_and_move is another function")
    hub._download_to_tmp_and_move = resumed
    applied("resume")


def alone(path, stack):
    """The partial file, opened and locked until the stack ends: two that write to one file would spoil it. The second waits for the first.

    None where a lock keeps nobody out, as on some network file systems.
    """
    while True:
        file = stack.enter_context(os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666), "r+b"))
        try:
            be_a_file(path, os.fstat(file.fileno()))
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever had it may have finished it or thrown it away: then this is a file that nobody will find.
            if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                return file if keeps_out(path) else None
        except FileNotFoundError:
            pass
        except OSError:
            return None
        file.close()


def keeps_out(path):
    """Whether a second one does not get the lock."""
    with path.open("r+b") as second:
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def digest(path):
    hasher = hashlib.sha256()
    with open_file(path) as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


