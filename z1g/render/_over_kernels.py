"""Triton kernels that put premultiplied images on a background, in one pass over memory each way.

A program has BLOCK pixels of one image; images of an object have its background, three colors.
"""

import triton
import triton.language as tl


@triton.jit
def over(
    rgb, alpha, background, out, pixels, views, rgb_image, rgb_channel, rgb_pixel, alpha_image, alpha_pixel,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """out [images,3,pixels] = rgb + (1 - alpha)·background; the other numbers are strides."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, image = at < pixels, tl.program_id(1).to(tl.int64)
    left = 1 - tl.load(alpha + image * alpha_image + at * alpha_pixel, mask=inside, other=0.0)
    for c in tl.static_range(3):
        color = tl.load(rgb + image * rgb_image + c * rgb_channel + at * rgb_pixel, mask=inside, other=0.0)
        behind = tl.load(background + 3 * (image // views) + c)
        tl.store(out + (3 * image + c) * pixels + at, color + left * behind, mask=inside)


@triton.jit
def over_slope(dy, background, out, pixels, views, BLOCK: tl.constexpr):
    """Gradient of `over` with respect to alpha, [images,pixels]: minus the sum of dy·background over channels."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, image = at < pixels, tl.program_id(1).to(tl.int64)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for c in tl.static_range(3):
        behind = tl.load(background + 3 * (image // views) + c)
        total += behind * tl.load(dy + (3 * image + c) * pixels + at, mask=inside, other=0.0)
    tl.store(out + image * pixels + at, -total, mask=inside)
