"""A small synthetic results folder with the layout of the stages."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from z1g.core.files import write_json, write_jsonl, write_text

TEST = ("chair", "horse")
TRAIN = ("barrel", "bread", "chicken", "crate")
METRICS = {
    "psnr": {"label": "PSNR", "unit": "dB", "higher_is_better": True, "reference": "10·log10(1/MSE)"},
    "ssim": {"label": "SSIM", "unit": "", "higher_is_better": True, "reference": "Wang et al. 2004"},
    "chamfer": {
        "label": "Chamfer",
        "unit": "size",
        "higher_is_better": False,
        "reference": "Fan et al.",
        "scope": "object",
    },
    "fd": {"label": "FD", "unit": "", "higher_is_better": False, "reference": "Heusel et al.", "scope": "set"},
    "st_lpips": {"label": "ST-LPIPS", "unit": "", "higher_is_better": False, "reference": "Ghildyal & Liu 2022"},
}
LEVEL = {"fitted": 34.0, "autodecoder": 27.0, "sampled": 20.0, "nearest": 16.5, "mean_code": 14.0}


def build(root: Path, ablations: dict[str, dict[str, Any]], images: int = 0) -> None:
    """Write a results tree. Each ablation: {"seed": number, "stage1": id, "gain": dB, "config": {...}, ...}.

    `"plan"` has further keys of plan.json.
    """
    for name, spec in ablations.items():
        ids = {"ingest": "in00", "fit": "fi00", "autodecoder": spec["stage1"], "codes": f"co-{spec['stage1']}"}
        ids |= {stage: f"{stage[:2]}-{name}" for stage in ("unet", "infer", "metrics")}
        folder = root / "ablations" / name
        about = {"name": name, "description": spec.get("description", ""), "base": "scratch", "stages": ids}
        about |= spec.get("plan", {})
        write_json(folder / "plan.json", about)
        write_json(folder / "config.json", spec.get("config", {}))
        _data(root, ids)
        for number, stage in enumerate(("autodecoder", "unet")):
            _history(root / stage / ids[stage], seed=spec["seed"] + number)
        _metrics(root / "metrics" / ids["metrics"], spec, images)
        if images:
            _turntables(root / "infer" / ids["infer"] / "chunk-00000", spec, images)


def _data(root: Path, ids: dict[str, str]) -> None:
    names = [*TEST, *TRAIN]
    ok = [{"id": n, "status": "ok", "reason": None, "seconds": 2.5} for n in names]
    bad = {"id": "torn", "status": "quarantined", "reason": "unreadable mesh: no faces", "seconds": 0.1}
    ingest = root / "ingest" / ids["ingest"]
    write_jsonl(ingest / "chunk-00000.jsonl", [*ok, bad])
    write_jsonl(ingest / "manifest.jsonl", [{"chunk_size": 8}, *map(_entry, names)])
    Image.new("RGB", (64, 40), (200, 30, 30)).save(ingest / "chunk-00000.png")
    fits = [
        {"id": n, "status": "ok", "psnr": 30.0 + i, "steps": 200, "seconds": 4.0, "below_minimum": i == 0}
        for i, n in enumerate(names)
    ]
    write_jsonl(root / "fit" / ids["fit"] / "chunk-00000.jsonl", fits)
    table = "s\th:m:s\tmax_rss\tmean_load\n61.5\t0:01:01\t1900.5\t95\n"
    write_text(root / "ingest" / ids["ingest"] / "benchmark" / "00000.tsv", table)


def _entry(name: str) -> dict[str, Any]:
    """A row of the manifest: two licenses, three creators, a copy."""
    whose = {"chair": ("CC BY 3.0", "Ann <b>"), "horse": ("CC BY 3.0", "Bob"), "bread": ("", "Cy"), "crate": ("", "")}
    terms, creator = whose.get(name, ("CC0 1.0", ""))
    copies = ["elsewhere/barrel.obj"] if name == "barrel" else []
    about = {"name": name.title(), "license": terms, "creator": creator, "copies": copies}
    return {"id": name, "source": f"m/{name}.obj", **{key: value for key, value in about.items() if value}}


def _history(folder: Path, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(size=400)
    rows: list[dict[str, Any]] = []
    for i in range(400):
        step = (i + 1) * 25
        loss = (0.6 * math.exp(-step / 1800) + 0.02 + 0.004 * (seed % 7)) * math.exp(0.1 * noise[i])
        rows.append({"step": step, "loss": loss, "lr": 1e-4, "seconds": step * 0.02})
        if (i + 1) % 20 == 0:
            rows[-1]["validation_psnr"] = 24 - 9 * math.exp(-step / 2500) - 0.4 * (seed % 7) + 0.1 * noise[i]
    write_jsonl(folder / "history.jsonl", rows)


def _metrics(folder: Path, spec: dict[str, Any], images: int) -> None:
    rows = []
    for number, name in enumerate((*TEST, *TRAIN)):
        for source, level in LEVEL.items():
            own = {"sampled": spec["gain"], "autodecoder": spec.get("gain1", 0.0)}
            gain = own.get(source, 0.0)
            for view in range(3):
                psnr = level + gain + 0.7 * number * (-1) ** number + 0.1 * view
                values = {"psnr": psnr, "ssim": 1 - 0.9 * 10 ** (-psnr / 30), "st_lpips": None}
                split = "test" if name in TEST else "train"
                head = {"object": name, "split": split, "source": source, "view": view, "azimuth_deg": 60.0 * view}
                rows.append({**head, **values})
    write_jsonl(folder / "metrics.jsonl", rows)
    write_jsonl(folder / "objects.jsonl", _objects(spec))
    sets = [
        {"split": split, "source": source, "images": 6, "fd": 300 - 5 * level}
        for split in ("test", "train")
        for source, level in LEVEL.items()
    ]
    gaps = {"chamfer": {"crate": "no mesh"}}
    about = {"metrics": METRICS, "missing": {"st_lpips": "no weights in the cache"}, "sets": sets, "gaps": gaps}
    about["truth"] = {name: f"truth-{name}" for name in (*TEST, *TRAIN)}
    write_json(folder / "metrics.json", {**about, "versions": {"torch": "2.9", "z1g": "0.1.0"}, "commit": "abc1234def"})
    if images:
        for number, name in enumerate((*TEST, *TRAIN)):
            for what in ("condition", "truth", *LEVEL):
                blur = 0.0 if what in ("condition", "truth") else (38 - LEVEL[what] - spec["gain"]) / 9
                image = draw(number, 30 if what == "condition" else 75, images)
                (folder / "images").mkdir(parents=True, exist_ok=True)
                blurred = image.filter(ImageFilter.GaussianBlur(blur * images / 128))
                blurred.save(folder / "images" / f"{name}.{what}.png")


def _objects(spec: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, name in enumerate((*TEST, *TRAIN)):
        for source, level in LEVEL.items():
            own = spec["gain"] if source == "sampled" else 0.0
            chamfer = None if name == "crate" else 0.2 - (level + own) / 200 + 0.001 * number
            split = "test" if name in TEST else "train"
            rows.append({"object": name, "split": split, "source": source, "chamfer": chamfer})
    return rows


def _turntables(folder: Path, spec: dict[str, Any], size: int) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate((*TEST, *TRAIN)):
        frames = [draw(number, angle, size) for angle in range(0, 360, 15)]
        if number == 1:
            frames[0].save(folder / f"{name}.sheet.png")
        else:
            options = {"save_all": True, "append_images": frames[1:], "duration": 80, "loop": 0}
            frames[0].save(folder / f"{name}.turntable.webp", **options)


def draw(kind: int, angle_deg: float, size: int) -> Image.Image:
    """Image of a rotated box or cylinder whose color and shape depend on `kind`."""
    corners = 4 if kind % 2 == 0 else 18
    radius, height = 0.22 + 0.02 * (kind % 4), 0.3 + 0.05 * (kind % 5)
    hue = (kind * 53) % 256
    around = [math.radians(angle_deg + 360 * i / corners) for i in range(corners)]
    base = [(0.5 + radius * math.cos(a), 0.62 + 0.4 * radius * math.sin(a), math.sin(a)) for a in around]
    image = Image.new("HSV", (size * 2, size * 2), (0, 0, 255))
    pen = ImageDraw.Draw(image)
    order = sorted(range(corners), key=lambda i: base[i][2] + base[(i + 1) % corners][2])
    for i in order:
        (x0, y0, _), (x1, y1, _) = base[i], base[(i + 1) % corners]
        shade = int(150 + 80 * math.cos(around[i] + math.pi / corners + 1))
        face = [(x0, y0), (x1, y1), (x1, y1 - height), (x0, y0 - height)]
        pen.polygon([(2 * size * x, 2 * size * y) for x, y in face], fill=(hue, 150, shade))
    pen.polygon([(2 * size * x, 2 * size * (y - height)) for x, y, _ in base], fill=(hue, 110, 235))
    return image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
