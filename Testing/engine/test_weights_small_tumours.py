"""What the weights that come along find of small tumours."""

import numpy as np
import pytest

from crossmoda import inference, labels, weights
from crossmoda.simulation import Settings, simulate_subject

CPU = inference.Settings(device="cpu")


@pytest.mark.parametrize(("seed", "side", "volume_mm3"), [(8502, "left", 157.0), (8505, "right", 295.0)])
def test_the_weights_that_come_along_find_a_small_tumour_on_its_side(seed, side, volume_mm3):
    scan = Settings(tumour_volume=volume_mm3, field_of_view=112, slices=56)
    subject = simulate_subject(seed, side=side, settings=scan)
    found = inference.predict(subject.hrt2, None, CPU).label_map.array == labels.VS
    truth = subject.hrt2_label.array == labels.VS
    # Half the tumour found, with as much beside it, is a Dice of 0.5: enough to be seen on the right side.
    assert 2 * np.count_nonzero(found & truth) / (found.sum() + truth.sum()) > 0.5


def test_the_model_card_says_how_small_tumours_fare():
    small = weights.load(weights.shipped()).card["metrics"]["dice_on_small_VS"]
    assert set(small) == {f"{base}, {size} mm3" for base in ("phantom", "icbm") for size in (110, 245)}
    assert all(len(values) == 6 and min(values) >= 0 and max(values) <= 1 for values in small.values())
