"""Licences in one spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream3d.dataset.licences import licence_names


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["CC-BY-3.0", "CC-BY-3.0", ""], ["CC-BY-3.0"]),
        (
            ["CC-BY-SA-3.0; CC-BY-SA-4.0", "CC-BY-4.0 and CC-BY-3.0"],
            ["CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0"],
        ),
        (["CC-BY-SA-4.0 or CC-BY-SA-3.0"], ["CC-BY-SA-4.0 or CC-BY-SA-3.0"]),
        (["Public domain", "public-domain", "public domain"], ["public domain"]),
        (["Creative Commons Attribution 3.0 Unported license  \u00a9 A and B, 2009"], ["CC-BY-3.0"]),
        (["Creative Commons Attribution-ShareAlike 3.0"], ["Creative Commons Attribution-ShareAlike 3.0"]),
        (["GPL-2.0", "cc0-1.0"], ["cc0-1.0", "GPL-2.0"]),
    ],
)
def test_licences_by_hand(texts: list[str], names: list[str]) -> None:
    assert licence_names(texts) == names


@given(st.lists(st.text(max_size=30), max_size=4))
def test_any_text_gives_names_that_stay(texts: list[str]) -> None:
    once = licence_names(texts)
    assert licence_names(once) == once
    assert all(once)
