"""The fast loop (`pytest --fast`, `make test-fast`): its tests train nothing and start no process.

Which tests those are is said by marks; that the marks are true is seen to here: where a test without a mark starts a
process or a training all the same, it fails, also where the code under test would have swallowed the error.
"""

import sys
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

import pytest

LEFT_OUT = ("training", "subprocess", "slow", "matrix")
"""The marks of tests that the fast loop leaves out."""

_STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}
"""Audit events of a process that starts (docs.python.org/3/library/audit_events.html)."""


class NotFast(BaseException):
    """What the fast loop leaves out was begun; no `except Exception` takes it."""


class Guard:
    """Stops what the fast loop leaves out while a test runs; pytest itself may start processes (`-n 2`)."""

    def __init__(self) -> None:
        self._begun: list[str] = []
        self._is_set_up = False
        self._is_on = False

    def _set_up(self) -> None:
        from transformers import Trainer

        self._is_set_up = True

        sys.addaudithook(self.hear)
        BaseProcess.start = lambda process: self._stop("subprocess", repr(process))  # its `spawn` raises no event
        Trainer.train = lambda trainer, *args, **more: self._stop("training", type(trainer).__name__)

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        """Take an audit event.

        Raises:
            NotFast: a process starts.

        """
        if self._is_on and event in _STARTS:
            self._stop("subprocess", f"{event}{args[:2]}")

    def _stop(self, mark: str, what: str) -> NoReturn:
        self._begun.append(f"not for the fast loop: {what}; mark the test `{mark}`")
        raise NotFast(self._begun[-1])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Any:
        if not self._is_set_up:
            self._set_up()
        try:
            return (yield)
        finally:
            self._is_on = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        self._is_on = True
        self._begun.clear()  # what broke another test's fixture was told there

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Any:
        self._is_on = True
        try:
            return (yield)
        finally:
            begun, self._begun = self._begun, []
            if begun:
                pytest.fail(begun[0])
