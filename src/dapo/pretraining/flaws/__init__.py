"""Flaws: what goes wrong with a surface, one drawing function a visual family, each with its exact mask.

The order of the imports is the order of `FLAWS`, and with it part of every generated scene: append, never
reorder.
"""

# isort: off
from dapo.pretraining.flaws.canvas import FLAWS, Canvas, draw_flaw
from dapo.pretraining.flaws import lines, relief, areas, things, edges, boards  # noqa: F401
# isort: on

BOARD_FLAWS = frozenset({"open", "short", "spur", "mouse_bite"})  # drawn on boards and prints only
EDGE_FLAWS = frozenset({"chip", "break", "burr"})
FABRIC_FLAWS = frozenset({"weave", "nep", "thread", "tear"})  # drawn on fabrics more often than elsewhere

__all__ = ["BOARD_FLAWS", "EDGE_FLAWS", "FABRIC_FLAWS", "FLAWS", "Canvas", "draw_flaw"]
