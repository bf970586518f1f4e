"""A Python without what only POSIX has, to run bertshrink in: `without_posix.py paper|some ARGUMENTS...`, or `all`.

With `paper` before the arguments nobody may import `MODULES`, with `some` and `all` no module of bertshrink; the
attributes are gone for everybody.
"""

import builtins
import os
import select
import signal
import sys

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "_posixsubprocess")
GONE = {
    os: (
        *("fork", "forkpty", "sched_getaffinity", "sched_setaffinity", "killpg", "getpgid", "setsid", "getuid"),
        *("geteuid", "getgid", "pidfd_open", "sysconf", "getloadavg", "posix_fadvise", "O_NOFOLLOW", "O_NONBLOCK"),
        *("wait4", "mkfifo", "statvfs", "chown"),
    ),
    signal: (
        *("SIGKILL", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGCHLD", "SIGQUIT", "SIGSTOP", "alarm"),
        *("setitimer", "pthread_sigmask", "sigwait"),
    ),
    select: ("poll", "epoll"),
}


def take_away(*, from_all):
    import psutil  # noqa: F401  # it has a way of its own on each system

    for module, names in GONE.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    if from_all:
        sys.modules.update(dict.fromkeys(MODULES[:7]))
        return
    real = builtins.__import__

    def guarded(name, globals=None, *more, **others):
        if name in MODULES and str((globals or {}).get("__name__")).startswith("bertshrink"):
            raise ModuleNotFoundError(f"{globals['__name__']} imports `{name}`")
        return real(name, globals, *more, **others)

    builtins.__import__ = guarded


def import_all():
    """Every module of bertshrink; those that run engines which are not installed aside."""
    import importlib
    import pkgutil

    import bertshrink

    names = [one.name for one in pkgutil.walk_packages(bertshrink.__path__, "bertshrink.")]
    for name in names:
        if name.rpartition(".")[2] in ("__main__", "executorch_engine", "openvino_engine"):
            continue
        importlib.import_module(name)
    return len(names)


if __name__ == "__main__":
    if sys.argv[1:] == ["all"]:
        import_all()  # other packages, which know what they run on, with all that is here
        for name in [name for name in sys.modules if name.partition(".")[0] == "bertshrink"]:
            del sys.modules[name]
    take_away(from_all=sys.argv[1] == "paper")
    if sys.argv[1:] == ["all"]:
        sys.stdout.write(f"{import_all()} modules\n")
    else:
        from bertshrink.cli import main

        main(sys.argv[2:])
