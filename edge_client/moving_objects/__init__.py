"""Moving objects: from the pictures of a fixed camera to classified, directed counts at drawn lines."""

from __future__ import annotations

from edge_client.moving_objects.config import Line, MovingObjectsConfig
from edge_client.moving_objects.counter import MovingObjects
from edge_client.moving_objects.lines import Crossing

__all__ = ["Crossing", "Line", "MovingObjects", "MovingObjectsConfig"]
