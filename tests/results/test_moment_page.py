"""The page of found moments: hostile names stay text, nothing is loaded or run, curves and links say what was found."""

import re
import time
from pathlib import Path

import numpy as np
import pytest

from engine.data.pyav import files
from engine.data.pyav.encode import write_video
from engine.data.pyav.packets import read_frames
from engine.data.pyav.probe import probe
from engine.results.moment_page import MomentPage, Shown, ShownQuery, ShownVideo, link, pictures, write_moment_page
from tests.data.videos import describe, numbered_frame, numbers
from tests.results.visual_report.test_page import Page

SCRIPT = "<script>alert(1)</script>"
HOSTILE = Path("/v") / "\"><img src=x onerror='alert(2)'>.mp4"


def shown(rank, start_s, end_s, href="file:///v/a.mp4#t=1.00,2.00", count=3, **more):
    frames = [np.full((8, 8, 3), 40 * k, np.uint8) for k in range(count)]
    return Shown(rank, f"0:00:0{start_s:.1f}", f"0:00:0{end_s:.1f}", start_s, end_s, 0.5, href, None, frames, **more)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    values = np.array([0.1, 0.2, 0.9, 0.3])
    moments = [shown(1, 4.0, 6.0), shown(2, 0.0, 2.0, None, 0, problem=SCRIPT)]
    video = ShownVideo(HOSTILE, "0:00:08.0", 8.0, np.array([0, 2.0, 4.0, 6.0, 8.0]), values, moments)
    asked = [ShownQuery(f"{SCRIPT} dog", [video], 0.0, 1.0), ShownQuery("nothing", [], 0.0, 1.0)]
    page = MomentPage([("model", f'"{SCRIPT}'), ("steered", "\x1b[31m")], "cosine", asked, {str(HOSTILE): "gone <b>"})
    path = tmp_path_factory.mktemp("page") / "sub" / "found.html"
    write_moment_page(page, path)
    return path.read_text(encoding="utf-8")


def test_names_are_text_and_nothing_is_loaded(written):
    page = Page(written)
    assert not page.all("script") and not page.all("link") and "alert(1)" in page.text and "\x1b" not in written
    assert all(
        image["src"].startswith("data:image/jpeg;base64,") and set(image) == {"src", "alt"} for image in page.all("img")
    )
    assert len(page.all("img")) == 3
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.elements for name in attributes)
    assert {a["href"] for a in page.all("a")} == {"#q1", "#q2", "file:///v/a.mp4#t=1.00,2.00"}
    assert "default-src 'none'" in next(m["content"] for m in page.all("meta") if "Security" in m.get("http-equiv", ""))
    assert "gone <b>" in page.text and "Nothing was found." in page.text and "No pictures: <script>" in page.text


def test_bands_and_curve_lie_where_the_moments_do(written):
    page = Page(written)
    bands = [(rect["x"], rect["width"]) for rect in page.all("rect")]
    assert bands == [("50.00%", "25.00%"), ("0.00%", "25.00%")]
    points = re.findall(r"([\d.]+),([\d.]+)", page.all("polyline")[0]["points"])
    assert [(float(x), float(y)) for x, y in points] == [
        (0, 90), (125, 90), (375, 80), (625, 10), (875, 70), (1000, 70),
    ]  # fmt: skip


def test_a_long_curve_keeps_its_peak_in_few_points():
    values = np.zeros(14_400)
    values[9_001] = 1.0
    video = ShownVideo(Path("a"), "", 7200.0, np.linspace(0, 7200, 14_401), values, [])
    points = [tuple(map(float, pair.split(","))) for pair in video.points(0.0, 1.0).split(" ")]
    assert len(points) <= 602 and min(y for _, y in points) == 0
    assert min(points, key=lambda point: point[1])[0] == pytest.approx(1000 * 9001 / 14_400, abs=2)
    flat = ShownVideo(Path("a"), "", 1.0, np.array([0.0, 1.0]), np.array([0.4]), [])
    assert "nan" not in flat.points(0.4, 0.4)


def test_links_are_relative_to_what_lies_below_and_quoted(tmp_path):
    page = tmp_path / "out" / "found.html"
    below = tmp_path / "out" / "v" / "a #1?% é.mp4"
    assert link(below, page, 1.25, 3.5) == "./v/a%20%231%3F%25%20%C3%A9.mp4#t=1.25,3.50"
    assert link(tmp_path / "b.mp4", page) == f"file://{tmp_path}/b.mp4"
    assert link(Path("/v/\udcff.mp4"), page, 0, 1).endswith("/v/%FF.mp4#t=0.00,1.00")
    assert link(tmp_path / "out" / "..b.mp4", page) == "./..b.mp4"


def test_pictures_are_of_the_moment_upright(tmp_path):
    write_video(tmp_path / "a.mp4", (numbered_frame(k, 160, 160) for k in range(100)))
    footage = describe(tmp_path / "a.mp4"), probe(tmp_path / "a.mp4").timeline
    frames, problem = pictures(footage, 1.0, 2.2)
    assert numbers(np.stack(frames)) == [27, 32, 37, 42, 47, 52] and not problem
    assert numbers(np.stack(pictures(footage, 2.0, 2.04)[0])) == [50]
    assert numbers(np.stack(pictures(footage, 3.9, 9.0)[0]))[-1] == 99
    (tmp_path / "a.mp4").write_bytes(b"another")
    frames, problem = pictures(footage, 1.0, 2.2)
    assert not frames and "index it again" in problem


def test_pictures_deep_in_a_file_that_cannot_be_sought_take_their_time(tmp_path, monkeypatch):
    write_video(tmp_path / "a.ts", (numbered_frame(k, 160, 160) for k in range(100)))
    footage = describe(tmp_path / "a.ts", key_frames=(), key_pts=()), probe(tmp_path / "a.ts").timeline
    now, clock = [0.0], time.monotonic

    def read_slowly(*given):
        for frame in read_frames(*given):
            now[0] += 20.0
            yield frame

    monkeypatch.setattr(files, "read_frames", read_slowly)
    monkeypatch.setattr("time.monotonic", lambda: clock() + now[0])
    frames, problem = pictures(footage, 3.0, 3.24)
    assert (numbers(np.stack(frames)), problem) == ([75, 76, 77, 78, 79, 80], "")
