"""What all tests share."""

import torch

# Tests run side by side, and on small tensors more threads only wait for each other.
torch.set_num_threads(1)
