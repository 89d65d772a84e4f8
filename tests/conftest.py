"""What all tests share."""

import contextlib
import gc
import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from support import triton_interpreter, zygote

from z1g.core.errors import UserError
from z1g.meshes.executable import find_blender

# Until all is imported, see `pytest_collection_finish`.
gc.disable()
# Tests run side by side, and on small tensors more threads only wait for each other.
torch.set_num_threads(1)
# The first call of a function may import half of torch; examples are the same in every run.
settings.register_profile("z1g", deadline=None, derandomize=True)
settings.load_profile("z1g")
if not torch.cuda.is_available():
    # Triton looks at this when it is imported first, and much of torch imports it.
    os.environ["TRITON_INTERPRET"] = "1"
# Tests keep what they learn about mesh files to themselves, but not extensions that take minutes to compile and that
# two processes of one test must not compile at once.
caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(caches / "torch_extensions"))
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="z1g-tests-")


LONGEST = (
    "adversarial/test_kills.py",
    "workflow/test_pruned_studies.py",
    "search/test_searches.py",
    "meshes/test_ingest_light.py",
    "meshes/test_listing_limits.py",
    "networks/test_fused.py",
    "stages/test_attribute_stages.py",
    "peers/test_frames_of_peers.py",
    "adversarial/test_damage.py",
    "inference/test_app.py",
    "golden/test_golden.py",
    "objectives/test_distillation.py",
    "workflow/test_end_to_end.py",
    "surface/test_meshes_of_kinds.py",
    "workflow/test_workflow.py",
    "inference/test_infer_photographs.py",
    "adversarial/test_configuration.py",
    "bench/test_bench_diffusion.py",
    "render/test_compiled.py",
    "training/test_training.py",
    "bench/test_bench_memory.py",
    "stages/test_ranks_of_kinds.py",
    "training/test_ddp.py",
    "render/test_render_exact.py",
    "workflow/test_site.py",
    "workflow/test_running.py",
    "workflow/test_notebooks.py",
)
"""Files whose tests take longest, the longest first, and long ones of the last folder."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: a long one that is begun last keeps one core busy while the other is idle."""
    order = {Path(__file__).parent / name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


def pytest_collection_finish() -> None:
    """What is imported stays: the garbage collector need not look at it again and again, here and in forks."""
    triton_interpreter.quicken()
    gc.freeze()
    # Python's 700 are for small programs: searches took a sixteenth of the time of tests that read configurations.
    gc.set_threshold(10_000)
    gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Forks of tests are forks of this process as it is now: all is imported, and no test has run."""
    if session.items:
        zygote.start()
    return (yield)


def pytest_unconfigure() -> None:
    """Some extensions complain about what is left at the interpreter's end."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like torchvision's VGG16, with random weights."""
    from support.vgg import vgg16_features

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = vgg16_features().state_dict()
    file = tmp_path_factory.mktemp("trunk") / "vgg.pth"
    torch.save({f"features.{name}": value for name, value in features.items()}, file)
    return file


@pytest.fixture(scope="session")
def verbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A command in place of `python -m z1g`, whose verbs are forks of one server."""
    from support.studies import forked_verbs

    with forked_verbs(tmp_path_factory.mktemp("verbs")) as command:
        yield command


@pytest.fixture(scope="session")
def blender_command() -> list[str]:
    """The command that renders, looked for from the repository root."""
    with contextlib.chdir(Path(__file__).parents[1]):
        try:
            return find_blender(None)
        except UserError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session")
def blender(blender_command: list[str]) -> str:
    """Its executable."""
    return blender_command[0]
