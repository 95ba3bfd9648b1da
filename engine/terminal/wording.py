"""Words of messages."""

import signal


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 class", "2 classes"."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def signal_name(number: int) -> str:
    """SIGKILL of 9, SIGRTMIN+1 of the second of those for real time, which Python has no names for."""
    return signal.Signals(number).name if number in list(signal.Signals) else f"SIGRTMIN{number - signal.SIGRTMIN:+d}"
