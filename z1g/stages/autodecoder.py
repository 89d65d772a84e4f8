"""Stage `autodecoder`: train the decoder on all training objects."""

from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import save_file

from z1g.codes.book import OptimizedBook
from z1g.core.device import default_device, use_threads
from z1g.core.errors import UserError
from z1g.core.files import atomic_folder
from z1g.core.names import counted
from z1g.data.bank import StoredViews
from z1g.data.scenes import SceneStore
from z1g.objectives.autodecoder import AutodecoderObjective
from z1g.plan.folder import StageFolder, read_stage_record
from z1g.stages import clipping
from z1g.stages.rungs import reach
from z1g.training.data import Shares, StepData
from z1g.training.log import TrainingLog
from z1g.training.loop import Trainer


def run(folder: StageFolder, threads: int, until: float | None = None) -> None:
    """Train for the configured number of steps, then write `model/` and `history.jsonl`.

    until: stop at this fraction of the steps and write `rungs/<until>.json`, see `z1g.stages.rungs.reach`.
    """
    use_threads(threads)
    config = folder.config
    scenes, ids = training_scenes(folder)
    codec, options = config.new_codec(), config.autodecoder
    if options.codes.needs_unet:
        options.codes.prepare(codec, config.new_denoiser, config.unet.condition_form, scenes, folder.path)
    book = options.codes.book(ids, codec.code_shape, folder.path)
    denoiser = config.new_denoiser() if options.mix_diffusion.interval is not None else None
    train = options.train
    cache = train.cache if train.steps else "none"
    objective = AutodecoderObjective(config, codec, book, scenes, ids, denoiser, held_out(folder, scenes), cache)
    in_memory = not isinstance(objective.sample.views, StoredViews)
    data = StepData(objective.sample, len(ids), train.batch_size, train.seed, in_memory, shares(folder, ids))
    trains = any(parameter.requires_grad for parameter in objective.parameters())
    if options.adversarial is not None and objective.adversary is None:
        raise UserError("autodecoder.adversarial trains the decoder, but no weight of it is trained; set it to null")
    if until is not None:
        if not trains:
            raise UserError("no weight of stage 1 is trained, so that no run can be stopped early; prune by stage 2")
        reach(until, folder.path, objective, data, train, objective.validate)
        return
    if trains:
        Trainer(objective, data, train, folder.path).run()
    else:
        _as_it_is(objective, folder.path, isinstance(book, OptimizedBook))
    if not PartialState().is_main_process:
        return
    with atomic_folder(folder.path / "model") as temporary:
        codec.save(temporary)
        clipping.report(config.representation, scenes, ids, temporary)
        if isinstance(book, OptimizedBook):
            save_file({name: book.codes[i].clone() for i, name in enumerate(ids)}, temporary / "codes.safetensors")


@torch.no_grad()
def _as_it_is(objective: AutodecoderObjective, folder: Path, optimizes_codes: bool) -> None:
    """Write the history of a codec without weights to train: its figures, at step 0.

    Raises UserError if codes were to be optimized, which is done along with weights.
    """
    if optimizes_codes:
        raise UserError("no weight is trained, which codes of kind 'optimized' need; use codes of kind 'encoder'")
    if PartialState().is_main_process:
        objective.to(default_device()).eval()
        journal = TrainingLog(folder, {"rows": [], "interval": []}, 0, True)
        journal.validation(-1, objective.validate(), objective.images(), objective.histograms())
        journal.publish()
    PartialState().wait_for_everyone()


def training_scenes(folder: StageFolder) -> tuple[SceneStore, list[str]]:
    """Return a store of all complete objects, and the ids of the training objects.

    Raises UserError if too many objects failed, or if there is no training object.
    """
    config, manifest = folder.config, folder.manifest()
    fit = folder.upstream_path("fit")
    scenes = SceneStore(manifest, config.camera.radius, folder.upstream_path("ingest"), fit)
    share = scenes.n_missing / len(manifest.objects)
    if share > config.data.max_quarantined:
        raise UserError(
            f"{scenes.n_missing} of {counted(len(manifest.objects), 'object')} failed in ingest or fit, more than "
            f"data.max_quarantined {config.data.max_quarantined:g}; the reasons are in "
            f"{folder.upstream_path('ingest')}/chunk-*.jsonl and {fit}/chunk-*.jsonl"
        )
    splits = manifest.splits(config.data.split)
    trained = ("train", "test") if config.data.split.train_on_test else ("train",)
    ids = [name for name in scenes.ids if splits[name] in trained]
    if not ids:
        raise UserError("no training object is left; lower data.split.test_fraction or add objects")
    return scenes, ids


def shares(folder: StageFolder, ids: list[str]) -> Shares | None:
    """What share of the samples each training object gets, None if all get the same. folder: of this stage.

    Raises UserError if the categories are not those with which the stage was planned.
    """
    # A folder planned before this option existed does not have it.
    power, manifest = getattr(folder.config.data, "category_power", 1.0), folder.manifest()
    if power == 1:
        return None
    if read_stage_record(folder.path).get("objects") != manifest.categories():
        raise UserError(f"{folder.path} was planned with other categories of the objects; start `snakemake` again")
    categories = {entry.id: entry.category for entry in manifest.objects}
    return Shares.of_categories([categories[name] for name in ids], power)


def held_out(folder: StageFolder, scenes: SceneStore) -> list[str]:
    """Ids of the test objects that are not trained on, in the order of `scenes`. None is of an unseen category."""
    options = folder.config.data.split
    splits = folder.manifest().splits(options)
    return [] if options.train_on_test else [name for name in scenes.ids if splits[name] == "test"]
