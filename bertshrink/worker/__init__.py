"""The one program that runs a model to measure it. It travels: packed as one file (`meters.parcel`) it runs in a fresh
process here, under an emulator, over ssh or beside a GPU. So this room needs Python 3.10, numpy and
`bertshrink.engines` only, and imports no other room.

    python worker.pyz < job.json > result.json

    job.py      what to do, as JSON: `time`, `count`, `look`, `devices`, `rates`
    timing.py   phases and clocks; memory.py: exact peaks; strain.py: what else the machine did meanwhile
    counting.py a given number of inferences and their outputs, for whoever counts instructions from outside
    rates.py    how fast the machine multiplies and reads: the roofs of a roofline
    device.py   the GPUs that an engine can use; nvidia.py: what the driver says of one
    feeds.py    arrays of one shape, or batches of real texts
    machine.py  the machine and its software, as it names itself
"""
