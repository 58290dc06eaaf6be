"""How a run ends before its time: asked to by a signal, or by an error; and the exit status that says which.

=============  ============================================================================================
status         what
=============  ============================================================================================
1              an error: its message says what to do
2              a wrong command line
3              loss, gradient or weights are not finite; the last checkpoint holds the last good state
4              another process trains in the folder
129, 130, 143  stopped by SIGHUP, SIGINT or SIGTERM; saved, the same command goes on
=============  ============================================================================================
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from topdown import distributed
from topdown.files import brief

SIGNALS = [getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP') if hasattr(signal, name)]


class Stopped(KeyboardInterrupt):
    """A signal ended the run; its state is saved."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class Request:
    """The signal that asked to stop, 0 for none."""

    number = 0

    def __call__(self, number: int, frame: object) -> None:
        if self.number == number == signal.SIGINT and distributed.world() == 1:
            raise KeyboardInterrupt  # asked twice: at once, without saving
        self.number = number


@contextlib.contextmanager
def on_request() -> Iterator[Request]:
    """While this lasts, signals are noted instead of ending the process (threads get none)."""
    request = Request()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, request) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ending(error: BaseException) -> tuple[int, str]:
    """Exit status and last words of a process whose training ended by an error; of several processes, one speaks."""
    status = 1
    if isinstance(error, KeyboardInterrupt):
        status = 128 + getattr(error, 'number', signal.SIGINT)
    elif isinstance(error, FloatingPointError):
        status = 3
    elif isinstance(error, BlockingIOError):
        status = 4
    if not distributed.speaks():
        return status, ''
    if isinstance(error, KeyboardInterrupt):
        return status, f'{error or "stopped"}\n'
    if 'closed by peer' in str(error):
        error = 'another process of this run has ended; the same command goes on from the last checkpoint'
    return status, f'error: {brief(error, 2000)}\n'
