"""The run folder: what is finished stays finished.

    runs/NAME/
      recipe.yaml            as it was written
      01-distill/            the model, stage.json, MANIFEST.json: whole or not there
      .work/01-distill/      checkpoints of a stage that is not finished; removed when it is
      reference.json         the first model's figures
      running-cpu.json       times and memory of all models on a target, with the machine in its key
      report.json ...        the report

Each finished thing carries a fingerprint of everything that decides it: the model that went in, the technique's
settings, the data's content, the seed, the version. The same fingerprint is loaded, another one is made again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bertshrink.errors import OutputError, UnsafeModel, UserError
from bertshrink.files.atomic import (
    MANIFEST,
    amend,
    check_name,
    new_folder,
    output_errors,
    refuse_taken,
    sweep,
    verify,
    write_text,
)
from bertshrink.files.bounded_text import Reader
from bertshrink.files.fingerprint import STAGE_CARD

LOCK = ".lock"
STAGE_SCHEMA = "bertshrink.stage/1"
_KEPT = Reader(UnsafeModel, "a file of the run folder is damaged", "remove it, and it is created again")


class RunFolder:
    """One run's folder.

    Args:
        folder: where it is; made when it is locked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; the system lets go of it when the process ends, however it ends.

        Raises:
            UserError: another process holds it.
            OutputError: it cannot be made.
        """
        lock = FileLock(self.folder / LOCK)
        with output_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                raise UserError(
                    f"another process is working in `{self.folder}`",
                    hint="wait for it, or name another place with `--runs`",
                ) from None
        try:
            yield
        finally:
            lock.release()

    def stage(self, name: str) -> Path:
        """The folder of a stage."""
        return self.folder / name

    def work_folder(self, name: str, key: str) -> Path:
        """Where `work` is."""
        return self.folder / ".work" / name / key

    def work(self, name: str, key: str) -> Path:
        """A folder for an unfinished stage's checkpoints; those of another fingerprint are cleared."""
        folder = self.work_folder(name, key)
        with output_errors(folder):
            if folder.parent.is_dir():
                for other in folder.parent.iterdir():
                    if other.name != key:
                        shutil.rmtree(other)
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def finished(self, name: str, key: str) -> dict[str, Any] | None:
        """The card of a stage that was finished with this fingerprint; None when there is none.

        Raises:
            UnsafeModel: it is there, but its bytes have changed.
        """
        folder = self.stage(name)
        sweep(folder)
        if not (folder / STAGE_CARD).is_file() or not (folder / MANIFEST).is_file():
            return None
        try:
            card = _KEPT.read_json(folder / STAGE_CARD)
        except UnsafeModel:
            verify(folder)
            return None
        if not isinstance(card, dict) or card.get("schema") != STAGE_SCHEMA or card.get("fingerprint") != key:
            return None
        verify(folder)
        return dict(card)

    def save(self, name: str, key: str, fill: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """Store a finished stage whole.

        Args:
            fill: writes the model into the scratch folder it is given and returns what the card should hold.

        Raises:
            OutputError: the disk is full or not writable; what was there before still does.
        """
        self._check_space(name)
        with new_folder(self.stage(name), replace=True) as scratch:
            card = {"schema": STAGE_SCHEMA, "fingerprint": key, **fill(scratch)}
            (scratch / STAGE_CARD).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        shutil.rmtree(self.folder / ".work" / name, ignore_errors=True)
        return card

    def read_entry(self, name: str, key: str) -> Any:
        """A small result stored under `key`; None when there is none."""
        try:
            entry = _KEPT.read_json(self.folder / name)
            return entry["value"] if entry["fingerprint"] == key else None
        except (UnsafeModel, KeyError, TypeError):
            return None

    def write_entry(self, name: str, key: str, value: Any) -> None:
        """Store a small result."""
        text = json.dumps({"fingerprint": key, "value": value}, indent=1, sort_keys=True) + "\n"
        write_text(self.folder / name, text)

    def _check_space(self, name: str) -> None:
        """Refuse to begin a write that a nearly full disk cannot take."""
        free = shutil.disk_usage(self.folder).free
        if free < 1 << 20:
            raise OutputError(f"the disk of `{self.stage(name)}` is full", hint="free some space, then run it again")


@dataclass(frozen=True)
class OutputFolder:
    """Where the user wants the finished model: `-o`.

    Attributes:
        folder: appears whole or not at all.
        replace: whether another model that bertshrink wrote there gives way.
    """

    folder: Path
    replace: bool = False

    def check(self, key: str, run: Path | None = None) -> None:
        """Prove that a result with this fingerprint may appear here.

        Args:
            run: the run folder, which must not be in the target, nor the target in it.

        Raises:
            UserError: something else is there, or there is no folder to put it in.
            OutputError: that folder is not writable.
        """
        place = self.folder.absolute()
        check_name(place)
        if not place.parent.is_dir():
            text = f"there is no folder `{self.folder.parent}` for `{self.folder.name}`"
            raise UserError(text, where="-o", hint="make it first, or name another place")
        if run is not None and (place.is_relative_to(run.absolute()) or run.absolute().is_relative_to(place)):
            text = f"`{self.folder}` and the run folder `{run}` contain each other"
            raise UserError(text, where="-o", hint="name another place")
        if not os.access(place.parent, os.W_OK):
            raise OutputError(f"`{place.parent}` is not writable", where="-o", hint="name another place")
        if not self.holds(key):
            refuse_taken(self.folder, replace=self.replace)

    def holds(self, key: str) -> bool:
        """Whether the result with this fingerprint is here already, every bit of it right."""
        card = _read_card(self.folder)
        if card is None or card.get("fingerprint") != key:
            return False
        try:
            return verify(self.folder)
        except UnsafeModel:
            return False

    def publish(self, source: Path, key: str, extra: dict[str, str]) -> bool:
        """Copy a finished stage's folder here, whole or not at all; nothing is done when it is here already.

        Args:
            extra: more files, name -> text (the report).

        Returns:
            Whether it was copied now.

        Raises:
            UserError: as `check`.
            OutputError: it cannot be written.
        """
        if self.holds(key):
            return False
        self.check(key)
        with new_folder(self.folder, replace=True) as scratch:
            shutil.copytree(source, scratch, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
            for name, text in extra.items():
                (scratch / name).write_text(text, encoding="utf-8")
        return True

    def complete(self, key: str, extra: dict[str, str]) -> None:
        """Write some files again beside the model that was published here.

        Raises:
            UserError: it is not here any more.
            OutputError: it cannot be written.
        """
        if not self.holds(key):
            text = f"the model at `{self.folder}` is no longer the one that was written"
            raise UserError(text, where="-o", hint="its report is incomplete; run the same command to write it again")
        amend(self.folder, extra)


def _read_card(folder: Path) -> dict[str, Any] | None:
    """A folder's stage.json; None when there is none that can be read."""
    try:
        card = _KEPT.read_json(folder / STAGE_CARD)
    except UnsafeModel:
        return None
    return card if isinstance(card, dict) and card.get("schema") == STAGE_SCHEMA else None
