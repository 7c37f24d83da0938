"""A house that people live in: living room, kitchen, office and bedroom that look like a photograph.

Its furniture is of the models that the shipped network was trained with; the rooms are not.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from gsemsplat_ros.rooms.builder import Builder
from gsemsplat_ros.rooms.furnish import models_by_kind
from gsemsplat_ros.rooms.furniture import Furniture
from gsemsplat_ros.rooms.house import House, furnished_house, room_sizes
from gsemsplat_ros.rooms.illumination import DETAILS
from gsemsplat_ros.rooms.layout import Photographic
from gsemsplat_ros.rooms.patterns import details

# theme -> names of what stands there, in the order of the ring
ROOMS = {
    'living': 'sofa|couch|bookcase|full bookcase|television stand|fireplace|(modern )?armchair|coffee table|'
    'pedestal vase lamp',
    'kitchen': 'refrigerator|large fridge|kitchen island|lower cabinet|washing machine|cupboard|chair|'
    'bar stool|table|round table|range hood|upper cabinet',
    'office': 'bookcase|shelves|drawers cabinet|chair|armchair|desk|wooden desk|white board|exercise bike',
    'bedroom': 'bed|wardrobe|dresser with drawers|chest|suitcase|pouf|bedside table|dressing table',
}
EVERYWHERE = (
    'plant|lamp|desk lamp|book|bottle|wine bottle|bowl|coffee cup|coffee mug|speaker|aquarium|bonsai tree|'
    'candle|newspaper|desktop computer|apples|cat|basketball|radiator|clock|flat television|hanging light'
)
SKY, GROUND = np.array([0.5, 0.5, 0.52]), np.array([0.4, 0.37, 0.33])  # RGB, linear: what the walls send back
EXPOSURE = 1.0


def sample_home(furniture: Furniture, rng: np.random.Generator) -> House:
    """Sample such a house, of four rooms of 3.2 to 4.2 m x 3.2 to 4.2 m."""
    kinds = models_by_kind(furniture, heldout=False)
    builders = []
    for size, (theme, names) in zip(room_sizes(rng), ROOMS.items()):
        fitting = {
            kind: [i for i in models if re.fullmatch(f'{names}|{EVERYWHERE}', furniture.models[i].name)]
            for kind, models in kinds.items()
        }
        builders.append(Builder(rng, theme, size, furniture=furniture, kinds=fitting, photographic=True))
    house = furnished_house(builders, Photographic(SKY, GROUND, EXPOSURE, details(rng, DETAILS)))
    before, after = (
        replace(room, pieces=[replace(piece, finish=None) for piece in room.pieces]) for room in house.rounds
    )  # a fridge is not of marble
    return replace(house, rounds=(before, after))
