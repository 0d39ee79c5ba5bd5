"""EfficientNet-Lite0, trained on ImageNet's classes, as teacher."""

from __future__ import annotations

from torch import Tensor

from unigendet.config import ModelConfig
from unigendet.metrics.features import feature_maps, layer_width
from unigendet.teachers.images import ImageTeacher
from unigendet.teachers.layers import EFFICIENTNET_LAYERS, TeacherLayer, depth


class EfficientNetTeacher(ImageTeacher):
    """Its maps after one of seventeen layers: sixteen blocks (0..15), then the last convolution.

    It reads 224 x 224 px whatever the image's size. The maps are 14 x 14 with 112 channels after
    block 10, 7 x 7 with 320 after block 15 (`last_input`), 7 x 7 with 1280 at the end (`last`).
    The metrics of generated images are made of the last ones: they flatter who learned from it.
    """

    def __init__(self, config: ModelConfig, layer: TeacherLayer) -> None:
        num_layers = depth(layer, EFFICIENTNET_LAYERS)
        super().__init__(config, layer_width(num_layers))
        self.num_layers = num_layers

    def maps(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        return feature_maps(pixels, self.num_layers)
