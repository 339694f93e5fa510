"""What tests of images share."""

import numpy as np
import pytest


@pytest.fixture
def check(measured):
    """Compares pixels; `most` levels may be between. PARITY_TABLE=FILE writes a table of all comparisons."""

    def compare(reference, seen, expected, most=0):
        assert np.shape(seen) == np.shape(expected)
        measured(reference, np.abs(np.asarray(seen, float) - expected).max(), most + 0.01)

    return compare
