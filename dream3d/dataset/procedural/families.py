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
    "animal": (
        animals.dog,
        animals.cat,
        animals.horse,
        animals.cow,
        animals.elephant,
        animals.giraffe,
        animals.deer,
        animals.rabbit,
        animals.bird,
        animals.duck,
        animals.owl,
        animals.penguin,
        animals.fish,
        animals.turtle,
    ),
    "skull": (skulls.human_skull, skulls.elk_skull, skulls.deer_skull, skulls.ram_skull, skulls.bull_skull),
    "plant": (plants.pine_tree, plants.oak_tree, plants.palm_tree, plants.mushroom, plants.cactus, plants.flower),
    "vehicle": (
        vehicles.car,
        vehicles.truck,
        vehicles.bus,
        vehicles.airplane,
        vehicles.sailing_boat,
        vehicles.rocket,
        vehicles.train,
    ),
    "building": (buildings.house, buildings.castle, buildings.church, buildings.lighthouse, buildings.windmill),
    "tool": (tools.hammer, tools.axe, tools.sword, tools.umbrella, tools.key, tools.chess_pawn),
    "food": (
        food.apple,
        food.banana,
        food.pear,
        food.carrot,
        food.ice_cream,
        food.hamburger,
        food.birthday_cake,
    ),
    "household": (
        household.mug,
        household.teapot,
        household.robot,
        household.snowman,
        household.lamp,
        household.chair,
        household.table,
    ),
    "composition": (compositions.solid_body, compositions.counted, compositions.stacked, compositions.beside),
}

FAMILIES: dict[str, Family] = {
    family.__name__.replace("_", "-"): family for group in GROUPS.values() for family in group
}
"""Functions by slug: "elk-skull"."""
CATEGORIES: dict[str, str] = {
    family.__name__.replace("_", "-"): group for group, members in GROUPS.items() for family in members
}
"""Group of each slug: "skull"."""
