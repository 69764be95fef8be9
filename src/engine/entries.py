"""Entries of the prefix cache that are dropped give their memory back at once: part of what starts the engine, see `bootstrap.py`."""


def free_dropped_entries():
    """vllm-mlx 0.6.0 keeps a list of a new entry's arrays in a function that refers to itself. Python frees such a circle only when it looks
    for circles, and with as many objects as an engine has it seldom looks for old ones: conversations that were dropped long ago stay in the
    GPU's memory. Here the list is ours, and emptied. An engine whose insides are not as expected is left alone.
    """
    import inspect

    try:
        import mlx.core as mx
        from vllm_mlx import memory_cache
    except ImportError:
        return  # The engine's own start will say what is wrong.
    detach = getattr(memory_cache, "_detach_cache_for_storage", None)
    collect = getattr(memory_cache, "_collect_mx_array_ids", None)
    refused = getattr(memory_cache, "UndetachableCacheError", None)
    if not (detach and collect and refused) or list(inspect.signature(detach).parameters) != ["cache", "_eval_targets"]:
        return

    def ids(layers):
        found = set()
        for layer in layers:
            collect(layer, mx, found)
        return found

    def detached(cache, _eval_targets=None):
        if _eval_targets is not None:
            return detach(cache, _eval_targets)
        arrays = []
        try:
            copy = detach(cache, arrays)
            # What the engine does itself where the list is its own.
            if ids(cache) & ids(copy):
                raise refused("the copy has arrays of the running request")
            try:
                mx.eval(*arrays)
            except Exception as error:
                raise refused(f"the copy cannot be made: {type(error).__name__}: {error}") from error
            return copy
        finally:
            arrays.clear()

    memory_cache._detach_cache_for_storage = detached
