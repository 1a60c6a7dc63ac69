"""With an exact denoiser of three objects, the loop must settle on one of them (see test_oracle.py)."""

import pytest
from oracle import MASCOT, TABLE, TREE, OraclePrior
from test_oracle import FORMS, assert_found, compare

from dream3d.generate import optimise


@pytest.mark.slow
def test_with_three_objects_it_settles_on_one() -> None:
    objects = {"mascot": MASCOT, "table": TABLE, "tree": TREE}
    state = optimise("any", OraclePrior(*objects.values()), FORMS["steps"], seed=1, device="cpu")
    likeness = {name: compare(state, shapes) for name, shapes in objects.items()}
    best = max(likeness, key=lambda name: likeness[name].iou)
    others = [value for name, value in likeness.items() if name != best]
    assert_found(likeness[best])
    assert all(other.iou < 0.8 and other.psnr < likeness[best].psnr - 4 for other in others)
