"""Outputs of other systems that a set measures beside its ablations: `peers:` in its `_set.yaml`."""

from typing import Annotated

from pydantic import AfterValidator, Field

from z1g.config.run_names import SAFE
from z1g.core.needs import require_file, require_folder
from z1g.core.slots import Section
from z1g.geometry.frames import FrameName


class PeerCost(Section):
    """What a system's authors or users measured of its cost; null where it is unknown."""

    seconds: float | None = Field(None, ge=0, le=1e9, description="seconds that one object takes")
    parameters: float | None = Field(None, ge=0, le=1e15, description="number of parameters of all its networks")
    memory_gb: float | None = Field(None, ge=0, le=1e6, description="peak memory of the GPU, GB")
    hardware: str = Field("", max_length=200, description="what these were measured on")


class PeerOptions(Section):
    """One system: where its outputs are, and how its files are to be read."""

    outputs: str = Field(
        description="folder with one file an object: .ply .splat .spz (splats), .glb .obj .ply (meshes)"
    )
    frame: FrameName = Field(description="axes, scale and camera of its files; auto: registered (docs/peers.md)")
    objects: str | None = Field(
        None,
        description="list of the objects that it was given, as `z1g conditions` writes it; null: all evaluated ones",
    )
    registered: bool | None = Field(
        None,
        description="find scale, turn and offset of each object on silhouettes and depth, after the frame; null: where "
        "the frame's authors do not say enough",
    )
    cost: PeerCost | None = Field(None, description="null: from `cost.json` in the folder, if it is there")

    def check(self) -> None:
        require_folder("outputs", self.outputs, "give the folder with the system's outputs")
        if self.objects is not None:
            require_file("objects", self.objects, "null stands for all evaluated objects")


def _peer_name(name: str) -> str:
    """A name of files. Raises ValueError."""
    if not SAFE.fullmatch(name) or "=" in name or "@" in name:
        raise ValueError(f"expected a word of letters, digits and _.-, got {name[:80]!r}")
    return name


PeerName = Annotated[str, AfterValidator(_peer_name)]
