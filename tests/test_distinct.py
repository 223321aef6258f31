"""A table of tokens that mostly holds one row."""

from __future__ import annotations

import pytest
import torch

from aii.compute import convert
from aii.distinct import SharedRow


def test_scores_of_few_rows_are_those_of_the_whole_table() -> None:
    made = torch.Generator().manual_seed(1)
    table = torch.randn(900, 8, generator=made)
    own = torch.randperm(900, generator=made)[:100].sort().values
    common = torch.ones(900, dtype=torch.bool)
    common[own] = False
    table[common] = table[int(common.nonzero()[0])].clone()
    shared = SharedRow.of(table)
    assert shared is not None
    assert shared.rows[:-1].tolist() == own.tolist()
    states = torch.randn(3, 2, 8, generator=made)
    few = states @ table[shared.rows].T
    torch.testing.assert_close(shared.spread(few), states @ table.T)


def test_a_table_of_different_rows_is_left_alone() -> None:
    table = torch.randn(300, 8, generator=torch.Generator().manual_seed(2))
    assert SharedRow.of(table) is None
    table[:140] = table[0].clone()
    assert SharedRow.of(table) is None


@pytest.mark.parametrize("compute_type", ["bfloat16", "int8"])
def test_a_converted_model_scores_every_token_as_before(tiny_model, compute_type) -> None:
    import copy

    model = copy.deepcopy(tiny_model)
    with torch.no_grad():
        model.decoder.token_embedding.weight[2000:50_000] = 0.01
    try:
        convert(model, compute_type)
    except Exception as error:  # a processor without exact integers
        pytest.skip(str(error))
    assert model.decoder.few is not None
    hidden = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(3)).to(model.dtype)
    with torch.no_grad():
        found = model.decoder.project(hidden)
        model.decoder.few = None
        expected = model.decoder.project(hidden)
    assert found.shape == (2, 3, 51_865)
    if compute_type == "int8":
        assert torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)


def test_the_embedded_model_has_few_rows(embedded_model) -> None:
    shared = SharedRow.of(embedded_model.decoder.token_embedding.weight)
    assert shared is not None
    assert len(shared.rows) < 3000
