#!/usr/bin/env python3
"""What becomes of conversations that are held once, in the engine's own scheduler.

    held_once.py ARCHITECTURES.json PARTS NAME      (run it with the engine's own Python)

Runs requests of the model NAME that end in different ways, as the engine is started by us, with what is in PARTS. For each it prints a line of JSON:
`computed` tokens of its prompt, whether its reply and all logits of it are the `same` as with nothing cached, the `entries` that are there afterwards, in tokens, and the
bytes that are held beside the weights and what the prefix cache accounts for (`left`). What the engine logs goes to stderr.
The weights are random, of 32 bits: where a prompt is cut into steps makes less of a difference than `CLOSE`.
"""

import gc
import json
import logging
import os
import sys

import mlx.core as mx
import numpy
from memory import build, ours, scheduler_of
from vllm_mlx.request import Request, SamplingParams

REPLY = 12

# How far logits may be apart, of the largest of them.
CLOSE = 1e-4

# Each request is computed once more with nothing cached.
SMALLER = {"num_hidden_layers": 2, "head_dim": 64}


class Runs:
    def __init__(self, model, snapshots, mib=1024):
        self.snapshots, self.numbers = snapshots, 0
        self.bare = scheduler_of(model, 64, mib)
        self.bare.memory_aware_cache = None
        self.scheduler = scheduler_of(model, 64, mib)
        gc.collect()
        mx.clear_cache()
        self.weights = mx.get_active_memory()

    def add(self, scheduler, said):
        self.numbers += 1
        name = f"request {self.numbers}"
        # The first one asks something, the others go on with it.
        self.snapshots.prompts[name] = (len(name), self.numbers == 1)
        logits = []

        def seen(_, of_token):
            logits.append(numpy.array(of_token))
            return of_token

        sampling = SamplingParams(max_tokens=REPLY, temperature=0.0, logits_processors=[seen])
        request = Request(request_id=name, prompt=name, sampling_params=sampling)
        request.logits = logits
        request.prompt_token_ids, request.num_prompt_tokens = list(said), len(said)
        scheduler.add_request(request)
        return request

    def steps(self, scheduler, until=lambda: False):
        while scheduler.has_requests() and not until():
            scheduler.step()

    def is_as_afresh(self, request):
        """Whether its reply is the one that it would have had with nothing cached."""
        bare = self.add(self.bare, request.prompt_token_ids)
        self.steps(self.bare)
        if request.output_token_ids != bare.output_token_ids or len(request.logits) < REPLY:
            return False
        return all(numpy.abs(one - other).max() < CLOSE * numpy.abs(other).max() for one, other in zip(request.logits, bare.logits))

    def say(self, case, request, same):
        gc.collect()
        mx.clear_cache()
        memory = self.scheduler.memory_aware_cache
        print(
            json.dumps(
                {
                    "case": case,
                    "computed": request.num_prompt_tokens - request.cached_tokens,
                    "same": same,
                    "entries": sorted(len(key) for key in memory._entries),
                    "left": mx.get_active_memory() - self.weights - memory._current_memory,
                }
            ),
            flush=True,
        )

    def whole(self, case, said):
        request = self.add(self.scheduler, said)
        self.steps(self.scheduler)
        self.say(case, request, self.is_as_afresh(request))
        return list(request.output_token_ids)

    def cancelled(self, case, said, until):
        request = self.add(self.scheduler, said)
        self.steps(self.scheduler, lambda: until(request))
        self.scheduler.abort_request(request.request_id)
        self.scheduler.step()
        assert not self.scheduler.has_requests()
        self.say(case, request, True)
        return list(request.output_token_ids)

    def failed(self, case, said, error, until):
        request = self.add(self.scheduler, said)
        self.steps(self.scheduler, lambda: until(request))
        self.step_that_fails(error)
        assert not self.scheduler.has_requests()
        self.say(case, request, True)

    def step_that_fails(self, error):
        """It has been computed when it fails, and nobody has seen its result."""
        good = self.scheduler.batch_generator.next

        def bad():
            good()
            raise RuntimeError(error)

        self.scheduler.batch_generator.next = bad
        self.scheduler.step()

    def both(self, case, first, second):
        """Two requests at once; one waits."""
        requests = [self.add(self.scheduler, said) for said in (first, second)]
        self.steps(self.scheduler)
        for number, request in enumerate(requests):
            self.say(f"{case} {number + 1}", request, self.is_as_afresh(request))


def tokens(seed, number):
    return [(seed * 7919 + place * place * 31 + place * 17) % 300 for place in range(number)]


def main():
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with open(sys.argv[1]) as file:
        config = json.load(file)[sys.argv[3]]
    if sys.argv[3] == "turns":
        config.update(SMALLER)
    elif sys.argv[3] == "snapshots":
        config.update(SMALLER, global_head_dim=64, num_hidden_layers=4)
    mx.random.seed(7)
    model = build(config)
    model.set_dtype(mx.float32)
    mx.eval(model.parameters())
    os.environ["CCLOCAL_TEXT_ROUTE"] = "yes"
    parts = ours(sys.argv[2], "entries", "take_over", "memory", "pauses", "snapshots")
    parts["settle_entries"]()
    snapshots = parts["settle_snapshots"](parts["take_over_entries"]())

    runs = Runs(model, snapshots)
    front = tokens(1, 300)
    said = front + tokens(2, 200)
    said += runs.whole("first", said) + tokens(3, 150)
    said += runs.whole("second", said) + tokens(4, 150)
    writes = lambda request: request.num_output_tokens >= 5
    # Some of the new tokens have been read.
    halfway = lambda request: len(runs.scheduler.batch_generator._prompt_batch) > 0 if runs.scheduler.batch_generator else False
    runs.cancelled("cancelled while it is read", said, halfway)
    runs.whole("after that", said)
    runs.cancelled("cancelled while it is written", said + tokens(5, 50), writes)
    said += tokens(5, 50)
    said += runs.whole("again", said)
    runs.whole("retried", said[:-REPLY])
    said += tokens(6, 100)
    runs.failed("failed", said, "a bug", writes)
    runs.whole("after the failure", said)
    runs.failed("failed for want of memory", said + tokens(8, 20), "[metal::malloc] no memory", writes)
    said += runs.whole("after want of memory", said)
    runs.whole("a background question", front + tokens(9, 30))
    said += tokens(10, 60)
    said += runs.whole("goes on", said)
    other = front + tokens(11, 400)
    other += runs.whole("another conversation", other) + tokens(12, 60)
    said += tokens(13, 60)
    said += runs.whole("in turn, first", said)
    other += runs.whole("in turn, other", other)
    runs.both("at once", said + tokens(14, 40), said + tokens(15, 40))

    # Room for one of them.
    per_token = runs.scheduler.memory_aware_cache._current_memory / sum(len(key) for key in runs.scheduler.memory_aware_cache._entries)
    tight = Runs(model, snapshots, max(1, int(per_token * 800) >> 20))
    said = front + tokens(16, 350)
    said += tight.whole("tight", said)
    tight.whole("a background question without room", front + tokens(17, 100))
    tight.whole("goes on without room", said + tokens(18, 40))


main()
