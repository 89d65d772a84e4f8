"""Options of inference."""

from typing import Annotated, Literal

from pydantic import Field

from z1g.core.needs import require_attention
from z1g.core.slots import MAX_COUNT, MAX_SEED, OneOf, Runtime, Section
from z1g.sampling.inferred import InferredCodes
from z1g.sampling.inferred.diffusion import SampledCodes
from z1g.sampling.samplers import Sampler
from z1g.sampling.samplers.ddpm import Ddpm

AttentionKernels = Annotated[Literal["auto", "flash", "flash4", "cudnn", "xformers"], Runtime()]
KERNELS = "attention kernels; auto: PyTorch's choice; others: where supported; xformers, flash4: on a GPU"


class InferOptions(Section):
    """Inference: samples codes with the UNet, then writes splats, images and turntables."""

    codes: Annotated[InferredCodes, OneOf()] = SampledCodes()
    sampler: Annotated[Sampler, OneOf()] = Ddpm()
    steps: int = Field(75, ge=1, le=1000, description="sampling steps")
    guidance: float = Field(4.0, ge=1, le=1000, description="scale of classifier-free guidance; 1 disables it")
    seed: int = Field(
        0, ge=0, le=MAX_SEED, description="random seed of the initial noise, combined with the object's id"
    )
    train_objects: int = Field(
        8, ge=0, le=MAX_COUNT, description="training objects to sample in addition to all test objects"
    )
    chunk_size: int = Field(16, ge=1, le=MAX_COUNT, description="objects per job")
    batch_size: Annotated[int, Runtime()] = Field(4, ge=1, le=1_000_000, description="objects sampled at once")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="precision of the UNet and, on a GPU, of the decoder; auto: bf16 on a GPU, otherwise fp32"
    )
    attention: AttentionKernels = Field("auto", description=KERNELS)
    cuda_graphs: Annotated[bool, Runtime()] = Field(
        True, description="on a GPU, capture the UNet as a CUDA graph at the first step and replay it"
    )
    turntable_frames: int = Field(24, ge=1, le=10_000, description="frames of the turntable image")

    def check(self) -> None:
        require_attention(self.attention)
