"""What is known of a device, every datum with its source: a TOML file, one per device.

    name = "Raspberry Pi 5"
    [ipc]                       # instructions per cycle that its cores do on such work
    value = [1.5, 2.5]
    source = "assumed"
    verified = false            # left out where the source is one

Those that ship are beside this file. A file of the same name in the user's own folder takes their place: `targets
calibrate` writes one with what was measured.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from bertshrink.errors import UserError, did_you_mean
from bertshrink.files.atomic import output_errors, write_text
from bertshrink.files.bounded_text import Reader
from bertshrink.report.measurement import Environment

T = TypeVar("T")
Isa = Literal["a53", "a72", "a76", "armv8.6"]
Basis = Literal["instructions", "operations"]


def _in_order(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError("the lower bound comes first")
    return span


Span = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_in_order)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourcedValue(_Frozen, Generic[T]):
    """A value and where it is from; `verified` is false for what is assumed or unconfirmed."""

    value: T
    source: str = Field(min_length=1)
    verified: bool = True


class Calibration(_Frozen):
    """On what a device's rates were measured."""

    by: str = Field(description="the machine")
    when: str = Field(description="UTC, ISO 8601")
    basis: Basis = Field(
        description="what was divided by the time: counted instructions, or those that operations make"
    )
    model: str
    engine: str


class DeviceProfile(_Frozen):
    """A device as far as a time is modelled by it; its fastest cores are meant."""

    name: str
    isa: SourcedValue[Isa] = Field(description="class of cores, by the kernels that they run")
    cores: SourcedValue[PositiveInt] = Field(description="number of the fastest cores")
    ghz: SourcedValue[PositiveFloat]
    ipc: SourcedValue[Span] = Field(description="instructions per cycle of one core")
    bandwidth_gbs: SourcedValue[Span] = Field(description="of reading memory, 1e9 bytes per second")
    cache_mb: SourcedValue[PositiveFloat] = Field(
        description="last-level cache, 1e6 bytes: weights within may cost nothing"
    )
    calibrated: Calibration | None = None

    @property
    def unverified(self) -> list[str]:
        """The data that nobody vouches for."""
        return [name for name, datum in self if isinstance(datum, SourcedValue) and not datum.verified]

    def environment(self) -> Environment:
        """The device in a machine's place."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return Environment(
            id=hashlib.sha256(text.encode()).hexdigest()[:12],
            cpu=f"{self.name}, modelled: {self.cores.value} x {self.isa.value} at {self.ghz.value:g} GHz",
            isa=(self.isa.value,),
            num_cores=self.cores.value,
        )


def own_folder() -> Path:
    """The user's device files (XDG base directories)."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "bertshrink" / "devices"


def devices() -> dict[str, Path]:
    """Name -> file; the user's own take the place of those that ship."""
    folders = (Path(__file__).parent / "devices", own_folder())
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def read_device(name: str) -> DeviceProfile:
    """The device of that name. Raises UserError: there is none, or its file is wrong."""
    known = devices()
    if name not in known:
        raise UserError(f"there is no device `{name}`", where="--target", hint=did_you_mean(name, known))
    path = known[name]
    hint = "fix it, or make it again: `bertshrink targets calibrate`"
    reader = Reader(UserError, f"the file of the device `{name}` is wrong", hint, most_bytes=1_000_000)
    try:
        return DeviceProfile.model_validate(reader.toml(reader.read_text(path), str(path)))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{reader.fault}: `{place}`: {first['msg']}", where=str(path), hint=reader.hint) from None


def write_device(name: str, device: DeviceProfile) -> Path:
    """Write the user's own file of a device; where it is. Raises OutputError: it cannot be written."""
    path = own_folder() / f"{name}.toml"
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, to_toml(device))
    return path


def to_toml(device: DeviceProfile) -> str:
    """The device as a file says it."""
    data = device.model_dump(mode="json", exclude_none=True)
    lines = [f"name = {json.dumps(data.pop('name'), ensure_ascii=False)}"]
    for title, table in data.items():
        lines += [
            "",
            f"[{title}]",
            *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()),
        ]
    return "\n".join(lines) + "\n"
