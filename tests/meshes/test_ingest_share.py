"""Distribution of a job's cores and memory, and options of the pool."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from z1g.meshes import share
from z1g.meshes.renderers import Blender
from z1g.meshes.share import job_memory_mb, share_out

SMALL = Blender(resolution=128, samples=8)


@pytest.fixture
def plenty(monkeypatch):
    monkeypatch.setattr(share, "job_memory_mb", lambda threads: 64_000.0)


@pytest.mark.usefixtures("plenty")
def test_small_images_get_a_process_a_core_and_large_ones_more_threads():
    assert (share_out(SMALL, 8, 64, 25).processes, share_out(SMALL, 8, 64, 25).threads) == (8, 1)
    large = share_out(Blender(resolution=512, samples=32), 8, 64, 56)
    assert 1 < large.processes < 8
    assert large.processes * large.threads <= 8
    huge = share_out(Blender(resolution=4096, samples=512), 8, 64, 56)
    assert (huge.processes, huge.threads) == (1, 8)


@pytest.mark.usefixtures("plenty")
def test_explicit_options_take_precedence():
    assert share_out(SMALL.model_copy(update={"processes": 3}), 8, 64, 25).processes == 3
    assert share_out(SMALL.model_copy(update={"memory_mb": 700}), 8, 64, 25).memory_mb == 700
    assert share_out(SMALL.model_copy(update={"device": "gpu"}), 8, 64, 25).processes == 1
    assert share_out(SMALL.model_copy(update={"engine": "eevee"}), 8, 64, 25).processes == 1


def test_too_little_memory_means_fewer_processes(monkeypatch):
    monkeypatch.setattr(share, "job_memory_mb", lambda threads: 3_500.0)
    assert share_out(SMALL, 8, 64, 25) == share.Share(3, 2, 1050)


@given(threads=st.integers(1, 256), objects=st.integers(0, 1000), views=st.integers(10, 200),
       resolution=st.integers(16, 4096), samples=st.integers(1, 4096))  # fmt: skip
def test_never_more_than_the_job_has(threads, objects, views, resolution, samples):
    options = Blender(resolution=resolution, samples=samples)
    part = share_out(options, threads, objects, views)
    assert 1 <= part.processes <= max(1, objects)
    assert part.threads >= 1
    assert part.processes * part.threads <= threads
    assert part.processes * part.memory_mb <= job_memory_mb(threads)


def test_memory_of_a_slurm_job(monkeypatch):
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU"):
        monkeypatch.delenv(name, raising=False)
    cores = os.cpu_count() or 1
    whole = job_memory_mb(cores)
    assert job_memory_mb(10 * cores) == whole
    assert job_memory_mb(1) == pytest.approx(whole / cores)
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "2000")
    assert job_memory_mb(3) == 6000
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "8000")
    assert job_memory_mb(3) == 8000


def test_a_cgroup_limits_the_job(monkeypatch, tmp_path):
    (tmp_path / "max").write_text(f"{512 * share.MIB}\n")
    monkeypatch.setattr(share, "CGROUP_LIMITS", (tmp_path / "max", tmp_path / "nowhere"))
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    monkeypatch.delenv("SLURM_MEM_PER_CPU", raising=False)
    assert job_memory_mb(os.cpu_count() or 1) == 512
