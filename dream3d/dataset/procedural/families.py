"""The registry: every family's slug, its group and its function."""

from __future__ import annotations

from dream3d.dataset.procedural import (
    animals,
    buildings,
    compositions,
    food,
    household,
    plants,
    skulls,
    tools,
    vehicles,
)
from dream3d.dataset.procedural.sketch import Family

GROUPS: dict[str, tuple[Family, ...]] = {
    "animal": animals.FAMILIES,
    "skull": skulls.FAMILIES,
    "plant": plants.FAMILIES,
    "vehicle": vehicles.FAMILIES,
    "building": buildings.FAMILIES,
    "tool": tools.FAMILIES,
    "food": food.FAMILIES,
    "household": household.FAMILIES,
    "composition": compositions.FAMILIES,
}
SLUGS = {family: family.__name__.replace("_", "-") for members in GROUPS.values() for family in members}

FAMILIES: dict[str, Family] = {slug: family for family, slug in SLUGS.items()}
"""Functions by slug: "elk-skull"."""
CATEGORIES: dict[str, str] = {SLUGS[family]: group for group, members in GROUPS.items() for family in members}
"""Group of each slug: "skull"."""
