"""Pauses on the way through a prompt: part of what starts the engine, see `bootstrap.py`."""


class Pause:
    """A place in a prompt, `left` tokens from where its prefill begins."""

    def __init__(self, left):
        self.left = left

    def piece(self, length):
        """How many of the next `length` tokens come before the place, if it falls among them."""
        left, self.left = self.left, self.left - length
        return left if 0 < left <= length else 0


def pause_prefills(batch, planned, reached):
    """Lets each prefill stop at the place that is planned for its request, and calls `reached` with the batch and the place. `planned`: places by the
    numbers of requests; it is emptied then."""
    prefill = batch.prompt

    def watched(batch, tokens):
        pause = planned.get(batch.uids[0]) if len(batch.uids) == len(tokens) == 1 else None
        if pause is None or not (piece := pause.piece(len(tokens[0]))):
            return prefill(batch, tokens)
        planned.clear()
        prefill(batch, [tokens[0][:piece]])
        reached(batch, pause)
        if tokens[0][piece:]:
            prefill(batch, [tokens[0][piece:]])

    batch.prompt = watched


