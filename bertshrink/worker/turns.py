"""Workers side by side of which one works at a time: whoever holds the token. Standard library alone.

A shared machine's speed changes within a second, so two models timed one after the other differ by what happened in
between. Workers in a relay are all alive, and take turns of some 50 ms: whatever the machine does falls on all alike.
They are in a ring of pipes (`keeper.run_together` makes it); the token goes round, and who waits for it sleeps in the
kernel. It says of each worker how many stages it has finished, so that nobody begins a stage before all are through
with the one before, and how much processor time it has used, so that work of the others' is not taken for a stranger's.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Mapping

from bertshrink.worker.machine.interference import processor_seconds

VARIABLE = "BERTSHRINK_RELAY"
"""The environment variable that gives a worker its place: `FROM,TO,PLACE,NUMBER`, two file descriptors and its place
(from 0) among so many workers. `supervisor` says it too, which travels alone and can import nothing of ours."""

LEFT_ALONE = 75
"""The exit status of a worker whose neighbour is gone: not the one to ask what went wrong (EX_TEMPFAIL of sysexits.h).
"""

TURN_NS = 50_000_000
"""How long a turn lasts: short beside what goes on in a shared machine, long beside the 20 us of handing over."""

MIN_SAMPLES = 2
"""Per turn, even of a model so slow that its turn is over before."""

_OF_A_WORKER = struct.Struct("=qd")


class TurnRing:
    """One worker's place in the ring.

    Args:
        place: as `VARIABLE` has it; None: it is alone, and every turn is its own.
    """

    def __init__(self, place: str | None) -> None:
        self._from, self._to, self._place, self.number = map(int, place.split(",")) if place else (-1, -1, 0, 1)
        self._all = [(0, 0.0)] * self.number
        self._stages = 0

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> TurnRing:
        """The place that the environment gives; alone where it gives none."""
        return cls(environment.get(VARIABLE))

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody to take turns with."""
        return self.number == 1

    def begin(self) -> None:
        """Wait for the first turn; the first in the ring has it from the beginning."""
        if self._place:
            self._take()

    def hand_over(self) -> None:
        """End this turn and wait for the next. Raises SystemExit: a neighbour is gone."""
        if not self.is_alone:
            self._give()
            self._take()

    def finish_stage(self) -> None:
        """Wait until all have come this far; the others work meanwhile."""
        self._stages += 1
        self._write_own()
        while min(stages for stages, _ in self._all) < self._stages:
            self.hand_over()

    def end(self) -> None:
        """Let the others go on to their ends; no turn comes after."""
        if not self.is_alone:
            self._give()

    def others_seconds(self) -> float:
        """Processor time that the other workers have used so far."""
        return sum(seconds for place, (_, seconds) in enumerate(self._all) if place != self._place)

    def _write_own(self) -> None:
        self._all[self._place] = (self._stages, processor_seconds())

    def _give(self) -> None:
        self._write_own()
        with contextlib.suppress(BrokenPipeError):  # whoever is gone is missed by the one after it
            os.write(self._to, b"".join(_OF_A_WORKER.pack(*entry) for entry in self._all))

    def _take(self) -> None:
        token = os.read(self._from, _OF_A_WORKER.size * self.number)
        if not token:
            raise SystemExit(LEFT_ALONE)
        self._all = list(_OF_A_WORKER.iter_unpack(token))
