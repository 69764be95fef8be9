"""Downloads that go on where they stopped: part of what starts the engine, see `bootstrap.py`."""

import hashlib
import inspect


def resume_downloads():
    """Lets huggingface_hub keep what it has of a file when it is interrupted, and go on from there the next time.

    huggingface_hub 2.x gives every attempt a file of its own name and starts it anew; a model's weights are fetched side by side, so an
    interrupted download would lose nearly all of it. What an attempt downloads by the Xet protocol cannot be resumed at all, so files
    come by plain HTTP. Versions before resume by themselves and are left alone.
    """
    try:
        from huggingface_hub import file_download as hub
    except ImportError:
        return  # The engine's own start will say what is wrong.
    try:
        anew = hub._download_to_tmp_and_move
        if "uuid" not in inspect.getsource(anew) or "resume_size" not in inspect.signature(hub.http_get).parameters:
            return
    except (AttributeError, OSError, TypeError):
        return

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
        if force_download:
            incomplete_path.unlink(missing_ok=True)
        incomplete_path.touch()
        with incomplete_path.open("r+b") as file:
            there = file.seek(0, 2)
            if expected_size is not None:
                if there > expected_size:
                    there = file.truncate(0)
                    file.seek(0)
                hub._check_disk_space(expected_size - there, incomplete_path.parent)
            hub.http_get(
                url_to_download,
                file,
                resume_size=there,
                headers=headers,
                expected_size=expected_size,
                tqdm_class=tqdm_class,
            )
        # The etag of a large file is its SHA-256. What was put together from two attempts is looked at as a whole.
        if there and etag and len(etag) == 64 and digest(incomplete_path) != etag:
            incomplete_path.unlink()
            raise OSError(f"{filename}: what was downloaded is damaged and was removed; run it again")
        hub._chmod_and_move(incomplete_path, destination_path)

    if list(inspect.signature(anew).parameters) == list(inspect.signature(resumed).parameters):
        hub._download_to_tmp_and_move = resumed


def digest(path):
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


