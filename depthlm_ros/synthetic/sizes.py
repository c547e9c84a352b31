"""How large things are: the metric prior that the images carry.

Every range is in metres. ``source`` names the standard, law or table that it was chosen by, with the figures of that
where they differ; :data:`CHOSEN` where there is none. No value may change: checkpoints and test scenes were made with
these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CHOSEN = "chosen, without a source"


@dataclass(frozen=True)
class Range:
    """An interval in metres and where it comes from."""

    low: float
    high: float
    source: str = CHOSEN

    def draw(self, rng: np.random.Generator) -> float:
        """Uniform in the interval."""
        return float(rng.uniform(self.low, self.high))


BODY_HEIGHT = Range(1.50, 1.95, "adult stature, about 5th percentile women to 97th men, NHANES / ISO 7250-1")
PALLET_LENGTH = Range(1.2, 1.2, "EUR pallet, EN 13698-1")
PALLET_WIDTH = Range(0.8, 0.8, "EUR pallet, EN 13698-1")
PALLET_HEIGHT = Range(0.144, 0.144, "EUR pallet, EN 13698-1")
DOOR_WIDTH = Range(0.735, 0.985, "door leaf, DIN 18101")
DOOR_HEIGHT = Range(1.985, 2.11, "door leaf, DIN 18101")
TABLE_HEIGHT = Range(0.70, 0.76, "EN 527-1 (fixed desks 0.74 m)")
TABLE_LENGTH = Range(1.0, 2.0, "dining tables for four to eight, 48 to 78 in, tyfinefurniture.com")
TABLE_DEPTH = Range(0.6, 0.9, "EN 527-1 (desks 0.8 m)")
COFFEE_TABLE_HEIGHT = Range(0.38, 0.48, "15 to 18 in, engineerfix.com; 19 in, thefurnituredomain.com")
SEAT_HEIGHT = Range(0.42, 0.50, "EN 1335-1 (office chairs 0.40 to 0.51 m)")
SEAT_WIDTH = Range(0.40, 0.50, "EN 1335-1")
CHAIR_HEIGHT = Range(0.80, 1.0)
SOFA_LENGTH = Range(1.4, 2.3, "54 in (two seats), thefurnituredomain.com, to 90 in (three), thespruce.com")
ARMCHAIR_LENGTH = Range(0.8, 1.0, "35 in, thespruce.com")
SOFA_DEPTH = Range(0.8, 1.0, "33 in, thefurnituredomain.com, to 38 in, thespruce.com")
SOFA_SEAT_HEIGHT = Range(0.38, 0.45, "17 to 19 in, engineerfix.com; drawn lower")
BED_WIDTH = Range(0.9, 1.8, "mattress sizes, EN 1334")
BED_LENGTH = Range(1.95, 2.1, "mattress sizes, EN 1334")
CABINET_WIDTH = Range(0.4, 1.2)
CABINET_DEPTH = Range(0.35, 0.6)
CABINET_HEIGHT = Range(0.7, 2.1)
SHELF_WIDTH = Range(0.6, 1.2, "bookcases to 45 in, thespruce.com")
SHELF_DEPTH = Range(0.25, 0.4, "bookcases, 9 to 14 in, thefurnituredomain.com")
SHELF_HEIGHT = Range(0.9, 2.1, "bookcases, 48 to 84 in, thefurnituredomain.com; drawn from lower")
RACK_BAY = Range(1.8, 3.6, "beams of 96 to 144 in, matcodist.com; drawn from shorter")
RACK_DEPTH = Range(1.0, 1.1, "42 to 48 in, matcodist.com; for EUR pallets with overhang")
RACK_LEVEL = Range(1.3, 1.9, "1.55 m for loads of 1.3 m, prq.com.au")
CARTON = Range(0.2, 0.6, "to the module of 600 x 400 mm, ISO 3394, and its parts")
BIN_RADIUS = Range(0.12, 0.2)
BIN_HEIGHT = Range(0.28, 0.65)
DRUM_RADIUS = Range(0.285, 0.295, "216.5 l steel drum, ISO 15750-2")
DRUM_HEIGHT = Range(0.86, 0.90, "216.5 l steel drum, ISO 15750-2")
CONE_HEIGHT = Range(0.3, 0.75, "EN 13422")
PLANT_HEIGHT = Range(0.4, 1.8)
PILLAR_WIDTH = Range(0.25, 0.6)
STEP_RISE = Range(0.15, 0.20, "DIN 18065 (0.14 to 0.20 m)")
STEP_TREAD = Range(0.23, 0.30, "DIN 18065 (0.23 to 0.37 m)")
SKIRTING = Range(0.05, 0.1)
ROOM_HEIGHT = Range(2.4, 3.2, "at least 2.4 m, National Building Code of the Philippines section 805")
ROOM_LENGTH = Range(2.8, 8.5)
ROOM_WIDTH = Range(2.5, 6.5)
HALL_HEIGHT = Range(4.0, 9.0)
HALL_LENGTH = Range(9.0, 34.0)
HALL_WIDTH = Range(7.0, 20.0)
CORRIDOR_LENGTH = Range(5.0, 28.0)
CORRIDOR_WIDTH = Range(
    1.3, 2.8, "at least 1.35 m (dwellings) to 2.4 m (hospitals), regcheck.tealcheck.com section 8.4.8"
)
WINDOW_SILL = Range(0.8, 1.0, "at least 0.8 m, above a fall of 12 m 0.9 m, Musterbauordnung section 38")
CAR_LENGTH = Range(3.6, 4.9, "segments B to E, 3.7 to 5.0 m, Wikipedia: Euro Car Segment")
CAR_WIDTH = Range(1.65, 1.9)
CAR_HEIGHT = Range(1.42, 1.75)
TRUNK_RADIUS = Range(0.08, 0.3)
TREE_HEIGHT = Range(4.0, 11.0)
FENCE_HEIGHT = Range(
    0.9, 2.0, "to 1 m beside roads and 2 m elsewhere, GPDO 2015 (England) schedule 2 part 2 class A"
)
HEDGE_HEIGHT = Range(0.6, 2.0)
BOLLARD_HEIGHT = Range(0.7, 1.1, "24 to 42 in, hurricanefenceinc.com; 0.75 to 1.0 m, pittmantraffic.co.uk")
LAMP_POST_HEIGHT = Range(3.5, 6.0, "3 to 5 m in parks, casyoo.com; 4.5 to 6 m beside footways, thaisolid.com")
YARD_LENGTH = Range(12.0, 40.0)
YARD_WIDTH = Range(8.0, 26.0)
STOREY = Range(2.8, 3.5)
