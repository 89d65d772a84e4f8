"""Posteriors computed once per object."""

import pytest
import torch

from z1g.codes.posteriors import KeptPosteriors


def test_posteriors_are_those_of_the_object() -> None:
    kept = KeptPosteriors(3, torch.device("cpu"))
    with pytest.raises(ValueError, match="of no object"):
        kept.of(torch.tensor([], dtype=torch.int64), lambda i: (torch.zeros(1), torch.zeros(1)))
    for rows in ([1], [2, 1], [0, 0, 1], [2, 0, 1]):
        index = torch.tensor(rows)
        mean, deviation = kept.of(
            index, lambda i, rows=rows: (torch.full((1, 1, 1, 1), rows[i]), torch.full((1, 1, 1, 1), -rows[i]))
        )
        assert mean.flatten().tolist() == rows
        assert (deviation == -mean).all()
