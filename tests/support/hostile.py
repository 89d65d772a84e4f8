"""Files, folders and words that no command can use, or that it must survive."""

import itertools
import os
import stat
from pathlib import Path

NUMBERS = (
    "-1", "0", "1", "999999999", "99999999999999999999", "-99999999999999999999", "9" * 5000, "1e309", "-inf", "nan",
    "NaN", "1.5", "0x10", "1_000", "٣", "²", " 3 ", "1,2", "+5", "true",
)  # fmt: skip
WORDS = (
    "", " ", "\n", "\t\r", "-", "--", "---", "--help-me", "-h=", "é", "日本", "a\nb", "\x1b[31mred", "%s%n", "{0}",
    "${HOME}", "~", "*", "[", "[!", "a" * 300, "../" * 40 + "x", "n/" * 3000, "caf\udce9", "\udcff" * 40, "=", "a=b",
    "null", "None", "http://127.0.0.1:9/x.ply", "s3://x/y", "C:\\x", "file:///etc/hostname", "micro/../micro",
)  # fmt: skip
ENDINGS = (
    "ply", "splat", "spz", "glb", "gltf", "obj", "fbx", "usdz", "blend", "stl", "zip", "sh3f", "csv", "json", "jsonl",
    "yaml", "png", "jpg", "webp", "npy", "safetensors", "tar", "pt",
)  # fmt: skip
HUGE_BYTES = 2**40


def places(folder: Path) -> list[str]:
    """Make hostile files and folders in `folder`; their names, relative to its parent."""
    folder.mkdir()
    os.mkfifo(folder / "fifo")
    for ending in ENDINGS:
        os.mkfifo(folder / f"fifo.{ending}")
        (folder / f"folder.{ending}").mkdir()
        (folder / f"empty.{ending}").touch()
        (folder / f"noise.{ending}").write_bytes(bytes(range(256)) * 9)
        (folder / f"zeros.{ending}").write_bytes(bytes(5000))
        (folder / f"lines.{ending}").write_text("[]\n{}\n3\n" * 9)
        with (folder / f"huge.{ending}").open("wb") as file:
            file.truncate(HUGE_BYTES)
        (folder / f"loop.{ending}").symlink_to(f"loop.{ending}")
        (folder / f"zero.{ending}").symlink_to("/dev/zero")
        (folder / f"null.{ending}").symlink_to("/dev/null")
        (folder / f"unreadable.{ending}").write_text("{}")
        (folder / f"unreadable.{ending}").chmod(0)
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "inside").symlink_to(".")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "deep.yaml").write_text("[" * 100_000)
    (folder / "deep.jsonl").write_text("[" * 100_000 + "\n")
    doubled = "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in itertools.pairwise("abcdefghijk"))
    (folder / "bomb.yaml").write_text(f"a: &a [1]\n{doubled}")
    Path(os.fsdecode(bytes(folder) + b"/n\xff.ply")).write_bytes(b"ply\n")
    if os.geteuid() == 0:
        os.mknod(folder / "device", stat.S_IFCHR | 0o666, os.makedev(1, 7))  # /dev/full
    closed = folder / "closed"
    closed.mkdir()
    (closed / "x.ply").touch()
    closed.chmod(0)
    readonly = folder / "readonly"
    readonly.mkdir()
    readonly.chmod(0o555)
    names = [str(path.relative_to(folder.parent)) for path in sorted(folder.iterdir())]
    return [*names, *(f"{folder.name}/{name}" for name in MISSING), *SYSTEM]


MISSING = ("none", "none/none", "empty.ply/x", "closed/x.ply", "readonly/x.ply", "readonly/new", "dangling/x", "loop/x")
SYSTEM = ("/proc/self/mem", "/proc/x", "/sys/x", ".", "..")
"""Places that every Linux has, in which nothing can be written."""


def truncated(file: Path, folder: Path) -> list[Path]:
    """Copies of a file of the first half, without the last byte, and with a byte changed in the middle."""
    content = file.read_bytes()
    half = len(content) // 2
    damaged = content[:half] + bytes([content[half] ^ 0xFF]) + content[half + 1 :]
    paths = []
    for name, part in (("half", content[:half]), ("cut", content[:-1]), ("flipped", damaged)):
        paths.append(folder / f"{name}-{file.name}")
        paths[-1].write_bytes(part)
    return paths
