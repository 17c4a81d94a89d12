"""Flaws: what goes wrong with a surface, one drawing function a visual family, each with its exact mask.

The order of the imports is the order of `FLAWS`, and with it part of every generated scene.
"""

# isort: off
from dapo.pretraining.flaws.canvas import FLAWS, LEAST_AREA, Canvas, draw_flaw
from dapo.pretraining.flaws import lines, relief, areas, finish, oxide, things, edges, boards  # noqa: F401
# isort: on

BOARD_FLAWS = frozenset({"open", "short", "spur", "mouse_bite"})  # drawn on circuit boards only
EDGE_FLAWS = frozenset({"chip", "break", "burr"})  # drawn where an edge is, mostly
FABRIC_FLAWS = frozenset({"weave", "nep", "thread", "tear"})  # drawn on fabrics more often than elsewhere

__all__ = ["BOARD_FLAWS", "EDGE_FLAWS", "FABRIC_FLAWS", "FLAWS", "LEAST_AREA", "Canvas", "draw_flaw"]
