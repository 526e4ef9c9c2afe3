"""^C and SIGTERM as one exception, so that a run can keep what it has done before it ends."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal that asks the process to end has come.

    Attributes:
        status: what a shell shows of a process that it ended.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


_came: list[int] = []  #: signals for which Interrupted was raised


def raise_lost() -> None:
    """Raise Interrupted anew if one was raised and the work goes on: in a destructor, or a weak reference's callback,
    Python prints an exception and forgets it."""
    if _came:
        raise Interrupted(_came[0])


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Raise Interrupted in the main thread when ^C or SIGTERM comes, which otherwise ends a process without a word."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        _came.append(number)
        for other in set(SIGNALS) - {number}:  # ^C reaches all processes, and then their parent sends SIGTERM
            signal.signal(other, _ignore)
        raise Interrupted(number)

    try:
        with _handled(interrupt):
            yield
    finally:
        _came.clear()


def ignored() -> contextlib.AbstractContextManager[None]:
    """For what a second ^C must not tear: the last that an interrupted run writes."""
    return _handled(_ignore)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Not SIG_IGN, of which Python prints a complaint if a signal is on its way."""


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python handles signals there alone
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Keep ^C waiting, also for the processes that are started here, until each lets it through."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # absent on Windows
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def let_through() -> None:
    """What a process started under :func:`held_back` calls when it can handle ^C."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
