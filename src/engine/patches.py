"""Whether each start-up patch applied, said once in the engine's log: part of what starts the engine, see `bootstrap.py`."""

import sys


def applied(name):
    say_of_patch(name, "applied")


def not_applied(name, reason):
    """Returns None, for patches that end with it."""
    say_of_patch(name, f"not applied ({' '.join(str(reason).split())})")


def say_of_patch(name, words):
    print(f"[cclocal] patch {name}: {words}", file=sys.stderr, flush=True)
