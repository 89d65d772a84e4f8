"""Renders one scene in child processes and in concurrent threads."""

import multiprocessing
import threading

import torch
from torch import Tensor

from support.renders import cameras, flat, gaussians, gradient
from z1g.render.cpu import Cpu


def render_scene() -> tuple[Tensor, Tensor]:
    """Image and gradients of 400 Gaussians, by the CPU rasterizer."""
    g, c = gaussians("trained", 1, 400).float(), cameras(1, 2, 32, 32)
    return flat(Cpu().render(g, c)), gradient(Cpu(), g, c, torch.ones(1))


def render_in_child(queue: "multiprocessing.Queue[bytes]") -> None:
    """Put the bytes of `render_scene` into a queue."""
    torch.set_num_threads(1)
    queue.put(b"".join(x.numpy().tobytes() for x in render_scene()))


def render_in_threads() -> None:
    """Raise unless four concurrent threads get the same images as a single one."""
    expected, wrong = render_scene()[0], []

    def work() -> None:
        wrong.extend(1 for _ in range(5) if not torch.equal(render_scene()[0], expected))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise RuntimeError(f"{len(wrong)} images differ")
