"""Attention of one sequence without arrays for masks: part of what starts the engine, see `bootstrap.py`."""

# Holds, on a cache of a batch, the padding that was looked at, and whether it is that of one sequence without any.
LOOKED_AT = "cclocal_padding"


def attend_without_arrays():
    """Gives one sequence without padding the masks that it has outside of batches: none for a token, `"causal"` for a prompt.

    The batches of mlx-lm 0.31.3 always make an array, of as many columns as there are tokens, for sequences of different lengths, and kernels that
    compute attention in one go take no arrays on CUDA, and not every size of head with one on Metal. On an NVIDIA H200 a token took 33 ms with it and
    22 without at 32k tokens, 50 and 15 at 64k, and a step of a prompt 6 to 10 times the memory. What is attended to is the same: where an array is more than padding and
    order (a prompt beyond the sliding window, a model that asks for one), and for several sequences, it stays.
    """
    import inspect

    try:
        import mlx.core as mx
        from mlx_lm.models.cache import ArraysCache, BatchKVCache, BatchRotatingKVCache
    except ImportError as error:
        return not_applied("masks", error)
    try:
        recurrent = ArraysCache.merge([ArraysCache(1)])
        # A cache, the attributes that count here, and the parameters of its masks.
        expected = (
            (BatchKVCache([0]), ("left_padding", "_idx", "_right_padding", "prepare", "finalize"), ["N", "return_array", "kwargs"]),
            (BatchRotatingKVCache(8, [0]), ("left_padding", "_offset", "max_size", "_lengths", "prepare", "finalize"), ["N", "window_size", "return_array"]),
            (recurrent, ("left_padding", "lengths"), ["N"]),
        )
        for cache, attributes, parameters in expected:
            name = type(cache).__name__
            if missing := [attribute for attribute in attributes if not hasattr(cache, attribute)]:
                return not_applied("masks", f"{name} has no {missing[0]}")
            if list(inspect.signature(cache.make_mask).parameters) != parameters:
                return not_applied("masks", f"{name} makes masks in another way")
            if not isinstance(cache.make_mask(2), mx.array):
                return not_applied("masks", f"{name} makes no array")
    except Exception as error:
        return not_applied("masks", f"{type(error).__name__}: {error}")
    leave_out_arrays(BatchKVCache, "_right_padding", lambda cache: (cache._idx, None))
    leave_out_arrays(BatchRotatingKVCache, "_lengths", lambda cache: (min(cache._offset, cache.max_size - 1), cache.max_size))
    leave_out_arrays_of_states(ArraysCache)
    applied("masks")


def leave_out_arrays(kind, pending, reach):
    """`pending`: the attribute that is set while there is padding on the right. `reach`: of a cache, how many tokens a mask has to reach back, and
    its window."""
    make_mask, prepare, finalize = kind.make_mask, kind.prepare, kind.finalize

    def masked(self, N, *arguments, **options):
        if arguments or not is_one_whole(self, N, pending):
            return make_mask(self, N, *arguments, **options)
        past, window = reach(self)
        window = options.get("window_size") or window
        if window is None or past + N <= window:
            if N == 1:
                return None
            if not options.get("return_array"):
                return "causal"
        return make_mask(self, N, **options)

    def prepared(self, *arguments, **options):
        setattr(self, LOOKED_AT, None)
        return prepare(self, *arguments, **options)

    def finalized(self, *arguments, **options):
        setattr(self, LOOKED_AT, None)
        return finalize(self, *arguments, **options)

    kind.make_mask, kind.prepare, kind.finalize = masked, prepared, finalized


def is_one_whole(cache, tokens, pending):
    """Whether a batch is one sequence without padding.

    The padding is an array, which may still be in the making: looking at it at each token would wait for the one before. So what was seen
    is remembered with the array. Another batch has another one; in place it grows in `prepare` and `finalize` alone, and else shrinks,
    which is looked at again with the next prompt.
    """
    padding = cache.left_padding
    seen, whole = getattr(cache, LOOKED_AT, None) or (None, False)
    if seen is padding and (whole or tokens == 1):
        return whole
    whole = padding.size == 1 and getattr(cache, pending) is None and padding.item() <= 0
    setattr(cache, LOOKED_AT, (padding, whole))
    return whole


def leave_out_arrays_of_states(kind):
    """Recurrent layers: their masks are about padding alone."""
    make_mask = kind.make_mask

    def masked(self, N):
        padding = self.left_padding
        if padding is not None and self.lengths is None and padding.size == 1 and padding.item() <= 0:
            # As after `finalize`. Left in place it would be an array more for every token.
            self.left_padding = None
        return make_mask(self, N)

    kind.make_mask = masked
