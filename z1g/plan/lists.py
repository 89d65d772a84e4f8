"""The lists of objects of ablations. Ablations of the same data have the same one."""

from __future__ import annotations

import json

from z1g.config.explain import locate
from z1g.config.resolve import Ablation
from z1g.core.errors import UserError
from z1g.data.manifest import Manifest


class Lists:
    """The objects of ablations, listed once for each data set. Splits of one data set have one list."""

    def __init__(self) -> None:
        self._manifests: dict[str, Manifest] = {}
        self._by_section: dict[int, Manifest] = {}
        self._sections: list[object] = []

    def of(self, ablation: Ablation) -> Manifest:
        """The objects of an ablation.

        Raises UserError if they cannot be listed, if none is left for training, or if a fold has no object.
        """
        data = ablation.experiment.data
        if id(data) not in self._by_section:
            key = data_key(ablation)
            if key not in self._manifests:
                self._manifests[key] = _listed(ablation)
            _check_split(ablation, self._manifests[key])
            self._sections.append(data)  # An id may be used again when its object is gone.
            self._by_section[id(data)] = self._manifests[key]
        return self._by_section[id(data)]


def data_key(ablation: Ablation) -> str:
    """The same text for ablations with the same objects."""
    return json.dumps(ablation.experiment.data.model_dump(mode="json", exclude={"split"}), sort_keys=True)


def _listed(ablation: Ablation) -> Manifest:
    try:
        return ablation.experiment.data.manifest()
    except (UserError, OSError) as error:
        raise UserError(f"ablation {ablation.name}: {error}") from error


def _check_split(ablation: Ablation, manifest: Manifest) -> None:
    """Raise UserError if training or testing has no object."""
    split = ablation.experiment.data.split
    if split.folds is not None:
        number = manifest.n_apart(split)
        if number < split.folds:
            raise UserError(
                f"{locate(ablation.files, ('data', 'split', 'folds'))}: data.split.folds: {split.folds} folds of "
                f"{number} objects that can be held out apart; ask for at most {number}, or add objects"
            )
        return
    splits = set(manifest.splits(split).values())
    if splits == {"test_unseen"}:
        raise UserError(
            f"{locate(ablation.files, ('data', 'paths'))}: data: no training object is left, as `held_out` of a list "
            f"excludes all {len(manifest.objects)}, or what they are kept together with; exclude fewer or add objects"
        )
    if not split.train_on_test and "train" not in splits:
        raise UserError(
            f"{locate(ablation.files, ('data', 'split', 'test_fraction'))}: data.split: no training object is left, as "
            f"all {len(manifest.objects)} are held out together; lower data.split.test_fraction or add objects"
        )
