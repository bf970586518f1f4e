"""The program: its commands, and the one place where every failure becomes a message and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import tempfile
import threading
import traceback
import types
from typing import Any

import typer

from bertshrink.cli.commands import app
from bertshrink.cli.streams import Streams
from bertshrink.command_scope import command_scope
from bertshrink.errors import (
    BertshrinkError,
    Interrupted,
    OutputError,
    Stopped,
    Terminated,
    UnsafeModel,
    UserError,
    UserErrors,
    nearest,
)
from bertshrink.training.distributed.ranks import is_main, shutdown
from bertshrink.version import __version__

BUG = 70
STOPPED = 128 + 2
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_PLACE = (errno.EACCES, errno.EPERM, errno.EIO)


def run(argv: list[str]) -> int:
    """Run one command line; returns the exit code."""
    with command_scope(), Streams() as streams:
        code = _run_told(argv)
        try:
            return streams.code(code)
        except OutputError as error:
            _tell(error)
            return code or error.exit_code


def _run_told(argv: list[str]) -> int:
    """Run one command line, with every failure told on stderr."""
    before = _end_in_order()
    try:
        code = app(argv or ["--help"], standalone_mode=False, prog_name="bertshrink")
        if code == STOPPED:  # Typer has already caught the interrupt
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except (Interrupted, Terminated) as stop:
        print(f"{stop.what}; {stop.hint}", file=sys.stderr)  # noqa: T201
        return stop.exit_code
    except BertshrinkError as error:
        _tell(error)
        return error.exit_code
    except typer.Exit as stop:
        return stop.exit_code
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error, file=sys.stderr)  # noqa: T201
            return 2
        context, message = getattr(error, "ctx", None), str(error.format_message())
        place = context.command_path if context else "bertshrink"
        _print_error(message[:1].lower() + message[1:].rstrip("."), f"`{place}`", _usage_hint(error, place))
        return 2
    except Stopped:
        print("stopped by SIGTERM; run the same command to resume", file=sys.stderr)  # noqa: T201
        return Terminated.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("stopped; run the same command to resume", file=sys.stderr)  # noqa: T201
        return STOPPED
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            _print_error("a name is too long for the file system", _shortened(error.filename), "give a shorter one")
            return UserError.exit_code
        if isinstance(error, OSError) and error.errno in _DISK:
            _print_error(f"cannot write: {error.strerror}", error.filename, "free some space, or choose another place")
            return OutputError.exit_code
        if isinstance(error, OSError) and error.errno in _PLACE:
            _print_error(f"cannot read or write: {error.strerror}", error.filename, "fix that, or choose another place")
            return OutputError.exit_code
        return _bug(argv)
    except BaseException as error:
        from bertshrink.model.checks.tokenizer import is_library_panic

        if not is_library_panic(error):
            raise
        hint = "save the model again; if it comes from elsewhere, do not trust its files"
        _print_error(f"a library could not read a file of the model: {error}", None, hint)
        return UnsafeModel.exit_code
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        shutdown()


def _usage_hint(error: Any, place: str) -> str:
    """What was meant by an option that does not exist, where one is near."""
    known = [name for option in error.ctx.command.get_params(error.ctx) for name in option.opts] if error.ctx else []
    near = nearest(getattr(error, "option_name", None) or "", known)
    return f"did you mean `{near}`?" if near else f"see `{place} --help`"


def _shortened(name: object) -> str | None:
    text = os.fsdecode(name) if isinstance(name, (str, bytes)) else ""
    return f"{text[:40]}..." if len(text) > 40 else text or None


def _end_in_order() -> Any:
    """Let SIGTERM end the program as an error does, so that no process or folder of its own is left behind.

    Returns:
        What was there before; None where nothing was changed.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        return signal.signal(signal.SIGTERM, _terminated)
    return None


def _terminated(number: int, frame: types.FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Stopped


def _tell(error: BertshrinkError) -> None:
    for fault in error.faults if isinstance(error, UserErrors) else (error,):
        _print_error(fault.what, fault.where, fault.hint)


def _print_error(what: str, where: str | None, hint: str | None) -> None:
    if not is_main():
        return  # the first of several processes says it
    lines = [f"error: {what}"]
    if where:
        lines.append(f"  --> {where}")
    if hint:
        lines.append(f"hint: {hint}")
    print("\n".join(lines), file=sys.stderr)  # noqa: T201


def _bug(argv: list[str]) -> int:
    """Keep the traceback in a file and say where it is."""
    with tempfile.NamedTemporaryFile("w", prefix="bertshrink-", suffix=".log", delete=False) as log:
        log.write(f"bertshrink {__version__}\npython {sys.version}\nargv {argv}\n\n{traceback.format_exc()}")
    last = traceback.format_exc().strip().splitlines()[-1]
    _print_error(f"this is a bug in bertshrink: {last}", log.name, "please report it with that file")
    return BUG
