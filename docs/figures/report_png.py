"""Makes docs/report.png: two parts of a report.html, from its top and from "Best videos", beside each other at half size.

Needs a browser: `pip install PySide6-Addons` (150 MB, LGPL-3.0) in an environment of its own, then

    QT_QPA_PLATFORM=offscreen python docs/figures/report_png.py runs/quickstart/report.html docs/report.png
"""

import os
import sys
from pathlib import Path

from PySide6.QtCore import Qt, QTimer, QUrl
from PySide6.QtGui import QImage, QPainter
from PySide6.QtWebEngineWidgets import QWebEngineView
from PySide6.QtWidgets import QApplication

WIDTH, HEIGHT = 1100, 2006
SETTLED_MS = 1500
TOP = "document.documentElement.style.overflow = 'hidden'; 1"  # without a scroll bar
BEST = (
    "[...document.querySelectorAll('h3')].find(h => h.textContent == 'Best videos').parentElement.scrollIntoView(); 1"
)


def main(source: Path, target: Path) -> None:
    """Open the page, take both parts, write the picture."""
    os.environ.setdefault("QTWEBENGINE_CHROMIUM_FLAGS", "--no-sandbox --disable-gpu")
    application, view = QApplication([]), QWebEngineView()
    view.resize(WIDTH, HEIGHT)
    size = (WIDTH // 2, HEIGHT // 2)
    picture = QImage(WIDTH, size[1], QImage.Format.Format_RGB32)
    parts = iter((TOP, BEST))

    def show_next(left: int) -> None:
        part = next(parts, None)
        if part is None:
            picture.save(str(target))
            application.quit()
            return
        view.page().runJavaScript(part, lambda _: QTimer.singleShot(SETTLED_MS, lambda: take(left)))

    def take(left: int) -> None:
        painter = QPainter(picture)
        shot = view.grab().toImage()
        smooth = Qt.TransformationMode.SmoothTransformation
        painter.drawImage(left, 0, shot.scaled(*size, Qt.AspectRatioMode.IgnoreAspectRatio, smooth))
        painter.end()
        show_next(left + size[0])

    view.loadFinished.connect(lambda _: show_next(0))
    view.load(QUrl.fromLocalFile(str(source.resolve())))
    view.show()
    application.exec()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
