"""The `masked` section of a config: what is hidden of clips, and what fills it in."""

from dataclasses import dataclass

from engine.schema.parser import option

KINDS = ("mgm", "smm", "box", "tube", "random")


@dataclass(frozen=True)
class MaskedConfig:
    """Masked pretraining (MGM): a transformer sees some tokens of a clip, a light decoder fills in the others."""

    mask: str = option(
        "mgm",
        "mgm: a box on the highest motion, followed through time; smm: a box that wanders at random; box: one that stays; tube: "
        "tokens at random, the same in all frames; random: anew in each",
        choices=KINDS,
    )
    ratio: float = option(
        0.75, "share of the tokens that are hidden, the same in every clip", minimum=0.01, maximum=0.99
    )
    decoder_depth: int = option(4, "blocks of the decoder", minimum=1)
    decoder_width: int = option(0, "values of its tokens; 0: half of the encoder's", minimum=0)

    def __post_init__(self) -> None:
        if self.decoder_width % 64:
            raise ValueError(
                f"decoder_width {self.decoder_width} is no multiple of 64, the values of an attention head"
            )
