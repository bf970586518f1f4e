"""The one program that runs a model to measure it. It travels: packed as one file (`meters.latency.worker_zipapp`) it
runs in a fresh process here, under an emulator, over ssh or beside a GPU. So this room needs Python 3.10, numpy and
`bertshrink.engines` only, and imports no other room.

    python worker.pyz < job.json > result.json

    job.py           what to do, as JSON: `time`, `count`, `look`, `devices`, `rates`
    timing.py        phases and clocks, in turns with other workers (turns.py)
    counted_run.py   a given number of inferences and their outputs, for whoever counts instructions from outside
    peak_rates.py    how fast the machine multiplies and reads: the roofs of a roofline
    list_gpus.py     the GPUs that an engine can use
    inputs.py        arrays of one shape, or batches of real texts
    supervisor.py    whoever looks after workers; it travels alone
    machine/         the machine and its software, as it names itself; exact memory; what else it did meanwhile
"""
