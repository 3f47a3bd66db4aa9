"""Ctrl-C and SIGTERM: at once, or, in the middle of a training, once a step is done and saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Asked(BaseException):
    """Someone has asked the training to stop; raised between two steps, caught where the state is saved.

    No Exception: nothing on its way is to take it for a fault.
    """


@dataclass(slots=True)
class Stop:
    """patient: whether the first signal waits for the end of a step; asked: whether one has come.

    leaving: the run has ended, and only what to tell of it is left: no more of them is heard.
    """

    patient: bool = False
    asked: bool = False
    leaving: bool = False

    def check(self) -> None:
        """Raise `Asked` where a signal has come."""
        if self.asked:
            raise Asked

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """Within it the first signal waits for `check`; the second ends the run at once, as outside of it."""
        self.patient = True
        try:
            yield
        finally:
            self.patient = False


@contextmanager
def heed_signals() -> Iterator[Stop]:
    """Have Ctrl-C and SIGTERM raise KeyboardInterrupt, or ask for a stop; in a thread beside the main one, as ever."""
    stop = Stop()

    def heard(number: int, frame: FrameType | None) -> None:
        if stop.leaving:
            return
        waits = stop.patient and not stop.asked
        stop.asked = True
        if not waits:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, heard) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
