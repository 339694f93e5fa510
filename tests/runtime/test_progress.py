"""The time left of a bar, by a clock that the test turns."""

import io

import pytest
from tqdm import tqdm

from simsiam_tf.runtime import progress


@pytest.mark.parametrize("initial", [0, 40])
def test_the_first_step_is_no_part_of_the_time_left(initial):
    """It took a minute, compilation included; each later one takes two seconds."""
    now = [0.0]
    bar = tqdm(total=100, initial=initial, file=io.StringIO(), mininterval=0)
    bar._time = lambda: now[0]
    bar.start_t = bar.last_print_t = 0.0
    now[0] += 60
    progress.advance(bar, 1, starts=True)
    for _ in range(10):
        now[0] += 2
        progress.advance(bar, 1)
    shown = bar.format_dict
    assert shown["n"] == initial + 11 and shown["elapsed"] == pytest.approx(20)
    assert shown["rate"] == pytest.approx(0.5)
    text = tqdm.format_meter(**shown)
    left = 2 * (100 - initial - 11)
    assert f"{left // 60:02d}:{left % 60:02d}" in text
    bar.close()
