"""A checksum in the comment of a zip archive, such as those that `torch.save` writes.

PyTorch does not verify the checksums that zip archives have. In the comment at the end of the archive (APPNOTE.TXT,
4.3.16), a checksum of everything before it is part of the same file, which is written and renamed as a whole.
"""

from pathlib import Path

import xxhash

from z1g.core.files import require_regular
from z1g.core.sealed import Damaged

MARK = b"z1g xxh3 "
DIGITS = 32
COMMENT = len(MARK) + DIGITS
END, END_LENGTH = b"PK\x05\x06", 22
"""Signature and length of the last record of an archive; its last two bytes are the length of the comment."""
_BLOCK = 2**20


def seal(path: Path, owner: str) -> None:
    """Append a checksum of an archive without comment, and of `owner`, what it belongs to."""
    with path.open("r+b") as file:
        file.seek(-END_LENGTH, 2)
        if file.read(4) != END:
            raise ValueError(f"{path} is not a zip archive without a comment")
        file.seek(-2, 2)
        file.write(COMMENT.to_bytes(2, "little"))
    digest = _digest(path, path.stat().st_size, owner)
    with path.open("ab") as file:
        file.write(MARK + digest)


def require_sealed(path: Path, owner: str) -> None:
    """Raise Damaged unless the archive has its checksum, or is of an earlier version and has no comment.

    Raises OSError if it is no regular file.
    """
    require_regular(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - END_LENGTH, 0))
        tail = file.read()
        if tail[:4] == END and tail[-2:] == b"\0\0":
            return
        file.seek(max(size - COMMENT, 0))
        comment = file.read()
    if size <= COMMENT or comment != MARK + _digest(path, size - COMMENT, owner):
        raise Damaged("it does not have its checksum: it is damaged, or belongs elsewhere")


def _digest(path: Path, size: int, owner: str) -> bytes:
    """Checksum of the first `size` bytes."""
    digest = xxhash.xxh3_128(owner.encode())
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, _BLOCK))):
            digest.update(block)
            size -= len(block)
    return digest.hexdigest().encode()
