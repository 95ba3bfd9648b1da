"""The section `model` of a config: the network, and how much of a clip a transformer is shown."""

from dataclasses import dataclass

from engine.models.catalogue import BACKBONES
from engine.schema.parser import option, section


@dataclass(frozen=True)
class TokensConfig:
    """The tokens of a clip that a transformer (vit_*) is shown, in training and ever after; it reads nothing of the others."""

    share: float = option(1.0, "share of the tokens, the same number of every clip; 1: all", minimum=0.001, maximum=1)
    by: str = option(
        "motion",
        "motion: those that move most (needs clip.motion=true); random: any, drawn anew in each step, the control",
        choices=("motion", "random"),
        needs="share!=1.0",
    )

    def __str__(self) -> str:
        """What is added to the network's name."""
        return f", {self.share:g} of the tokens by {self.by}" if self.share < 1 else ""


@dataclass(frozen=True)
class ModelConfig:
    """Video -> point in word space: 3-D CNN or image network, mean over snippets, linear layer."""

    backbone: str = option(
        "r2plus1d_18",
        "a 3-D CNN; vit_tiny, vit_small or vit_base, a transformer over 2x16x16 patches; or timm:NAME, a 2-D network of timm on "
        "each frame, averaged over time",
        choices=tuple(BACKBONES),
    )
    width: int = option(
        64,
        "channels of its first stage; 64 is the published network, less suits a CPU",
        minimum=4,
        needs="backbone=r2plus1d_18|r3d_18|mc3_18|c3d",
    )
    temporal: str = option(
        "none",
        "how the order of frames counts in an image network: shift, of channels between neighbours in every block (to be "
        "trained end to end); difference, what rises from frame to frame beside the mean",
        choices=("none", "shift", "difference"),
        needs="backbone=timm:*",
    )
    form: str = option(
        "auto",
        "how a residual network computes: published, torchvision's modules; flat, the same in 2-D; summed, flat with kernels for "
        "batch-norm's sums; fused, summed without batch-norm's own passes in R(2+1)D; auto, as measured",
        choices=("auto", "published", "flat", "summed", "fused"),
        needs="backbone=r2plus1d_18|mc3_18",
        decides=False,
    )
    weights: str | None = option(
        None,
        "weights to start from: a file or a run folder; 'kinetics400' from torchvision's cache; of an image network 'installed', "
        "EfficientNet-Lite0's or -Lite2's of ImageNet, or 'timm', from timm's cache or downloaded",
        path=True,
    )
    freeze_backbone: bool = option(
        False, "train only the linear layer (the paper's baseline); batch-norm stays frozen too"
    )
    linear: bool = option(
        True,
        "False: no linear layer; an image network's own output, with its last layer, is the point of word space (CLIP)",
        needs="backbone=timm:*",
    )
    dropout: float = option(0.05, "dropout before the linear layer", minimum=0, maximum=0.95)
    unit_norm: bool = option(False, "scale the output to unit length (the authors' code does)")
    tokens: TokensConfig = section(TokensConfig, needs="backbone=vit_tiny|vit_small|vit_base")

    def __str__(self) -> str:
        """The network in a few words."""
        if self.backbone.startswith("timm:"):
            return f"{self.backbone}, temporal {self.temporal}"
        if self.backbone.startswith("vit_"):
            return f"{self.backbone}{self.tokens}"
        return f"{self.backbone}, width {self.width}"
