"""The section `data.remote` of a config."""

from dataclasses import dataclass

from engine.schema.parser import option


@dataclass(frozen=True)
class RemoteConfig:
    """How stores in object storage (s3://, gs://, https://) are read. Credentials are never here: docs/data.md."""

    reads_in_flight: int = option(64, "ranges read at the same time, ahead of the decoders", minimum=1, decides=False)
    patience_s: float = option(
        600.0, "seconds that a store may be away before the run saves a checkpoint and ends", minimum=0, decides=False
    )
    cache_folder: str = option("", "copies on a local disk; default: ~/.cache/unseen", decides=False, path=True)
    cache_gb: float = option(0.0, "of that, ranges of videos, the last read; 0: none", minimum=0, decides=False)
