"""Faults injected by the hundred: files of every format spoilt at random, full disks, killed processes.

`make torture` runs a seeded sample within a quarter of an hour on two cores, `make torture FULL=1` the whole list. It
is not part of `make test`: what it finds becomes an ordinary test. Every case has a number in its kind; a seed and that
number make it again:

    make torture SEED=1 ONLY=papers:17

What comes of a case:

    refused rightly      an error with what, where and how, and an exit code that the kind allows
    right                accepted, and the answers are those that the format's own reader and engine give for the spoilt
                         file, or, where those cannot read it, the answers of the unspoilt one
    silent wrong         accepted with other answers, or refused with another exit code or without all three parts
    traceback            an exception or a signal that nobody caught
    exit 70              an exception that only the last resort caught
    hang                 not done after `core.TIMEOUT_S`

The last four must not occur, and end the suite with exit code 1.
"""
