"""Size limits of one object's files."""

from pydantic import Field

from z1g.core.slots import MAX_COUNT, Section

MIB = 2**20


class FileLimits(Section):
    """Size limits of one object; larger objects are quarantined instead of filling disk or memory."""

    file_mb: int = Field(1024, ge=1, le=MAX_COUNT, description="size limit of a mesh file, MiB")
    unpacked_mb: int = Field(
        1024, ge=1, le=MAX_COUNT, description="size limit of an unpacked object of an archive, MiB"
    )
