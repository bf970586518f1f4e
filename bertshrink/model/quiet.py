"""Other libraries, kept from printing over a progress bar while work is under way, and left as they were found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_PARALLELISM = "TOKENIZERS_PARALLELISM"


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Have transformers, tokenizers and huggingface_hub print nothing; afterwards they print what they did before."""
    import transformers
    from huggingface_hub import utils as hub

    log = transformers.logging
    verbosity, has_bars = log.get_verbosity(), log.is_progress_bar_enabled()
    hub_has_bars = not hub.are_progress_bars_disabled()
    parallelism = os.environ.get(_PARALLELISM)
    log.set_verbosity_error()
    log.disable_progress_bar()
    os.environ.setdefault(_PARALLELISM, "false")  # tokenizers warn of it wherever a process is started
    try:
        yield
    finally:
        if parallelism is None:
            os.environ.pop(_PARALLELISM, None)
        log.set_verbosity(verbosity)
        if has_bars:
            log.enable_progress_bar()
        if hub_has_bars:
            hub.enable_progress_bars()
