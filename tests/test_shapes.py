"""The test run itself: shapes and types that the annotations promise are checked at every call."""

import pytest
import torch
from jaxtyping import TypeCheckError

from decathlon.views import mirror
from mtan_core.segment_norm import normalise


def test_a_wrong_shape_in_the_core_is_an_error_while_testing() -> None:
    rows = torch.ones(1, 3)
    features = torch.ones(2, 3, 4, 4)
    normalise(features, [2], rows, rows, rows, rows, 1e-5, relu=False)
    with pytest.raises(TypeCheckError, match="mean"):
        normalise(features, [2], rows, rows, torch.ones(1, 4), rows, 1e-5, relu=False)


def test_a_wrong_kind_of_number_in_the_views_is_an_error_while_testing() -> None:
    with pytest.raises(TypeCheckError, match="images"):
        mirror(torch.ones(1, 4, 4, 3), torch.ones(1).bool().numpy())
