"""unseen: trains video models end to end to recognise actions they have never seen."""

__version__ = "0.1.0"
