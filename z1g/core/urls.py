"""URLs of S3 buckets, and what is said where a path is needed. `z1g.core.s3` copies what is there."""

SCHEME = "s3://"
ON_DISK = "this must be on a disk (z1g list and --model read buckets, z1g publish writes to them: docs/storage.md)"
"""What is said of a URL in place of a path."""
TO_COPY = "runs read disks; copy and list it with `z1g list s3://BUCKET/PATH --out objects.jsonl`, and name that list"
"""What is said of a URL in place of objects."""
NO_STORAGE = "--default-storage-provider: results need locks and renaming; give results= on a disk (docs/storage.md)"
"""What is said of Snakemake's storage plugins."""


def is_url(text: str) -> bool:
    """Whether a text names something in a bucket."""
    return text.startswith(SCHEME)
