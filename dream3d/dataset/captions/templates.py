"""Captions of an object from what is known of it: its name, category, colours and materials, and nothing else."""

from __future__ import annotations

import re

import numpy as np

from dream3d.dataset.captions.colors import REFERENCES
from dream3d.dataset.records import MAX_CAPTIONS, MAX_TEXT, SourceAsset

MOST_MADE = 10
"""Captions made from templates for one object, at most; the plain name is always among them."""
MATERIALS: dict[str, tuple[str, ...]] = {
    "wood": ("wood", "wooden", "oak", "teak", "pine", "alder", "walnut", "birch"),
    "metal": ("metal", "metallic", "iron", "steel", "aluminium", "aluminum", "brass", "copper", "bronze"),
    "glass": ("glass",),
    "plastic": ("plastic",),
    "leather": ("leather",),
    "stone": ("stone", "marble", "granite"),
    "concrete": ("concrete",),
    "clay": ("clay", "ceramic", "terracotta", "porcelain"),
    "fabric": ("fabric", "cloth", "burlap", "cotton", "velvet"),
    "wicker": ("wicker", "rattan"),
    "bamboo": ("bamboo",),
    "cardboard": ("cardboard",),
    "paper": ("paper",),
    "rubber": ("rubber",),
    "gold": ("gold", "golden"),
    "silver": ("silver",),
}
"""Materials, and the words of a name that say one."""
ADJECTIVES = {"wood": "wooden", "gold": "golden"}
"""Materials whose adjective is another word."""
COLOR_WORDS = frozenset({*REFERENCES, "gray", "turquoise", "golden", "silver", "violet"})
MASS_WORDS = frozenset({"bread", "butter", "milk", "sugar", "soap", "water", "furniture", "grass", "steak", "bamboo"})
"""Nouns that take no "a"."""
PLACES = frozenset(
    {"", "miscellaneous", "exterior", "living room", "kitchen", "bedroom", "bathroom", "office", "my furniture"}
)
"""Categories of furniture catalogues that say where a thing may stand rather than what it is."""
PLURAL_IN_S = re.compile(r".*[^su'i]s")
"""Words like "tulips", unlike "glass", "cactus", "tennis" and "rubik's"."""
SPELT_AN = re.compile(r"(?:[aeio]|u(?!ni(?!n)|s[aeb]|tens|r[aeio]|k)|hour|honest|heir|suv\b|8|11\b|18\b)(?!ne\b|nce\b)")
LETTERS_AN = re.compile(r"[fhlmnrsx][^aeiouy\W]*\b")
"""Words without a vowel are read letter by letter: "an mp3 player", but "a tv"."""


def captions_for(asset: SourceAsset, colors: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    """Several captions of one object, without duplicates: given ones first and unchanged, then templates.

    ``colors`` are the dominant colours in words, most first. Templates say only what the asset's fields say; a colour
    or a material is left out where the name or a given caption already says one, since two might disagree. ``rng``
    chooses among the templates when there are more than :data:`MOST_MADE`, and their order. At least one caption,
    at most 64 (what a record holds).
    """
    name = " ".join(asset.name.lower().split()) or asset.key.replace("_", " ").replace("-", " ")
    said = words(" ".join((name, *asset.captions)))
    shades = () if said & COLOR_WORDS else colors
    stuff = () if materials_in(" ".join(said)) else tuple(" ".join(m.lower().split()) for m in asset.materials)
    first, rest = [name, with_article(name)], _described(name, shades, stuff)
    category = " ".join(asset.category.lower().split())
    if category not in PLACES and not words(category) & words(name):
        rest.append(f"{with_article(name)}, {category}")
    rest = list(dict.fromkeys(caption for caption in rest if caption not in first))
    order = rng.permutation(len(rest))[: MOST_MADE - len(first)]
    made = [*asset.captions, *first, *(rest[i] for i in order)]
    return tuple(dict.fromkeys(caption[:MAX_TEXT] for caption in made if caption.strip()))[:MAX_CAPTIONS]


def materials_in(name: str) -> tuple[str, ...]:
    """The materials that the words of a name say: "wooden table" says "wood"."""
    found = words(name)
    return tuple(material for material, spellings in MATERIALS.items() if found & set(spellings))


def with_article(phrase: str) -> str:
    """The phrase behind "a" or "an"; unchanged if its noun is a plural or a mass noun, or if an article is there."""
    if re.match(r"(?:an?|the|some|two)\b", phrase):
        return phrase
    head = re.split(r",| (?:of|with|on|in|for|under) ", phrase)[0].split()
    if not head or head[-1] in MASS_WORDS or PLURAL_IN_S.fullmatch(head[-1]):
        return phrase
    return f"{article(phrase)} {phrase}"


def article(phrase: str) -> str:
    """The article "a" or "an" that fits the sound of the phrase's first word, as far as its spelling shows it."""
    lower = phrase.lower()
    return "an" if SPELT_AN.match(lower) or LETTERS_AN.match(lower) else "a"


def words(text: str) -> set[str]:
    """The words of a text, small."""
    return set(re.findall(r"[a-z0-9']+", text.lower()))


def _described(name: str, colors: tuple[str, ...], materials: tuple[str, ...]) -> list[str]:
    """The name with its colours, with its materials, and with both."""
    looks = list(colors[:1])
    if len(colors) > 1:
        looks.append(f"{colors[0]} and {colors[1]}")
    stuffs = [ADJECTIVES.get(material, material) for material in materials[:2]]
    phrases = [f"{look} {name}" for look in looks]
    phrases += [f"{stuff} {name}" for stuff in stuffs]
    phrases += [f"{look} {stuff} {name}" for look in looks for stuff in stuffs]
    made = [text for phrase in phrases for text in (phrase, with_article(phrase))]
    return made + [f"{with_article(name)} made of {material}" for material in materials[:2]]
