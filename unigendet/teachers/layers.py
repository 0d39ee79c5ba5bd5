"""One way to name a teacher's layer, whatever the teacher is."""

from __future__ import annotations

from typing import Literal

TeacherLayer = Literal["last", "last_input"] | int
"""`last`, `last_input` (what the last layer reads), or a layer counted from 0."""


EFFICIENTNET_LAYERS = 17
"""Of EfficientNet-Lite0: sixteen blocks and the last convolution."""


def depth(layer: TeacherLayer, layers: int) -> int:
    """How many of `layers` to run so that the output of `layer` comes out.

    Raises ValueError where the network has no such layer.
    """
    wanted = {"last": layers, "last_input": layers - 1}.get(str(layer))
    if wanted is None:
        wanted = int(layer) + 1
    if not 1 <= wanted <= layers:
        raise ValueError(
            f"teacher_layer {layer} is none of the teacher's layers 0..{layers - 1}; "
            "`last` and `last_input` name them from the end"
        )
    return wanted
