"""How fast stage 1 trains: the original's way against ours, variant by variant, and where the time goes."""

import gc
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from z1g.bench import seed_way
from z1g.bench.machine import MIB, device_name, versions
from z1g.bench.made_up import OBJECTS, MadeUpScenes, Sizes, experiment
from z1g.codes._book import EncodedBook
from z1g.config.resolve import resolve
from z1g.config.tree import Experiment
from z1g.config.yaml_file import read_yaml
from z1g.data.sources.meshes import Meshes
from z1g.errors import UserError
from z1g.losses import weighted_sum
from z1g.networks.stage1 import Stage1
from z1g.objectives.autodecoder import AutodecoderObjective
from z1g.training.data import Batch, StepData
from z1g.training.loop import Trainer
from z1g.training.options import SpeedOptions

WARM_UP = 2
TOP_KERNELS = 15
COMPILE = {"compile": "default", "autotune": "max-autotune-no-cudagraphs"}
log = logging.getLogger("z1g")


def measure(
    sizes: Sizes, variants: Sequence[str], steps: int, seconds: float, base: Path | None = None, *, seed: bool = True
) -> dict[str, Any]:
    """Samples a second of the original's way and of each variant, over `steps` steps after a warm-up.

    A variant is a batch size with what is on: `b8+bf16+compile+channels_last` (bf16: LPIPS in bfloat16; autotune:
    compile with a search; fold, recompute: see `SpeedOptions`; micro4: four objects a pass). base: a scale's YAML file
    whose sizes, losses and trained parts are timed instead. What fails is reported in its place; after `seconds` no
    further variant begins. Raises UserError where a variant has no meaning.
    """
    parsed = {text: Variant.parse(text) for text in variants}
    began = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = _Bench(sizes, base, device, steps)
    figures: dict[str, Any] = {"sizes": bench.about(), "device": device_name(str(device)), "versions": versions()}
    figures["matmul_bf16_tflops"] = _guarded(lambda: round(_matmul_tflops(device), 2))
    figures["tflop_a_sample"] = _guarded(lambda: round(bench.flops() / 1e12, 4))
    if seed:
        figures["seed_way"] = _guarded(bench.seed_way)
    rows: dict[str, Any] = {}
    for text, variant in parsed.items():
        if time.perf_counter() - began > seconds:
            rows[text] = {"skipped": f"{seconds:g} s were over"}
            continue
        rows[text] = _guarded(lambda variant=variant: bench.time(variant))  # type: ignore[misc]
        log.info("%s: %s", text, rows[text])
    figures["variants"] = rows
    timed = {text: row["samples_per_s"] for text, row in rows.items() if "samples_per_s" in row}
    if timed:
        best = max(timed, key=timed.__getitem__)
        figures |= {"best": best, "samples_per_s": timed[best]}
        if isinstance(figures["tflop_a_sample"], float):
            figures["tflops"] = round(timed[best] * figures["tflop_a_sample"], 2)
        if seed and "samples_per_s" in figures["seed_way"]:
            figures["ratio"] = round(timed[best] / figures["seed_way"]["samples_per_s"], 2)
        figures["ms_a_sample"] = _guarded(lambda: bench.parts(parsed[best]))
        figures["kernels"] = _guarded(lambda: bench.kernels(parsed[best]))
    return figures


@dataclass(frozen=True)
class Variant:
    """One way to train: objects a step, objects a pass, precision of LPIPS, and the options of speed."""

    batch: int
    micro_batch: int | None
    lpips: str
    speed: SpeedOptions

    @classmethod
    def parse(cls, text: str) -> "Variant":
        """From `b8+bf16+compile`. Raises UserError."""
        first, *words = text.split("+")
        known = {"bf16", "channels_last", "recompute", "fold", *COMPILE}
        micro = [word for word in words if word.startswith("micro") and word[5:].isdigit()]
        if not (first[:1] == "b" and first[1:].isdigit() and set(words) <= {*known, *micro}):
            raise UserError(
                f"{text}: a variant reads b8, b8+bf16+micro4, ...; known words are {', '.join(sorted(known))}"
            )
        modes = [mode for word, mode in COMPILE.items() if word in words]
        speed = SpeedOptions(
            compile=modes[0] if modes else "off",  # type: ignore[arg-type]
            channels_last="channels_last" in words,
            fold_upsampling="fold" in words,
            recompute="recompute" in words,
        )
        return cls(int(first[1:]), int(micro[0][5:]) if micro else None, "bf16" if "bf16" in words else "fp32", speed)


class _Bench:
    """Builds what is timed and takes it down again."""

    def __init__(self, sizes: Sizes, base: Path | None, device: torch.device, steps: int) -> None:
        self.sizes, self.device, self.steps = sizes, device, steps
        self.own_losses = base is not None
        self.config = experiment(sizes) if base is None else resolve([read_yaml(base)])
        self.picture = sizes.picture if base is None else _resolution(self.config)
        self.scenes = MadeUpScenes(self.config, self.picture)

    def about(self) -> dict[str, Any]:
        options = self.config.autodecoder
        return {
            "views": options.views, "picture": self.picture, "splats": self.config.splat.size,
            "inputs": options.input_size, "steps": self.steps,
        }  # fmt: skip

    def stage1(self) -> Stage1:
        stage1 = Stage1.create(self.config)
        if not self.own_losses:
            # Published weights leave the encoder as it is.
            stage1.encoder.requires_grad_(False)
            stage1.decoder.post_quant_conv.requires_grad_(False)
        return stage1

    @contextmanager
    def trainer(self, variant: Variant, n: int) -> Iterator[tuple[Trainer, Iterator[Batch]]]:
        """A trainer of the variant and its first `n` batches."""
        options = self.config.autodecoder
        losses = dict(options.losses)
        for name, loss in losses.items():
            if "precision" in type(loss).model_fields:
                losses[name] = loss.model_copy(update={"precision": variant.lpips})
        train = options.train.model_copy(
            update={"batch_size": variant.batch, "micro_batch": variant.micro_batch, "speed": variant.speed, "steps": n}
        )
        changed = options.model_copy(update={"losses": losses, "train": train})
        config = self.config.model_copy(update={"autodecoder": changed})
        objective = AutodecoderObjective(
            config, self.stage1(), EncodedBook(sample=True), self.scenes, self.scenes.ids, None, cache="device"
        )
        data = StepData(objective.sample, OBJECTS, variant.batch, train.seed, in_memory=True)
        with tempfile.TemporaryDirectory(prefix="z1g-bench-") as folder:
            trainer = Trainer(objective, data, train, Path(folder))
            objective.train()
            yield trainer, iter(data.batches(0, n, 0, 1, 0))

    def flops(self) -> float:
        """Floating point operations of one object's step, a product and a sum counted as two; rasterizing aside."""
        with _cleared(self.device), self.trainer(Variant.parse("b1"), 1) as (trainer, batches):
            with FlopCounterMode(display=False) as counter:
                trainer._step(0, next(batches))
            return float(counter.get_total_flops())

    def seed_way(self) -> dict[str, Any]:
        """The original's way, one object a step."""
        with _cleared(self.device), self.trainer(Variant.parse("b1"), WARM_UP + self.steps) as (trainer, batches):
            objective = trainer.objective
            step = seed_way.step_function(self.config, self.stage1(), self.sizes.perceptual, self.device)

            def one() -> None:
                step(self._prepared(objective, next(batches)))

            row = self._timed(one, 1)
        return {**row, "rasterizer": seed_way.rasterizer(self.device)[1]}

    def time(self, variant: Variant) -> dict[str, Any]:
        """One variant through the training loop's own step."""
        with _cleared(self.device), self.trainer(variant, WARM_UP + self.steps) as (trainer, batches):
            count = iter(range(WARM_UP + self.steps))
            return self._timed(lambda: trainer._step(next(count), next(batches)), variant.batch)

    def parts(self, variant: Variant) -> dict[str, float]:
        """Milliseconds an object of each part by itself, forward and backward where gradients flow through it."""
        with _cleared(self.device), self.trainer(variant, 1) as (trainer, batches):
            objective: Any = trainer.objective
            raw = {name: value.to(self.device) for name, value in next(batches).items()}
            size = variant.micro_batch or variant.batch
            raw = {name: value[:size] for name, value in raw.items()}
            batch = self._prepared(objective, raw)
            autocast = trainer.accelerator.autocast
            with torch.no_grad(), autocast():
                code = objective.encode(batch, "sample")
                splats = objective.decoder(code)
            leaf = splats.detach().requires_grad_(True)
            pair = objective.compare(leaf, batch)
            upstream = torch.randn_like(splats)
            drawn = pair.rgb.detach().requires_grad_(True)
            lpips = {n: x for n, x in objective.options.losses.items() if "precision" in type(x).model_fields}
            rest = {n: x for n, x in objective.options.losses.items() if n not in lpips}

            def encode() -> None:
                with torch.set_grad_enabled(self.own_losses), autocast():
                    out = objective.encode(batch, "sample")
                if out.requires_grad:
                    out.float().sum().backward()

            def decode(backward: bool) -> None:
                with torch.set_grad_enabled(backward), autocast():
                    out = objective.decoder(code)
                if backward:
                    out.backward(upstream)

            def rasterize() -> None:
                out = objective.compare(leaf, batch)
                (out.rgb.sum() + out.alpha.sum()).backward()

            def terms(losses: Any, **changes: Tensor) -> Callable[[], None]:
                def run() -> None:
                    moved = type(pair)(**{**pair.__dict__, "splats": leaf, **changes})
                    with autocast():
                        weighted_sum(losses, moved)[0].backward()

                return run

            def optimise() -> None:
                trainer.accelerator.clip_grad_norm_(trainer.trained, 1.0)
                trainer.optimiser.step()

            def measured(work: Callable[[], object]) -> float:
                return round(float(self._timed(work, 1)["ms_a_step"]) / size, 3)

            found = {
                "data": measured(lambda: self._prepared(objective, raw)),
                "encoder": measured(encode),
                "decoder_forward": measured(lambda: decode(False)),
                "decoder": measured(lambda: decode(True)),
                "rasterizer": measured(rasterize),
            }
            if lpips:
                found["perceptual"] = measured(terms(lpips, rgb=drawn))
            if rest:
                found["other_losses"] = measured(terms(rest, rgb=drawn, alpha=pair.alpha.detach()))
            found["optimiser"] = round(self._timed(optimise, 1)["ms_a_step"] / variant.batch, 3)
            return found

    def kernels(self, variant: Variant) -> list[dict[str, Any]]:
        """What takes longest on the device (else on the host): milliseconds an object, share of all."""
        cuda = self.device.type == "cuda"
        with _cleared(self.device), self.trainer(variant, WARM_UP + 1) as (trainer, batches):
            for i in range(WARM_UP):
                trainer._step(i, next(batches))
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
            with profile(activities=activities) as profiler:
                trainer._step(WARM_UP, next(batches))
                _wait(self.device)
        key = "self_device_time_total" if cuda else "self_cpu_time_total"
        times = [(getattr(event, key), event.key) for event in profiler.key_averages()]
        total = sum(t for t, _ in times) or 1.0
        return [
            {"name": name[:80], "ms": round(t / 1000 / variant.batch, 3), "share": round(t / total, 3)}
            for t, name in sorted(times, reverse=True)[:TOP_KERNELS]
        ]

    def _prepared(self, objective: Any, batch: Batch) -> Batch:
        with torch.no_grad():
            prepared: Batch = objective.prepare({name: value.to(self.device) for name, value in batch.items()})
        return prepared

    def _timed(self, work: Callable[[], object], batch: int) -> dict[str, Any]:
        began = time.perf_counter()
        for _ in range(WARM_UP):
            work()
        _wait(self.device)
        start = time.perf_counter()
        for _ in range(self.steps):
            work()
        _wait(self.device)
        took = (time.perf_counter() - start) / self.steps
        cuda = self.device.type == "cuda"
        return {
            "samples_per_s": round(batch / took, 3),
            "ms_a_step": round(1000 * took, 3),
            "warm_up_s": round(start - began, 1),
            "memory_mib": round(torch.cuda.max_memory_allocated() / MIB) if cuda else None,
        }


def _resolution(config: Experiment) -> int:
    if not isinstance(config.data, Meshes):
        raise UserError("a base to be timed needs data of kind 'meshes', which say how large pictures are")
    return config.data.blender.resolution


@contextmanager
def _cleared(device: torch.device) -> Iterator[None]:
    """Begin without what the measurement before left behind."""
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield


def _guarded(work: Callable[[], Any]) -> Any:
    """What the work returns or, where it fails, the reason: one part must not take the others along."""
    try:
        return work()
    # Out of memory, a missing compiler, a kernel that does not build: anything may happen on a machine not seen before.
    except Exception as error:
        log.warning("failed: %s", error)
        return {"failed": f"{type(error).__name__}: {error}".split("\n")[0][:300]}


def _matmul_tflops(device: torch.device) -> float:
    n, repeats = (8192, 20) if device.type == "cuda" else (512, 3)
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        a @ b
    _wait(device)
    return 2 * n**3 * repeats / (time.perf_counter() - start) / 1e12


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
