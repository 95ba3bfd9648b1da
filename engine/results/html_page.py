"""Pages as one HTML file: nothing is fetched, nothing runs, and every name in it is escaped.

Names of classes, files and queries come from others. Jinja escapes whatever a template prints (autoescape), control
characters are spelt out, and a page forbids scripts and every request by its Content-Security-Policy (`css_hash`).
"""

import base64
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from engine import __version__
from engine.files.atomic_file import atomic_write
from engine.terminal.screen import plain

_STYLE = Path(__file__).parent / "page.css"
_JPEG_QUALITY = 85


def render_page(template: Path, filters: dict[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """A template filled with values, as text. It sets a `title` and includes page_head.html, where the policy stands."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, _STYLE.parent]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"jpeg": _jpeg, **(filters or {})}
    css = _STYLE.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return environment.get_template(template.name).render(
        css=Markup(css), css_hash=digest, version=__version__, **values
    )


def write_html(text: str, path: Path) -> None:
    """Write a page to `path`, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _finalize(value: object) -> object:
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _jpeg(frame: np.ndarray) -> str:
    """A frame, uint8 [H, W, 3], as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
