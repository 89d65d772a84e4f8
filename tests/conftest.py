"""What all tests share."""

import os
import tempfile

import torch
from hypothesis import settings

# Tests run side by side, and on small tensors more threads only wait for each other.
torch.set_num_threads(1)
# The first call of a function may import half of torch; examples are the same in every run.
settings.register_profile("z1g", deadline=None, derandomize=True)
settings.load_profile("z1g")
# Tests keep what they learn about mesh files to themselves.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="z1g-tests-")
