"""Results that threads compute ahead."""

from collections.abc import Iterator

import pytest

from z1g.core.prefetch import prefetched


def test_objects_are_prefetched_in_order() -> None:
    started: list[int] = []

    def read(i: int) -> int:
        started.append(i)
        return i * i

    results: Iterator[int] = prefetched(read, range(200), 2)
    assert next(results) == 0
    assert max(started) < 100, "not all at once"
    assert list(results) == [i * i for i in range(1, 200)]


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_results_wait_than_allowed(ahead: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(10):
            taken.append(i)
            yield i

    results = prefetched(lambda i: i * i, items(), 2, ahead)
    assert [(next(results), len(taken)) for _ in range(3)] == [(i * i, i + 1 + ahead) for i in range(3)]
