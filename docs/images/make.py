"""Make the images of the documentation, and record what each was made from.

    python docs/images/make.py sheet splats/photos photographs.webp     # of a folder that `z1g infer` wrote
    python docs/images/make.py film splats/photos/duck.turntable.mp4    # film.webp
    python docs/images/make.py held_out results base                    # held_out.webp, of a run in a results folder
    python docs/images/make.py demo results finetuned                   # demo.webp, of the demo's objects
    python docs/images/make.py curve                                    # learning_curve.svg, of docs/learning_curve.csv
    python docs/images/make.py kinds                                    # representations.svg, of its .csv in docs/

`record.json` has for each image its digest, the command, the version of the recipe and digests of what it was made
from. `tests/workflow/test_docs_images.py` compares it with the files: an image is stale when its recipe's version or a
file of the repository that it was made from is another one.
"""

import argparse
import csv
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from io import BytesIO
from math import ceil, floor, log10
from pathlib import Path
from statistics import mean

from PIL import Image, ImageDraw, ImageFont, ImageSequence

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "images"
RECORD = "record.json"
VERSIONS = {"sheet": 1, "film": 1, "held_out": 1, "demo": 1, "curve": 2, "kinds": 1, "kept": 1}
"""Versions of the recipes; raised when a recipe makes other images of the same files. `kept`: made elsewhere."""
WHITE, INK = (255, 255, 255), (60, 60, 60)
LABEL = 16
FILM_SIDE, FILM_FRAMES, FILM_BYTES = 256, 48, 1_500_000
CURVE = "learning_curve.csv"
"""Columns: objects, equal (steps or epochs), seed, psnr."""
KINDS = "representations.csv"
"""Columns: metric, kind, a value for each seed, and of the difference to the first kind half the interval over objects
(`margin`) and both ends of that over objects and seeds; the kind `nearest` is a line.
"""
COLORS = ("#1b6ca8", "#c0532b", "#3a7d44", "#7b4fa3")
PANELS = {"psnr": ("PSNR, dB: more is better", 0.5, 1), "st_lpips": ("ST-LPIPS: less is better", 0.02, 2)}
"""Title, distance of ticks and their decimals by metric."""
Made = tuple[str, bytes, list[Path]]
"""Name of an image, its content, and the files that it was made from."""


def sheet(options: argparse.Namespace) -> Made:
    """Condition and two views of the splats of each photograph of a folder, four photographs a row."""
    results = sorted(path for path in options.folder.glob("*.json") if "outputs" in json.loads(path.read_text()))
    if not results:
        raise SystemExit(f"{options.folder} has no results of z1g infer")
    cells = []
    for result in results:
        outputs = json.loads(result.read_text())["outputs"]
        with Image.open(options.folder / outputs["sheet"]) as views:
            side = views.width // 2
            # The sheet has the six input views, two a row: view 1 is from above, view 2 from below.
            pair = [views.convert("RGB").crop((x * side, 0, (x + 1) * side, side)) for x in range(2)]
        with Image.open(options.folder / outputs["condition"]) as condition:
            cells.append((result.stem.replace("_", " "), [condition.convert("RGB"), *pair]))
    return options.name, _webp(_grid(cells, options.side, 4)), results


def film(options: argparse.Namespace) -> Made:
    """A turntable as an animated WebP below 1.5 MB."""
    frames = _frames(options.file)
    step = max(1, len(frames) // FILM_FRAMES)
    small = [frame.resize((FILM_SIDE, FILM_SIDE), Image.Resampling.LANCZOS) for frame in frames[::step]]
    for quality in (85, 70, 55, 40):
        content = _webp(small[0], quality, save_all=True, append_images=small[1:], duration=4000 // len(small), loop=0)
        if len(content) < FILM_BYTES:
            return "film.webp", content, [options.file]
    raise SystemExit(f"{options.file}: more than {FILM_BYTES} bytes at any quality")


def held_out(options: argparse.Namespace) -> Made:
    """Condition, truth and sample of held-out objects, evenly spaced from the worst to the best."""
    return _strip("held_out.webp", options, "test", ("condition", "truth", "sampled"))


def demo(options: argparse.Namespace) -> Made:
    """All objects of the demo: condition, truth, stage 1 on the true code, sample; held-out objects first."""
    return _strip("demo.webp", options, "", ("condition", "truth", "autodecoder", "sampled"))


def curve(options: argparse.Namespace) -> Made:
    """Held-out PSNR over the number of training objects, mean and range over seeds."""
    file = ROOT / "docs" / CURVE
    points: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            points[row["equal"]][int(row["objects"])].append(float(row["psnr"]))
    if not points:
        raise SystemExit(f"{file} has no rows")
    return "learning_curve.svg", _chart(points).encode(), [file]


def kinds(options: argparse.Namespace) -> Made:
    """Held-out metrics of samples of each kind of representation, and intervals of the differences to the first."""
    file = ROOT / "docs" / KINDS
    rows: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            rows[row["metric"]][row["kind"]] = row
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 240" font-family="sans-serif" font-size="12">',
        '<rect width="740" height="240" fill="white"/>',
    ]
    for i, metric in enumerate(PANELS):
        parts += _panel(rows[metric], *PANELS[metric], left=100 + 330 * i, named=i == 0)
    key = "Dots: seeds. Bars: 95 % intervals of the difference to the mosaic's mean, the dashed line,"
    key += " over objects; thin: over objects and seeds"
    parts.append(f'<text x="30" y="228" font-size="11" fill="#666">{key}</text>')
    return "representations.svg", "\n".join([*parts, "</svg>"]).encode() + b"\n", [file]


def keep(options: argparse.Namespace) -> Made:
    """Record an image that another command made, named by --by."""
    return options.name, (FOLDER / options.name).read_bytes(), []


def _strip(image: str, options: argparse.Namespace, split: str, kinds: Sequence[str]) -> Made:
    plan = json.loads((options.results / "ablations" / options.run / "plan.json").read_text())
    folder = options.results / "metrics" / plan["stages"]["metrics"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    quality: dict[str, list[float]] = defaultdict(list)
    splits = {}
    for row in rows:
        if row["source"] == "sampled" and isinstance(row.get("psnr"), int | float):
            quality[row["object"]].append(row["psnr"])
            splits[row["object"]] = row["split"]
    names = sorted((name for name in quality if splits[name].startswith(split)), key=lambda name: mean(quality[name]))
    if not names:
        raise SystemExit(f"{folder} has no measured objects of this split")
    count = min(options.count, len(names))
    chosen = [names[round(i * (len(names) - 1) / max(1, count - 1))] for i in range(count)]
    chosen.sort(key=lambda x: (splits[x] == "train", -mean(quality[x])))
    cells, files = [], []
    for object_id in chosen:
        paths = [folder / "images" / f"{object_id}.{kind}.png" for kind in kinds]
        trained = ", trained" if splits[object_id] == "train" else ""
        label = f"{object_id.rpartition('-')[0]} {mean(quality[object_id]):.1f} dB{trained}"
        cells.append((label, [Image.open(path).convert("RGB") for path in paths]))
        files += paths
    return image, _webp(_grid(cells, options.side, 2)), files


def _grid(cells: Sequence[tuple[str, Sequence[Image.Image]]], side: int, columns: int) -> Image.Image:
    """Labelled rows of images, `columns` of them side by side."""
    columns = min(columns, len(cells))
    width, height = len(cells[0][1]) * side + 8, side + LABEL
    image = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), WHITE)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(11)
    for i, (label, parts) in enumerate(cells):
        x, y = i % columns * width, i // columns * height
        for k, part in enumerate(parts):
            image.paste(part.resize((side, side), Image.Resampling.LANCZOS), (x + k * side, y))
        draw.text((x + 2, y + side + 1), label, INK, font)
    return image


def _frames(file: Path) -> list[Image.Image]:
    if file.suffix != ".mp4":
        with Image.open(file) as film:
            return [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
    import imageio_ffmpeg

    stream = imageio_ffmpeg.read_frames(str(file))
    size = next(stream)["size"]
    return [Image.frombytes("RGB", size, frame) for frame in stream]


def _chart(points: dict[str, dict[int, list[float]]]) -> str:
    """An SVG with one line per kind of budget; the axis of objects is logarithmic."""
    objects = sorted({n for line in points.values() for n in line})
    values = [v for line in points.values() for many in line.values() for v in many]
    low, high = min(values) - 0.5, max(values) + 0.5
    first, span = log10(objects[0]), max(log10(objects[-1]) - log10(objects[0]), 1e-9)

    def at(n: int, value: float) -> tuple[float, float]:
        return 60 + 400 * (log10(n) - first) / span, 250 - 220 * (value - low) / (high - low)

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 620 300" font-family="sans-serif" font-size="12">',
        '<rect width="620" height="300" fill="white"/>',
        '<text x="60" y="18">PSNR of held-out samples, dB</text><text x="220" y="292">training objects</text>',
    ]
    lowest_label = 0.0
    parts += [f'<text x="{at(n, low)[0]:.1f}" y="268" text-anchor="middle">{n:,}</text>' for n in objects]
    for value in range(int(low) + 1, int(high) + 1):
        y = at(objects[0], value)[1]
        parts.append(f'<text x="30" y="{y + 4:.1f}">{value}</text><path d="M60 {y:.1f}H460" stroke="#ddd"/>')
    from_the_top = sorted(points.items(), key=lambda named: -mean(named[1][max(named[1])]))
    for (name, line), color in zip(from_the_top, COLORS, strict=False):
        middle = [at(n, mean(line[n])) for n in sorted(line)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in middle)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        for n in sorted(line):
            (x, top), (_, bottom) = at(n, max(line[n])), at(n, min(line[n]))
            parts.append(f'<path d="M{x:.1f} {top:.1f}V{bottom:.1f}" stroke="{color}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in middle]
        x, y = middle[-1]
        lowest_label = max(y + 4, lowest_label + 15)  # labels of lines that end together are below each other
        parts.append(f'<text x="{x + 8:.1f}" y="{lowest_label:.1f}" fill="{color}">equal {name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(
    rows: dict[str, dict[str, str]], title: str, tick: float, decimals: int, left: int, named: bool
) -> list[str]:
    """A row of dots for each kind, from top to bottom as in the table; values are on the horizontal axis."""
    rows = dict(rows)
    seeds = {kind: [float(row[key]) for key in row if key.startswith("seed_")] for kind, row in rows.items()}
    nearest, first = mean(seeds["nearest"]), mean(seeds[next(iter(rows))])
    ends = [first + float(row[key]) for row in rows.values() for key in ("low", "high") if row[key]]
    values = [*ends, *(v for many in seeds.values() for v in many)]
    low, span = min(values) - 0.05 * (max(values) - min(values)), 1.1 * (max(values) - min(values))
    del rows["nearest"]

    def at(value: float) -> float:
        return left + 290 * (value - low) / span

    parts = [f'<text x="{left}" y="16" font-weight="bold">{title}</text>']
    for i in range(ceil(low / tick), floor((low + span) / tick) + 1):
        x = at(i * tick)
        parts.append(f'<path d="M{x:.1f} 40V192" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="206" text-anchor="middle">{i * tick:.{decimals}f}</text>')
    parts.append(f'<path d="M{at(first):.1f} 40V192" stroke="{COLORS[0]}" stroke-dasharray="3 3"/>')
    parts.append(f'<path d="M{at(nearest):.1f} 40V192" stroke="#777" stroke-width="2"/>')
    parts.append(f'<text x="{at(nearest):.1f}" y="34" text-anchor="middle" fill="#777">nearest</text>')
    for i, ((kind, row), color) in enumerate(zip(rows.items(), COLORS, strict=True)):
        y, middle = 60 + 38 * i, mean(seeds[kind])
        if named:
            parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end" fill="{color}">{kind}</text>')
        if row["margin"]:
            margin = float(row["margin"])
            thin = at(first + float(row["low"])), at(first + float(row["high"]))
            thick = at(middle - margin), at(middle + margin)
            for (start, end), style in ((thin, ""), (thick, ' stroke-width="5" stroke-opacity="0.4"')):
                parts.append(f'<path d="M{start:.1f} {y}H{end:.1f}" stroke="{color}"{style}/>')
        parts += [f'<circle cx="{at(v):.1f}" cy="{y}" r="3.5" fill="{color}"/>' for v in seeds[kind]]
    return parts


def _webp(image: Image.Image, quality: int = 85, **more: object) -> bytes:
    stream = BytesIO()
    image.save(stream, "WEBP", quality=quality, method=6, **more)
    return stream.getvalue()


def digest(content: bytes) -> str:
    """SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def entry(recipe: str, content: bytes, files: Sequence[Path], command: str) -> dict[str, object]:
    """What the record has of an image. Files of the repository are listed, others have one digest together."""
    inside = {file.resolve().relative_to(ROOT).as_posix(): digest(file.read_bytes())
              for file in files if file.resolve().is_relative_to(ROOT / "docs")}  # fmt: skip
    others = [file for file in files if not file.resolve().is_relative_to(ROOT / "docs")]
    together = digest("".join(digest(file.read_bytes()) for file in others).encode()) if others else None
    values = {"recipe": recipe, "version": VERSIONS[recipe], "command": command, "sha256": digest(content)}
    return {**values, "repository": inside, "other files": together}


RECIPES: dict[str, Callable[[argparse.Namespace], Made]] = {
    "sheet": sheet, "film": film, "held_out": held_out, "demo": demo, "curve": curve, "kinds": kinds,
    "kept": keep,
}  # fmt: skip


def main(words: Sequence[str]) -> None:
    """Make one image and its entry in the record."""
    options = _parser().parse_args(words)
    name, content, files = RECIPES[options.recipe](options)
    command = options.by if options.recipe == "kept" else f"python docs/images/make.py {' '.join(words)}"
    out = options.out / name
    out.write_bytes(content)
    record = options.out / RECORD
    entries = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    entries[name] = entry(options.recipe, content, files, command)
    record.write_text(json.dumps(dict(sorted(entries.items())), indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{out}: {len(content) / 1e6:.2f} MB\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the images and of their record")
    parser.add_argument("--side", type=int, default=128, help="side of one image, pixels")
    recipes = parser.add_subparsers(dest="recipe", required=True)
    one = recipes.add_parser("sheet")
    one.add_argument("folder", type=Path)
    one.add_argument("name")
    recipes.add_parser("film").add_argument("file", type=Path)
    for name, count in (("held_out", 8), ("demo", 8)):
        one = recipes.add_parser(name)
        one.add_argument("results", type=Path)
        one.add_argument("run")
        one.add_argument("--count", type=int, default=count)
    recipes.add_parser("curve")
    recipes.add_parser("kinds")
    one = recipes.add_parser("kept")
    one.add_argument("name")
    one.add_argument("--by", required=True, help="the command that made it")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
