"""How many instructions an ARM core executes for one inference, counted without one: the real aarch64 build of ONNX
Runtime, emulated by QEMU's user mode for a chosen core, with a plugin that counts.

A count is exact and the same in every run, and ONNX Runtime picks its kernels by the instructions that the emulated
core has. So it shows what a clock on another machine hides: int8 costs an A76, which multiplies bytes natively, 0.41x
the instructions of float32 (all-MiniLM-L6-v2, 16 tokens), and an A53, which does not, 0.85x. A count is not a time: it
knows no cache, no memory and no instruction slower than another. So nothing here ever says milliseconds.

    cores.py    the cores that can be asked for
    pins.py     what is emulated, pinned, and why so
    sysroot.py  where it is, prepared and sealed; setup.py prepares it, fetch.py gets its parts
    plugin.c    what counts; plugin.py compiles it
    count.py    one count, believed only when its outputs are this machine's
    target.py   `arm64:CORE`, the target
"""
