"""Folding batch norm changes no answer and leaves no batch norm."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from edge_models.students import Student
from edge_models.students.arrays import arrays_of, with_arrays
from edge_models.trunk_changes import trunk_of
from edge_protocol.errors import ExportError
from export.fold import add_folded, folded


def test_a_folded_student_answers_the_same(student: Student) -> None:
    """After batch norm has seen data, the folded copy agrees and the original is untouched."""
    seen = deepcopy(student)
    with torch.no_grad():
        seen.train()(torch.randn(8, 3, 32, 32) + 0.5)
    before = len(seen.state_dict())
    plain = folded(seen)
    seen.eval()
    x = torch.randn(4, 3, 32, 32)
    assert torch.allclose(plain(x)[1], seen(x)[1], atol=1e-5)
    assert not any("running" in name for name in plain.state_dict())
    assert len(seen.state_dict()) == before


def test_batch_norm_after_a_linear_layer_is_folded_too() -> None:
    """A linear layer takes its batch norm in."""
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU())
    model(torch.randn(16, 4))
    x = torch.randn(3, 4)
    assert torch.allclose(folded(model)(x), model.eval()(x), atol=1e-5)
    assert len(folded(model).state_dict()) == 2


def test_a_batch_norm_elsewhere_is_an_error() -> None:
    """A batch norm that follows nothing foldable is named."""
    with pytest.raises(ExportError, match="batch norm '1' cannot be folded"):
        folded(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4)))


def test_a_folded_change_is_added_to_the_student_behind_it(student: Student) -> None:
    """Whatever batch norm has seen: folded after it, the student is what it was plus the change, and answers so."""
    seen = deepcopy(student)
    with torch.no_grad():
        seen.train()(torch.randn(8, 3, 32, 32) + 0.5)
    seen.eval()
    before = arrays_of(folded(seen))
    rng = np.random.default_rng(0)
    change = {name: rng.normal(0, 0.01, v.shape).astype(np.float32) for name, v in trunk_of(before).items()}
    expected = with_arrays(folded(seen), {name: np.add(before[name], value) for name, value in change.items()})
    add_folded(seen, change)
    x = torch.randn(4, 3, 32, 32)
    assert torch.allclose(seen(x)[1], expected(x)[1], atol=1e-4)
    for name, value in arrays_of(folded(seen)).items():
        np.testing.assert_allclose(np.subtract(value, before[name]), change.get(name, 0), atol=1e-5)


def test_a_channel_that_batch_norm_has_switched_off_stays_as_it_is() -> None:
    """Next to no gain would blow a small change up to a huge weight; the other channels move."""
    layer, norm = nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1e-6, 2.0]))
    before = layer.weight.detach().clone()
    change = {"0.weight": np.ones((2, 2), np.float32), "0.bias": np.ones(2, np.float32)}
    add_folded(nn.Sequential(layer, norm).eval(), change)
    assert torch.equal(layer.weight[0], before[0])
    assert torch.allclose(layer.weight[1], before[1] + 0.5, atol=1e-4)
    assert torch.allclose(norm.bias, torch.ones(2))


@pytest.mark.parametrize("name", ["trunk.nothing", "head.weight"])
def test_a_change_of_something_else_is_named(student: Student, name: str) -> None:
    """A name that is not there, or another shape, is an error."""
    with pytest.raises(ExportError, match=f"no '{name}' of shape"):
        add_folded(deepcopy(student), {name: np.ones((3, 3), np.float32)})
