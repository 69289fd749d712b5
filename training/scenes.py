"""Captioned scenes: the language, the drawing and the split into training and held-out scenes.

A scene is one shape, or two shapes side by side or one above the other, flat-filled on a plain
background. Its description is canonical: object `a` is the only one, the left one or the top one,
whatever order the caption names them in.
"""

import random
import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

SIDE = 128
CELL = 8  # one latent pixel; things move in steps of a cell, so that their codes only move, too

COLOURS = {
    "red": 0xE03131, "orange": 0xF76707, "yellow": 0xFCC419, "green": 0x2F9E44,
    "blue": 0x1C7ED6, "purple": 0x7048E8, "pink": 0xF06595, "brown": 0x8D5524,
    "black": 0x111111, "white": 0xFFFFFF, "gray": 0x868E96, "light gray": 0xD3D6DA,
}
COLOUR_NAMES = [name for name in COLOURS if name != "light gray"]
BACKGROUND_NAMES = list(COLOURS)
SHAPE_NAMES = ["circle", "square", "triangle", "star", "heart", "cross", "ring", "diamond"]
LAYOUTS = ["single", "horizontal", "vertical"]
SIZES = ["small", "medium", "large"]
EXTENT = {"small": 40, "medium": 64, "large": 88, "pair": 48}

SHAPE_WORDS = {
    "circle": ["disc", "disk", "dot"], "square": ["box"], "triangle": [], "star": [],
    "heart": [], "cross": ["plus", "plus sign"], "ring": ["donut", "hoop"],
    "diamond": ["rhombus"],
}
COLOUR_WORDS = {"gray": ["grey"], "light gray": ["light grey"], "purple": ["violet"]}
SIZE_WORDS = {"small": ["tiny", "little"], "medium": [], "large": ["big", "huge"]}
RELATION_WORDS = {
    "above": ["over", "on top of"],
    "below": ["under", "beneath", "underneath"],
    "left of": ["to the left of", "on the left of"],
    "right of": ["to the right of", "on the right of"],
}
# The relation of the first-named to the second-named object: (a is named first, b is named first)
RELATIONS = {"horizontal": ("left of", "right of"), "vertical": ("above", "below")}


def rgb(colour):
    """The sRGB triple of a colour's name."""
    value = COLOURS[colour]
    return value >> 16, value >> 8 & 255, value & 255


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    colour: str
    shape: str


@dataclass(frozen=True)
class Scene:
    """What a caption says and a picture shows. `b` is None in a scene of one shape."""

    layout: str
    size: str
    background: str
    a: Thing
    b: Thing | None

    def held_out(self):
        """Whether the scene belongs to the tenth that training never sees."""
        return zlib.crc32(repr(self).encode()) % 10 == 0

    def swapped(self):
        """The same scene with both objects' places exchanged."""
        return Scene(self.layout, self.size, self.background, self.b, self.a)

    def default_background(self):
        """The background of a caption that names none."""
        white = self.a.colour == "white" or (self.b and self.b.colour == "white")
        return "light gray" if white else "white"


def random_scene(rng, pair, held_out):
    """Draw one scene, of two shapes if `pair`, from the held-out tenth or from the rest."""
    while True:
        things = [Thing(rng.choice(COLOUR_NAMES), rng.choice(SHAPE_NAMES)) for _ in range(1 + pair)]
        used = {thing.colour for thing in things}
        background = rng.choice([c for c in COLOUR_NAMES if c not in used])
        layout = rng.choice(LAYOUTS[1:]) if pair else "single"
        size = "medium" if pair else rng.choice(SIZES)
        scene = Scene(layout, size, background, things[0], things[1] if pair else None)
        if rng.random() < 0.4:
            scene = Scene(layout, size, scene.default_background(), scene.a, scene.b)
        if scene.held_out() == held_out:
            return scene


# --- language ---


def _word(rng, name, synonyms, plain):
    others = synonyms.get(name, [])
    return name if plain or not others or rng.random() < 0.6 else rng.choice(others)


def _article(rng, phrase, plain):
    """`phrase` with an article: `a` or `an`, seldom `the` or none."""
    article = "an" if phrase[0] in "aeiou" and rng.random() < 0.5 else "a"
    if not plain:
        article = rng.choice([article, "the", "one", ""])
    return f"{article} {phrase}".strip()


def _thing_phrase(rng, thing, size, plain):
    colour = _word(rng, thing.colour, COLOUR_WORDS, plain)
    shape = _word(rng, thing.shape, SHAPE_WORDS, plain)
    size = "" if size == "medium" else _word(rng, size, SIZE_WORDS, plain)
    if not plain and rng.random() < 0.15:
        return _article(rng, f"{size} {shape} in {colour}".strip(), plain)
    if size and not plain and rng.random() < 0.3:
        return _article(rng, f"{colour} {size} {shape}", plain)
    return _article(rng, f"{size} {colour} {shape}".strip(), plain)


def _with_background(rng, phrase, background, plain):
    colour = _word(rng, background, COLOUR_WORDS, plain)
    ground = _article(rng, f"{colour} background", plain=True)
    if plain:
        return f"{phrase} on {ground}"
    form = rng.choice([
        "{p} on {g}", "{p} with {g}", "{p} against {g}", "{p} in front of {g}",
        "{p} on {c}", "{p} on {c} background", "{p}, {c} background",
        "on {g}, {p}", "{g} with {p}",
    ])
    return form.format(p=phrase, g=ground, c=colour)


def caption(scene, rng, plain=None):
    """Put a scene into words: in the plain grammar, or (a third of the time) in freer ones."""
    if plain is None:
        plain = rng.random() < 0.67
    if scene.b is None:
        phrase = _thing_phrase(rng, scene.a, scene.size, plain)
    else:
        first, second = scene.a, scene.b
        backwards = rng.random() < 0.5
        if backwards:
            first, second = second, first
        relation = _word(rng, RELATIONS[scene.layout][backwards], RELATION_WORDS, plain)
        phrase = " ".join([
            _thing_phrase(rng, first, "medium", plain), relation,
            _thing_phrase(rng, second, "medium", plain),
        ])
    named = scene.background != scene.default_background() or rng.random() < 0.4
    if named:
        phrase = _with_background(rng, phrase, scene.background, plain)
    return phrase + ("." if not plain and rng.random() < 0.1 else "")


def vocabulary():
    """Every word that captions use."""
    phrases = [*SHAPE_NAMES, *COLOUR_NAMES, *SIZES, *RELATION_WORDS]
    for table in (SHAPE_WORDS, COLOUR_WORDS, SIZE_WORDS, RELATION_WORDS):
        phrases += [phrase for synonyms in table.values() for phrase in synonyms]
    phrases.append("a an the one and of on in to with against front background light picture")
    return sorted({word for phrase in phrases for word in phrase.split()})


# --- drawing ---


def _outline(shape):
    """A shape's corners in the square from -1 to 1, y downwards; None for round shapes."""
    if shape == "square":
        return [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]
    if shape == "triangle":
        return [(0, -0.9), (1, 0.85), (-1, 0.85)]
    if shape == "diamond":
        return [(0, -1), (1, 0), (0, 1), (-1, 0)]
    if shape == "cross":
        w = 0.34
        return [(-w, -1), (w, -1), (w, -w), (1, -w), (1, w), (w, w),
                (w, 1), (-w, 1), (-w, w), (-1, w), (-1, -w), (-w, -w)]
    if shape == "star":
        angles = np.arange(10) * np.pi / 5
        radii = np.where(np.arange(10) % 2, 0.46, 1.05)
        return [(r * np.sin(t), 0.08 - r * np.cos(t)) for t, r in zip(angles, radii)]
    if shape == "heart":
        t = np.linspace(0, 2 * np.pi, 200)
        x = np.sin(t) ** 3
        y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
        return list(zip(x, (y - 0.15) * 1.0))
    return None


@lru_cache(maxsize=None)
def coverage(shape, extent):
    """The shape's coverage of each pixel of a square a little larger than `extent`."""
    side, scale = extent + CELL, 8
    image = Image.new("L", (side * scale, side * scale))
    draw = ImageDraw.Draw(image)
    middle, radius = side * scale / 2, extent * scale / 2
    outline = _outline(shape)
    if outline:
        draw.polygon([(middle + x * radius, middle + y * radius) for x, y in outline], fill=255)
    else:
        draw.circle((middle, middle), radius, fill=255)
        if shape == "ring":
            draw.circle((middle, middle), 0.54 * radius, fill=0)
    image = image.resize((side, side), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float32)[..., None] / 255


def _centres(scene, rng):
    """Where the scene's objects are: near the middle, or a half each, moved by whole cells."""
    middle = SIDE // 2
    nudge = rng.choice([-CELL, 0, CELL])
    if scene.layout == "horizontal":
        return [(32, middle + nudge), (SIDE - 32, middle + nudge)]
    if scene.layout == "vertical":
        return [(middle + nudge, 32), (middle + nudge, SIDE - 32)]
    return [(middle + nudge, middle + rng.choice([-CELL, 0, CELL]))]


def flat(thing, extent, background):
    """How a thing is painted: one layer, a pair of coverage and colour."""
    return [(coverage(thing.shape, extent), thing.colour)]


def render(scene, rng, layers=flat):
    """Draw a scene, each thing by its `layers`; returns SIDE x SIDE x 3 bytes."""
    picture = np.empty((SIDE, SIDE, 3), dtype=np.float32)
    picture[:] = rgb(scene.background)
    extent = EXTENT["pair" if scene.b else scene.size]
    for thing, (x, y) in zip((scene.a, scene.b), _centres(scene, rng)):
        for cover, colour in layers(thing, extent, scene.background) if thing else ():
            half = cover.shape[0] // 2
            patch = picture[y - half:y + half, x - half:x + half]
            patch += cover * (np.array(rgb(colour), dtype=np.float32) - patch)
    return (picture + 0.5).astype(np.uint8)


def held_out_prompts(count, pair, seed):
    """`count` held-out scenes with captions in the plain grammar."""
    rng = random.Random(seed)
    scenes = [random_scene(rng, pair, held_out=True) for _ in range(count)]
    return [(scene, caption(scene, rng, plain=True)) for scene in scenes]
