"""Measurements of another system beside a synthetic results folder, as `z1g evaluate` writes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from z1g.core.files import write_jsonl
from z1g.core.sealed import write_sealed
from z1g.jobs.records import digests
from z1g.report.peers import FILES, peer_owner

METRICS = {
    "psnr": {"label": "PSNR", "unit": "dB", "higher_is_better": True, "reference": "10·log10(1/MSE)"},
    "chamfer": {"label": "Chamfer", "unit": "size", "higher_is_better": False, "reference": "", "scope": "object"},
}


def write_peer(
    results: Path,
    name: str,
    values: dict[str, float],
    train: Sequence[str] = (),
    views: Sequence[int] = (0, 1, 2),
    images: dict[str, Image.Image] | None = None,
    **more: Any,
) -> None:
    """values: mean PSNR by object. train: objects of that split. images: by object. more: keys of the record."""
    folder = results / "peers" / name

    def split(o: str) -> str:
        return "train" if o in train else "test"

    rows = [
        {
            "object": o,
            "split": split(o),
            "source": "peer",
            "view": v,
            "azimuth_deg": 60.0 * v,
            "psnr": x + 0.1 * (v - 1),
        }
        for o, x in values.items()
        for v in views
    ]
    write_jsonl(folder / "metrics.jsonl", rows)
    objects = [
        {"object": o, "split": split(o), "source": "peer", "chamfer": 0.1 + i / 100} for i, o in enumerate(values)
    ]
    write_jsonl(folder / "objects.jsonl", objects)
    for o, image in (images or {}).items():
        (folder / "images").mkdir(exist_ok=True)
        image.save(folder / "images" / f"{o}.peer.png")
    record = {
        "metrics": METRICS, "missing": {}, "gaps": {}, "sets": [], "truth": {o: f"truth-{o}" for o in values},
        "peer": name, "like": "base", "frame": "lgm", "unknown": [], "registered": False, "registrations": {},
        "kinds": dict.fromkeys(values, "splats"), "n_evaluated": len(values), "wanted": sorted(values), "problems": {},
        "cost": None, "outputs": "out", "files": digests([folder / file for file in FILES], folder), **more,
    }  # fmt: skip
    write_sealed(folder / "peer.json", record, peer_owner(name))
