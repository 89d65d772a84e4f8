"""Benchmark of stage-1 training: the original's way, variants of ours, and time per part."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from z1g.bench import original_way as original_way
from z1g.bench.machine import TERA, device_name, guarded, matmul_rate, memory_mib, synchronize, versions
from z1g.bench.made_up import OBJECTS, MadeUpScenes, Sizes, experiment
from z1g.bench.variants import Variant
from z1g.codes.book import EncodedBook
from z1g.config.resolve import resolve
from z1g.config.tree import Experiment
from z1g.config.yaml_file import read_yaml
from z1g.core.device import default_device
from z1g.core.errors import UserError
from z1g.losses import weighted_sum
from z1g.objectives.autodecoder import AutodecoderObjective
from z1g.representations.codec import Codec
from z1g.representations.mosaic.codec import MosaicCodec
from z1g.sources.meshes import Meshes
from z1g.training.data import Batch, StepData
from z1g.training.loop import Trainer
from z1g.training.options import SpeedOptions

WARM_UP = 2
TOP_KERNELS = 15
FLAGS = ("autocast", "recompute", "unfused")
PLAIN = Variant.parse("b1", FLAGS)


def measure(
    sizes: Sizes,
    variants: Sequence[str],
    steps: int,
    seconds: float,
    base: Path | None = None,
    *,
    original: bool = True,
) -> dict[str, Any]:
    """Samples per second of the original's way and of each variant, over `steps` steps after one pass over all objects.

    A variant is a batch size with flags, such as `b8+recompute+micro4` (autocast: see `autodecoder.bf16`; recompute,
    unfused: see `SpeedOptions`; micro4: micro-batches of four objects). `base` is the YAML file of a scale whose sizes,
    losses and trained parts are timed instead. Errors are reported in place of figures. No variant starts after
    `seconds`. Raises UserError for an invalid variant.
    """
    parsed = {text: Variant.parse(text, FLAGS) for text in variants}
    began, device = time.perf_counter(), default_device()
    bench = _Bench(sizes, base, device, steps)
    figures: dict[str, Any] = {"sizes": bench.about(), "device": device_name(device.type), "versions": versions()}
    rate = guarded("matmul", lambda: {"tflops": round(matmul_rate(device), 2)}, device)
    work = guarded("work", bench.work, device)
    figures |= {"matmul_bf16_tflops": rate.get("tflops", rate), "work": work}
    figures["tflop_a_sample"] = work.get("tflop_a_sample")
    if original:
        figures["original_way"] = guarded("original_way", bench.original_way, device)
    rows: dict[str, Any] = {}
    for text, variant in parsed.items():
        if time.perf_counter() - began > seconds:
            rows[text] = {"skipped": f"no time left after {seconds:g} s"}
            continue
        rows[text] = guarded(text, partial(bench.time, variant), device)
    figures["variants"] = rows
    timed = {text: row["samples_per_s"] for text, row in rows.items() if "samples_per_s" in row}
    if timed:
        best = max(timed, key=timed.__getitem__)
        figures |= {"best": best, "samples_per_s": timed[best]}
        if "tflop_a_sample" in work:
            figures["tflops"] = round(timed[best] * work["tflop_a_sample"], 2)
        if original and "samples_per_s" in figures["original_way"]:
            figures["ratio"] = round(timed[best] / figures["original_way"]["samples_per_s"], 2)
        parts = guarded("parts", lambda: {"parts": bench.parts(parsed[best])}, device)
        figures["ms_a_sample"] = parts.get("parts", parts)
        kernels = guarded("kernels", partial(bench.kernels, parsed[best]), device)
        figures["kernels"] = kernels.get("kernels", kernels)
    return figures


class _Bench:
    """Builds trainers and times them."""

    def __init__(self, sizes: Sizes, base: Path | None, device: torch.device, steps: int) -> None:
        self.sizes, self.device, self.steps = sizes, device, steps
        self.own_losses = base is not None
        self.config = experiment(sizes) if base is None else resolve([read_yaml(base)])
        self.image = sizes.image if base is None else resolution(self.config)
        self.scenes = MadeUpScenes(self.config, self.image)

    def about(self) -> dict[str, Any]:
        options = self.config.autodecoder
        return {
            "views": options.views, "image": self.image, "splats": self.config.splat.size,
            "representation": self.config.representation.model_dump(mode="json"), "steps": self.steps,
        }  # fmt: skip

    def codec(self) -> Codec:
        codec = self.config.new_codec()
        if not self.own_losses:
            # With published weights, the encoder is frozen.
            codec.encoder.requires_grad_(False)
        return codec

    def mosaic(self) -> MosaicCodec:
        codec = self.codec()
        if not isinstance(codec, MosaicCodec):
            raise UserError("the original's way needs representation 'mosaic'")
        return codec

    @contextmanager
    def trainer(self, variant: Variant, n: int) -> Iterator[tuple[Trainer, Iterator[Batch]]]:
        """A trainer of the variant and its first `n` batches."""
        options = self.config.autodecoder
        train = options.train.model_copy(
            update={"batch_size": variant.batch, "micro_batch": variant.micro, "speed": _speed(variant), "steps": n}
        )
        bf16 = "autocast" if "autocast" in variant.on else "weights"
        changed = options.model_copy(update={"bf16": bf16, "train": train})
        config = self.config.model_copy(update={"autodecoder": changed})
        objective = AutodecoderObjective(
            config, self.codec(), EncodedBook(sample=True), self.scenes, self.scenes.ids, None, cache="device"
        )
        data = StepData(objective.sample, OBJECTS, variant.batch, train.seed, in_memory=True)
        with tempfile.TemporaryDirectory(prefix="z1g-bench-") as folder:
            trainer = Trainer(objective, data, train, Path(folder))
            objective.train()
            yield trainer, iter(data.batches(0, n, 0, 1, 0))

    def work(self) -> dict[str, Any]:
        """TFLOP of one object's step without rasterization; a multiply-add counts as two operations.

        A frozen encoder runs only at an object's first visit.
        """
        with self.trainer(PLAIN, OBJECTS + 1) as (trainer, batches):
            counts = []
            for i in range(OBJECTS + 1):
                with FlopCounterMode(display=False) as counter:
                    trainer._step(i, next(batches))
                counts.append(round(counter.get_total_flops() / TERA, 4))
        return {"tflop_a_sample": counts[-1], "tflop_first_visit": counts[0]}

    def original_way(self) -> dict[str, Any]:
        """Time the original's way, one object per step."""
        with self.trainer(PLAIN, WARM_UP + self.steps) as (trainer, batches):
            objective = trainer.objective
            step = original_way.step_function(self.config, self.mosaic(), self.sizes.perceptual, self.device)

            def run_step() -> None:
                step(self._prepared(objective, next(batches)))

            row = self._timed(run_step, 1, WARM_UP)
        return {**row, "rasterizer": original_way.rasterizer(self.device)[1]}

    def time(self, variant: Variant) -> dict[str, Any]:
        """Time one variant with the steps of the training loop."""
        first = _first_visits(variant)
        with self.trainer(variant, first + self.steps) as (trainer, batches):
            count = iter(range(first + self.steps))
            return self._timed(lambda: trainer._step(next(count), next(batches)), variant.batch, first)

    def parts(self, variant: Variant) -> dict[str, float]:
        """Milliseconds per object of each part, forward and, for parts with gradients, backward."""
        with self.trainer(variant, 1) as (trainer, batches):
            objective: Any = trainer.objective
            raw = {name: value.to(self.device) for name, value in next(batches).items()}
            size = variant.micro or variant.batch
            raw = {name: value[:size] for name, value in raw.items()}
            batch = self._prepared(objective, raw)
            autocast = trainer.accelerator.autocast
            with torch.no_grad(), autocast():
                code = objective.code(batch)
                splats = objective.codec.decode(code)
            leaf = splats.detach().requires_grad_(True)
            pair = objective.compare(leaf, batch)
            upstream = torch.randn_like(splats)
            rendered_rgb = pair.rgb.detach().requires_grad_(True)
            lpips = {n: x for n, x in objective.options.losses.items() if "precision" in type(x).model_fields}
            rest = {n: x for n, x in objective.options.losses.items() if n not in lpips}

            def encode() -> None:
                with torch.set_grad_enabled(self.own_losses), autocast():
                    out = objective.code(batch)
                if out.requires_grad:
                    out.float().sum().backward()

            def decode(backward: bool) -> None:
                with torch.set_grad_enabled(backward), autocast():
                    out = objective.codec.decode(code)
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

            def optimize() -> None:
                trainer.accelerator.clip_grad_norm_(trainer.trained, 1.0)
                trainer.optimizer.step()

            def measured(work: Callable[[], object]) -> float:
                return round(float(self._timed(work, 1, WARM_UP)["ms_a_step"]) / size, 3)

            milliseconds = {
                "data": measured(lambda: self._prepared(objective, raw)),
                "encoder": measured(encode),
                "decoder_forward": measured(lambda: decode(False)),
                "decoder": measured(lambda: decode(True)),
                "rasterizer": measured(rasterize),
            }
            if lpips:
                milliseconds["perceptual"] = measured(terms(lpips, rgb=rendered_rgb))
            if rest:
                milliseconds["other_losses"] = measured(terms(rest, rgb=rendered_rgb, alpha=pair.alpha.detach()))
            milliseconds["optimizer"] = round(self._timed(optimize, 1, WARM_UP)["ms_a_step"] / variant.batch, 3)
            return milliseconds

    def kernels(self, variant: Variant) -> dict[str, Any]:
        """The slowest kernels on the GPU, or operators on the CPU: milliseconds per object and share of the total."""
        cuda = self.device.type == "cuda"
        first = _first_visits(variant)
        with self.trainer(variant, first + 1) as (trainer, batches):
            for i in range(first):
                trainer._step(i, next(batches))
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
            with profile(activities=activities) as profiler:
                trainer._step(first, next(batches))
                synchronize(self.device)
        key = "self_device_time_total" if cuda else "self_cpu_time_total"
        # Operators include the time of their kernels, which would count it twice.
        place = DeviceType.CUDA if cuda else DeviceType.CPU
        events = [event for event in profiler.key_averages() if event.device_type == place]
        times = [(getattr(event, key), event.key) for event in events]
        total = sum(t for t, _ in times) or 1.0
        rows = [
            {"name": name[:80], "ms": round(t / 1000 / variant.batch, 3), "share": round(t / total, 3)}
            for t, name in sorted(times, reverse=True)[:TOP_KERNELS]
        ]
        return {"kernels": rows}

    def _prepared(self, objective: Any, batch: Batch) -> Batch:
        with torch.no_grad():
            prepared: Batch = objective.prepare({name: value.to(self.device) for name, value in batch.items()})
        return prepared

    def _timed(self, work: Callable[[], object], batch: int, warm_up: int) -> dict[str, Any]:
        warm_up_start = time.perf_counter()
        for _ in range(warm_up):
            work()
        synchronize(self.device)
        start = time.perf_counter()
        for _ in range(self.steps):
            work()
        synchronize(self.device)
        seconds = (time.perf_counter() - start) / self.steps
        return {
            "samples_per_s": round(batch / seconds, 3),
            "ms_a_step": round(1000 * seconds, 3),
            "warm_up_s": round(start - warm_up_start, 1),
            "memory_mib": memory_mib(self.device),
        }


def resolution(config: Experiment) -> int:
    """Width of a configuration's images in pixels. Raises UserError if its data source does not say."""
    if not isinstance(config.data, Meshes):
        raise UserError("--base needs data of kind 'meshes', which has the image size")
    return config.data.renderer.resolution


def _speed(variant: Variant) -> SpeedOptions:
    return SpeedOptions(
        fused="unfused" not in variant.on,
        recompute="recompute" in variant.on,
    )


def _first_visits(variant: Variant) -> int:
    """Number of warm-up steps, which visit every object."""
    return max(WARM_UP, -(-OBJECTS // variant.batch))
