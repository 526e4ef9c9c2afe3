"""Jobs on processes of this machine, which end with the command that started them and keep what they have done."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple, TypeVar

from . import interrupts

Job = TypeVar("Job")


class Done(NamedTuple):
    """A job that has ended, well or not."""

    text: str  #: what the work returned
    failure: Exception | None


def finished(
    work: Callable[[Job], str], jobs: Iterable[Job], processes: int
) -> Generator[tuple[Job, Done], None, None]:
    """Each job when ``work`` has done it, so many at a time, each process used again and again.

    Interrupted, this process stops the others, which write their checkpoints as for ^C; it waits for them.

    Args:
        work: a function of a module; its KeyboardInterrupt ends the process.
        jobs: its arguments.
        processes: at a time.
    """
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        with interrupts.held_back():
            futures = {pool.submit(_work, work, job): job for job in jobs}
        for future in as_completed(futures):
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                error = RuntimeError("a process of this command ended early: killed, or out of memory")
            if error is not None and not isinstance(error, Exception):
                raise error
            yield futures[future], Done("" if error else future.result(), error)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown()


def _begin() -> None:
    """In a new process: between two jobs there is nothing to keep, and no one to read a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    interrupts.let_through()
    threading.Thread(target=_end_with_command, daemon=True).start()


def _end_with_command() -> None:
    """A command that is killed cannot stop its processes, which would wait for jobs for ever, in folders they hold."""
    command = multiprocessing.parent_process()
    if command is not None:
        command.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _work(work: Callable[[Job], str], job: Job) -> str:
    try:
        with interrupts.raised():
            return work(job)
    except KeyboardInterrupt:
        os._exit(130)  # the next job is not begun
