"""The section `model.tokens` of a config: how much of a clip a transformer is shown."""

from dataclasses import dataclass

from engine.schema.parser import option


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
