"""The filters of PNG's rows, undone."""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def unfilter(rows: NDArray[np.uint8], image: NDArray[np.uint8]) -> bool:
    """Undo each row's filter (PNG specification, section 9.2) into `image`; False for an unknown filter."""
    zeros = np.zeros(image.shape[1], np.uint8)
    for i in range(len(image)):
        # One loop per filter, so that the compiler can vectorize the simple filters, which most rows use.
        kind, filtered, out = rows[i, 0], rows[i, 1:], image[i]
        above = image[i - 1] if i > 0 else zeros
        if kind == 0:
            out[:] = filtered
        elif kind == 1:
            _left(filtered, out)
        elif kind == 2:
            _up(filtered, above, out)
        elif kind == 3:
            _average(filtered, above, out)
        elif kind == 4:
            _paeth(filtered, above, out)
        else:
            return False
    return True


@njit(cache=True, nogil=True)
def _left(filtered: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    out[:4] = filtered[:4]
    for j in range(4, len(out)):
        out[j] = filtered[j] + out[j - 4]


@njit(cache=True, nogil=True)
def _up(filtered: NDArray[np.uint8], above: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    for j in range(len(out)):
        out[j] = filtered[j] + above[j]


@njit(cache=True, nogil=True)
def _average(filtered: NDArray[np.uint8], above: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    for j in range(len(out)):
        left = np.int32(out[j - 4]) if j >= 4 else np.int32(0)
        out[j] = filtered[j] + np.uint8((left + np.int32(above[j])) // 2)


@njit(cache=True, nogil=True)
def _paeth(filtered: NDArray[np.uint8], above: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    out[:4] = filtered[:4] + above[:4]
    for j in range(4, len(out)):
        left, up, corner = np.int32(out[j - 4]), np.int32(above[j]), np.int32(above[j - 4])
        to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
        if to_left <= to_up and to_left <= to_corner:
            guess = left
        elif to_up <= to_corner:
            guess = up
        else:
            guess = corner
        out[j] = filtered[j] + np.uint8(guess)
