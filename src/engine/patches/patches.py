"""Whether each start-up patch applied, said once in the engine's log: part of what starts the engine, see `bootstrap.py`."""

import sys


def applied(name):
    say_of_patch(name, "applied")


def not_applied(name, reason):
    """The engine does this its own way. Returns None, for patches that end with it."""
    say_of_patch(name, because(reason))


def not_wanted(name):
    say_of_patch(name, "not wanted")


def because(reason):
    return f"not applied ({' '.join(str(reason).split())})"


def say_of_patch(name, words):
    """One line. Read by `patches.rs`."""
    print(f"[cclocal] patch {name}: {words}", file=sys.stderr, flush=True)


def once(say):
    """Lets nothing be said twice."""
    said = set()

    def told(*words):
        if words not in said:
            said.add(words)
            say(*words)

    return told
