"""Results of threads in the order of their items, computed ahead of their use."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

AHEAD = 64
"""Number of results in memory."""
T = TypeVar("T")
R = TypeVar("R")


def prefetched(function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int = AHEAD) -> Iterator[R]:
    """Yield `function(item)` for each item in order, prefetched by threads. ahead: number of results in memory."""
    rest = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[R]] = deque(pool.submit(function, item) for item in islice(rest, ahead))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(rest, 1))
            yield result
