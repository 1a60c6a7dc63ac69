"""What a user changes of a preset: a few settings by short names, all others by their place in the recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields

from dream3d.bounds import Options, check_text
from dream3d.checks import check_prompt_length
from dream3d.errors import UsageError, shown
from dream3d.recipe.generation import GuidanceScale, Recipe
from dream3d.recipe.mesh import FaceCount, Resolution, TextureSize
from dream3d.recipe.presets import preset
from dream3d.recipe.refinement import ShapeRefinement, TextureRefinement
from dream3d.recipe.scene import Count
from dream3d.recipe.settings import apply_change, parse_settings


@dataclass(frozen=True)
class Overrides(Options):
    """Changes of a recipe; None leaves the preset's value."""

    preset: str | None = None
    steps: Count | None = None
    guidance_scale: GuidanceScale | None = None
    resolution: Resolution | None = None
    negative: str | None = None
    faces: FaceCount | None = None
    texture: TextureSize | None = None
    normal_map: bool | None = None
    refine_texture: bool | None = None
    refine_shape: bool | None = None
    """True: the texture is refined as well."""

    def __post_init__(self) -> None:
        """See :class:`Options`; raises UsageError too for a negative prompt that is too long, and the shape alone."""
        super().__post_init__()
        if self.refine_shape and self.refine_texture is False:
            raise UsageError("a shape is refined together with its texture; leave out --no-refine-texture")
        if self.negative:
            check_prompt_length(check_text(self.negative, "negative prompt"), None, "negative prompt")

    def apply_to(self, recommended: str) -> Recipe:
        """The recipe of the preset, or of the recommended one, changed; raises UsageError."""
        return self.apply_on(preset(self.preset or recommended))

    def apply_on(self, recipe: Recipe) -> Recipe:
        """The recipe, whatever its preset, changed; raises UsageError."""
        if self.steps is not None:
            recipe = recipe.with_steps(self.steps)
        if self.guidance_scale is not None:
            guidance = dataclasses.replace(recipe.guidance, guidance_scale=self.guidance_scale)
            recipe = dataclasses.replace(recipe, guidance=guidance)
        given = {name: getattr(self, name) for name in ("resolution", "faces", "texture", "normal_map")}
        mesh = {name: value for name, value in given.items() if value is not None}
        recipe = dataclasses.replace(recipe, mesh=dataclasses.replace(recipe.mesh, **mesh))
        if self.refine_texture is not None:
            asked = recipe.refinement or TextureRefinement()
            recipe = dataclasses.replace(recipe, refinement=asked if self.refine_texture else None)
        if self.refine_shape is not None and (self.refine_shape or recipe.refinement):
            asked = recipe.refinement or TextureRefinement()
            shape = (asked.shape or ShapeRefinement()) if self.refine_shape else None
            recipe = dataclasses.replace(recipe, refinement=dataclasses.replace(asked, shape=shape))
        if self.negative is not None:
            recipe = dataclasses.replace(recipe, negative_prompt=self.negative.strip())
        return recipe


def changed_recipe(changes: Mapping[str, str], recommended: str) -> Recipe:
    """The recommended recipe with changes by name: those of :class:`Overrides`, and dotted places in the recipe.

    ``{"steps": "40", "guidance.rescale": "0.3"}``: the short ones come first. UsageError names what does not fit.
    """
    short = {field.name for field in fields(Overrides)}
    plain: dict[str, object] = {}
    for name in short & changes.keys():
        _put(plain, name, changes[name])
    if "negative" in plain or "preset" in plain:  # words, even if they look like numbers
        plain |= {name: changes[name] for name in ("negative", "preset") if name in changes}
    data = parse_settings(Overrides, plain).apply_to(recommended).to_dict()
    for name in changes.keys() - short:
        if "." not in name and not isinstance(data.get(name), int | float | str | list | tuple):
            known = f"{', '.join(sorted(short))}, or a place in the recipe such as guidance.rescale"
            raise UsageError(f"unknown setting {shown(name)}; known: {known}")
        _put(data, name, changes[name])
    return Recipe.from_dict(data)


def _put(data: dict[str, object], name: str, value: str) -> None:
    apply_change(data, f"{name}={value}")
