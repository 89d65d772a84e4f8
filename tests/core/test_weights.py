"""Strict loading of weights."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from z1g.core.errors import UserError
from z1g.core.weights import load_exactly, require_finite


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        self.note = "fresh"

    def get_extra_state(self) -> str:
        return self.note

    def set_extra_state(self, state: str) -> None:
        self.note = state


def other_state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {**Net().state_dict(), "_extra_state": "loaded"}


def test_a_state_that_fits_is_loaded_whole() -> None:
    net, state = Net(), other_state()
    load_exactly(net, state, "a.pt")
    torch.testing.assert_close(net.second.weight, state["second.weight"], atol=0, rtol=0)
    assert net.note == "loaded"


def test_a_state_of_some_names_leaves_the_others() -> None:
    net, state = Net(), other_state()
    before = net.second.weight.detach().clone()
    load_exactly(net, {"first.bias": state["first.bias"]}, "a.pt", only=["first.bias"])
    torch.testing.assert_close(net.first.bias, state["first.bias"], atol=0, rtol=0)
    torch.testing.assert_close(net.second.weight, before, atol=0, rtol=0)
    with pytest.raises(ValueError, match=r"Net has no third\.bias"):
        load_exactly(net, state, "a.pt", only=["third.bias"])


def test_a_network_on_meta_uses_the_tensors_themselves() -> None:
    with torch.device("meta"):
        net = Net()
    state = other_state()
    load_exactly(net, state, "a.pt", assign=True)
    assert net.first.weight.data_ptr() == state["first.weight"].data_ptr()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first.bias": None}, "1 missing (first.bias)"),
        ({"first.bias": None, "_extra_state": None}, "2 missing (_extra_state, first.bias)"),
        ({"third.bias": torch.ones(1)}, "1 extra (third.bias)"),
        ({"first.bias": None, "first.offset": torch.ones(4)}, "1 missing (first.bias); 1 extra (first.offset)"),
        ({"first.bias": torch.ones(5)}, "1 of another shape (first.bias [5] instead of [4])"),
        ({"first.bias": "text"}, "1 of another shape (first.bias no tensor instead of [4])"),
        ({"_extra_state": torch.ones(2)}, "1 of another shape (_extra_state [2] instead of no tensor)"),
        (
            {"first.bias": None, "first.weight": torch.ones(3, 4), "x": torch.ones(1)},
            "1 missing (first.bias); 1 extra (x); 1 of another shape (first.weight [3, 4] instead of [4, 3])",
        ),
        ({f"x{i}": torch.ones(1) for i in range(6)}, "6 extra (x0, x1, x2, x3 and 2 more)"),
    ],
)
def test_mismatches_are_named_and_nothing_is_loaded(change: dict[str, object], message: str) -> None:
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items() if isinstance(value, Tensor)}
    state = {name: value for name, value in {**other_state(), **change}.items() if value is not None}
    words = f"folder/a.pt: tensors do not fit the network: {message}. Ask."
    with pytest.raises(UserError, match=f"^{re.escape(words)}$"):
        load_exactly(net, state, Path("folder/a.pt"), remedy="Ask.")
    torch.testing.assert_close({n: v for n, v in net.state_dict().items() if n in before}, before, atol=0, rtol=0)
    assert net.note == "fresh"


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.bool])
def test_whole_numbers_are_no_weights(kind: torch.dtype, assign: bool) -> None:
    """Weights in int8 whose scales are lost would be a hundred times too large."""
    net, state = Net(), other_state()
    before = net.first.bias.detach().clone()
    state["second.weight"] = state["second.weight"].to(kind)
    name = str(kind).removeprefix("torch.")
    message = rf"a\.pt: 1 of 4 tensors have another type \(second\.weight {name} instead of float32\)"
    with pytest.raises(UserError, match=message):
        load_exactly(net, state, "a.pt", assign=assign)
    torch.testing.assert_close(net.first.bias.detach(), before, atol=0, rtol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_name_their_tensor(value: float) -> None:
    net, state = Net(), other_state()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items() if isinstance(tensor, Tensor)}
    state["second.weight"][1, 3] = value
    with pytest.raises(UserError, match=r"a\.pt: 1 of 4 tensors have values that are not finite \(second\.weight\)"):
        load_exactly(net, state, "a.pt")
    for name, tensor in before.items():
        torch.testing.assert_close(net.state_dict()[name], tensor, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_found_anywhere(dtype: torch.dtype, value: float) -> None:
    for at in (0, 5, 10):
        tensor = torch.linspace(-3, 3, 11).to(dtype)
        require_finite({"a": tensor, "none": tensor[:0], "whole": torch.arange(3), "truth": torch.ones(2) > 0}, "file")
        tensor[at] = value
        with pytest.raises(UserError, match="1 of 1 tensors have values that are not finite"):
            require_finite({"a": tensor}, "file")


def test_small_floats_are_finite() -> None:
    require_finite({"a": torch.ones(3).to(torch.float8_e4m3fn)}, "file")
    with pytest.raises(UserError, match="not finite"):
        require_finite({"a": torch.tensor([float("nan")]).to(torch.float8_e4m3fn)}, "file")
