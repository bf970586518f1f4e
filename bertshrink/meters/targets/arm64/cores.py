"""The cores that can be asked for, and what each stands for.

Only the instructions that a core has matter here: they decide which kernels ONNX Runtime picks. A core's pace has no
part in a count, so one row stands for every core with the same instructions. QEMU's `max` as it is is nowhere in
the table: with SVE and SME together ONNX Runtime 1.24.1 gave wrong int8 results under QEMU 7.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from bertshrink.errors import UserError, did_you_mean

KIND = "arm64"


@dataclass(frozen=True)
class Core:
    """One core.

    Attributes:
        model: what QEMU calls it, with what is switched off.
        name: its own name.
        isa: what matrix kernels choose their path by, in the Linux kernel's words.
        like: devices whose cores have the same instructions.
    """

    model: str
    name: str
    isa: tuple[str, ...]
    like: str


CPUS: dict[str, Core] = {
    "a53": Core("cortex-a53", "Arm Cortex-A53", ("asimd",), "Raspberry Pi 3, Zero 2; small cores of older phones"),
    "a72": Core("cortex-a72", "Arm Cortex-A72", ("asimd",), "Raspberry Pi 4"),
    "a76": Core(
        "cortex-a76",
        "Arm Cortex-A76",
        ("asimd", "asimdhp", "asimddp"),
        "Raspberry Pi 5, RK3588, phones from about 2019: byte dot products",
    ),
    "armv8.6": Core(
        "max,sve=off,sme=off",
        "Armv8.6-A without SVE",
        ("asimd", "asimdhp", "asimddp", "bf16", "i8mm"),
        "phones from about 2022: byte matrix products",
    ),
}


def cpu_of(target: str) -> str:
    """The core in `arm64:a76`. Raises UserError: none is named, or there is none of that name."""
    kind, _, name = target.partition(":")
    known = {f"{kind}:{cpu}" for cpu in CPUS}
    if name not in CPUS:
        what = f"there is no target `{target}`" if name else f"`{kind}` needs a core"
        raise UserError(
            what, where="--target", hint=did_you_mean(target, known) if name else did_you_mean("", sorted(known))
        )
    return name
