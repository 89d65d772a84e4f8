"""Import the networks that sampling needs without what their libraries import besides.

diffusers imports transformers, peft, scipy, torch's compiler and, in two of its packages, hundreds of networks: most of
the time of a process that samples one photograph. All of these are optional, so that it does without them when they
cannot be imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from z1g.core.imports import kept, missing, postponed, replaced, uncrowded

UNUSED = (
    "accelerate", "auto_round", "bitsandbytes", "flash_attn", "flash_attn_3", "flash_attn_interface", "flashinfer",
    "gguf", "modelopt", "optimum", "peft", "sageattention", "scipy", "sdnq", "sklearn", "torch._dynamo", "torchao",
    "torchvision", "transformers",
)  # fmt: skip
"""Optional packages and modules that sampling never calls through diffusers."""
WHOLE = "xformers"
"""An optional package that sampling may call through diffusers, and that needs what is unused."""
CROWDED = (
    "diffusers.hooks",
    "diffusers.models.autoencoders",
    "diffusers.models.transformers",
    "diffusers.models.unets",
)
"""Packages that import all of their modules."""
ONLINE = ("requests",)
"""Modules that diffusers calls only to download."""
NEEDED = (
    "diffusers.models.transformers.transformer_2d",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.schedulers.scheduling_utils",
)


_lean: list[bool] = []


def is_lean() -> bool:
    """Whether `import_networks` was in time, so that this process is to import no more than it needs."""
    return bool(_lean)


def import_networks() -> None:
    """Import diffusers' networks in a fraction of the time, if nothing has imported them yet and xformers is not there.

    Only for a process that samples and ends: afterwards diffusers takes the unused packages for missing ones.
    """
    if "diffusers" in sys.modules or importlib.util.find_spec(WHOLE) is not None:
        return
    _lean.append(True)
    with (
        kept(),
        missing(UNUSED),
        postponed(ONLINE),
        # It reads files of every installed package, in search of packages under other names.
        replaced(importlib.import_module("importlib.metadata"), "packages_distributions", dict),
        replaced(importlib.import_module("torch.compiler"), "disable", _as_it_is),
        # Last, since it imports the packages' parent.
        uncrowded(CROWDED),
    ):
        for name in NEEDED:
            importlib.import_module(name)


def _as_it_is(function: Any = None, **_: Any) -> Any:
    """In place of a decorator of torch's compiler, which is not used and would be imported."""
    return _as_it_is if function is None else function
