"""The real class lists and vectors beside the checkout; a test that asks for one that is absent is skipped."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"shared research data is not beside the checkout ({path})")
    return path


def class_list(file: str) -> list[str]:
    return [line.strip() for line in shared(f"class_lists/{file}").read_text(encoding="utf-8").splitlines()]
