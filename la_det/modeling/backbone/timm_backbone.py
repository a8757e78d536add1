"""Models of the library timm as Detectron2 backbones."""

from collections.abc import Sequence
from types import ModuleType

from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

from la_det.errors import UserError


class TimmBackbone(Backbone):
    """Feature maps "stride8", "stride16", ... of any timm model that has them.

    `train.init_checkpoint="timm://<model_name>"` starts from timm's weights.

    Args:
        model_name: name of the model in timm.
        strides: strides of the outputs. If several feature maps have one stride, the last map is taken.
        out_norm: whether LayerNorm follows over each output's channels, as in the detectors of Swin's authors.
        options: options of the model, e.g. `strict_img_size=False` for Swin on images of any size.

    Raises:
        UserError: timm is not installed.
        ValueError: the model has no feature map of one of the strides.
    """

    def __init__(
        self,
        *,
        model_name: str,
        strides: Sequence[int] = (8, 16, 32),
        out_norm: bool = False,
        **options: object,
    ):
        super().__init__()
        self.net = import_timm().create_model(model_name, features_only=True, **options)
        info = self.net.feature_info
        positions = {stride: i for i, stride in enumerate(info.reduction())}
        if not set(strides) <= set(positions):
            raise ValueError(f"{model_name} has feature maps of strides {list(positions)}, not of all {list(strides)}")
        self.positions = [positions[stride] for stride in strides]
        self.shapes = {
            f"stride{stride}": ShapeSpec(channels=info.channels()[positions[stride]], stride=stride)
            for stride in strides
        }
        self.norms = nn.ModuleList(
            nn.LayerNorm(shape.channels) if out_norm else nn.Identity() for shape in self.shapes.values()
        )
        self.channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Name -> feature map [N, C, h, w] of an image batch [N, 3, H, W]."""
        features = self.net(x)
        outputs = {}
        for name, position, norm in zip(self.shapes, self.positions, self.norms, strict=True):
            y = features[position] if self.channels_last else features[position].permute(0, 2, 3, 1)
            outputs[name] = norm(y).permute(0, 3, 1, 2)
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        return self.shapes


def import_timm() -> ModuleType:
    """The module timm, which only these backbones need.

    Raises:
        UserError: timm is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise UserError("backbones of timm need this package: pip install timm") from error
    return timm
