"""The built-in roadside for those without data: rendered vehicles and roads, speeds of a traffic-flow model.

Everything here is simulated, is written as ordinary packs, and says so on its cards.
"""

from __future__ import annotations

from roadcast.simulated.roadside import CLIP, SPEED_PACK, VEHICLE_PACK, simulate_roadside

__all__ = ["CLIP", "SPEED_PACK", "VEHICLE_PACK", "simulate_roadside"]
