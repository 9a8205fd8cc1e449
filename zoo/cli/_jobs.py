"""Several models side by side: in processes of one thread each, with the results in the order they were asked for."""

import io
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stdout
from functools import partial
from multiprocessing import active_children, get_context
from typing import TypeVar

from zoo.cli._parser import Parser
from zoo.errors import UserError
from zoo.screen import QUIET

Item = TypeVar("Item")
Result = TypeVar("Result")


def add_jobs(parser: Parser) -> None:
    """Add the number of models that are worked on at once."""
    parser.add_argument(
        "--jobs", type=int, default=1, help="Models at once, each in a process of one thread; 1: one after another."
    )


def check_jobs(jobs: int) -> None:
    """Refuse a number of processes without meaning."""
    if jobs < 1:
        raise UserError(f"--jobs must be at least 1, not {jobs}")


def each(work: Callable[[str], None], targets: Sequence[str], jobs: int) -> None:
    """Do some work on each target, and print what it prints under the target's name; one that fails stops no other.

    Args:
        work: of a module, or a `functools.partial` of one.
        targets: two or more.
        jobs: processes, at most; 1: one target after another in this process.

    Raises:
        UserError: work on a target raised one; all of them are named.
    """
    one = partial(_printed, work=work)
    found = side_by_side(one, targets, jobs) if jobs > 1 else map(one, targets)
    failed = []
    for target, (output, mistake) in zip(targets, found, strict=True):
        print(f"{target}\n\n{output}")
        failed += [f"{target}: {mistake}"] if mistake else []
    if failed:
        raise UserError(f"{len(failed)} of {len(targets)} failed: {'; '.join(failed)}")


def _printed(target: str, work: Callable[[str], None]) -> tuple[str, str]:
    """Return what some work prints, and why it failed, or ``""``."""
    with redirect_stdout(io.StringIO()) as output:
        try:
            work(target)
        except UserError as error:
            return output.getvalue(), str(error)
    return output.getvalue(), ""


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> Iterator[Result]:
    """Yield what a function returns for each item, in their order, from so many processes; they show no progress.

    Args:
        function: of a module, or a `functools.partial` of one; it is sent to other processes.
        items: one or more.
        jobs: processes, at most.

    Raises:
        UserError: a process was ended from outside, and whatever the function raises.
    """
    pool = ProcessPoolExecutor(min(jobs, len(items)), get_context("spawn"), _one_thread)
    try:
        yield from pool.map(function, items)
    except BrokenProcessPool:
        raise UserError("a process was ended before its work was done, perhaps for memory: give fewer --jobs") from None
    except BaseException:
        for child in active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    """Prepare a process, before torch is imported: one thread, no progress, a silent end on Ctrl-C."""
    os.environ.update({"OMP_NUM_THREADS": "1", QUIET: "1"})
    signal.signal(signal.SIGINT, signal.SIG_DFL)
