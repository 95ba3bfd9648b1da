"""Text that calls itself a video is refused, and nothing that it names is opened: playlists, lists, subtitles, pictures.

The demuxer must be chosen among those of video containers (FFmpeg's option `format_whitelist`), for its own guess goes by
the content: a list of files named x.mp4 would be played as the files that it lists.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.indexing.dataset import IndexSettings, index_dataset
from engine.data.layouts import read_layout
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.probe import ProbeError, probe
from tests.encoded import fade, write_colors

M3U8 = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nreal.mp4\n#EXT-X-ENDLIST\n"
MPD = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S"><Period>'
    '<AdaptationSet><Representation id="1" bandwidth="1" mimeType="video/mp4"><BaseURL>real.mp4</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>"
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
ASS = "[Script Info]\nTitle: x\n[Events]\nFormat: Layer, Start, End, Style, Text\nDialogue: 0,0:00:00.00,0:00:02.00,x,hello\n"
SRT = "1\n00:00:00,000 --> 00:00:02,000\nhello\n\n2\n00:00:02,000 --> 00:00:03,000\nyou\n"
TED = '{"captions":[{"duration":1000,"content":"hi","startOfParagraph":true,"startTime":0}]}'

POSING = [
    ("concat.mp4", "ffconcat version 1.0\nfile real.mp4\n"),
    ("concat_windows.mkv", "ffconcat version 1.0\r\nfile 'real.mp4'\r\n"),
    ("concat_bare.mp4", "file 'real.mp4'\nfile 'real.mp4'\n"),
    ("hls.mp4", M3U8),
    ("hls.ts", M3U8),
    ("hls.m3u8", M3U8),
    ("hls_with_mark.mp4", "\ufeff" + M3U8),
    ("hls_of_lists.mp4", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhls.m3u8\n"),
    ("m3u.avi", "#EXTM3U\n#EXTINF:10,a\nreal.mp4\n"),
    ("pls.mp4", "[playlist]\nFile1=real.mp4\nNumberOfEntries=1\n"),
    ("asx.wmv", '<ASX version="3.0"><Entry><Ref href="real.mp4"/></Entry></ASX>'),
    ("shortcut.mp4", "[InternetShortcut]\nURL=real.mp4\n"),
    ("dash.mp4", MPD),
    ("sdp.mp4", SDP),
    ("names.mp4", "real.mp4\nreal.mp4\n"),
    ("pictures.mp4", "1.jpg\n2.jpg\n"),
    ("metadata.mp4", ";FFMETADATA1\ntitle=x\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=10\n"),
    ("subtitles_srt.mp4", SRT),
    ("subtitles_vtt.webm", "WEBVTT\n\n00:00.000 --> 00:02.000\nhello\n"),
    ("subtitles_ass.mkv", ASS),
    ("subtitles_ted.mp4", TED),
    ("subtitles_frames.avi", "{0}{25}hello\n{26}{50}you\n"),
    ("sounds.mp4", "-SE\nbase: pink/40 150+4.0/20\nNOW base\n"),
    ("picture_ppm.mp4", "P3\n2 2\n255\n255 0 0 0 255 0 0 0 255 1 1 1\n"),
    ("picture_xpm.mp4", '/* XPM */\nstatic char *x[] = {"2 1 1 1","a c #ff0000","aa"};\n'),
    ("picture_xbm.mp4", "#define x_width 8\n#define x_height 1\nstatic char x[] = {0xff};\n"),
    ("picture_svg.mp4", '<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32"/>'),
    ("terminal.ans", "\x1b[31mhello\x1b[0m\n" * 200),
    ("multipart.mp4", "--b\r\nContent-type: image/jpeg\r\n\r\nxx\r\n--b\r\n"),
    ("page.mp4", "<!DOCTYPE html><html><body>404 Not Found</body></html>"),
    ("answer.mp4", '{"error": "video unavailable"}'),
    ("plain.mp4", "just some text\n" * 100),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> Path:
    """A class with a sound video and the two pictures beside it that the files of the tests name."""
    (tmp_path / "class").mkdir()
    write_colors(tmp_path / "class" / "real.mp4", fade((0, 0, 250), (250, 0, 250), 8))
    for name in ("1.jpg", "2.jpg"):
        Image.new("RGB", (32, 32)).save(tmp_path / "class" / name)
    return tmp_path / "class"


@pytest.mark.parametrize(("name", "text"), POSING)
def test_text_is_no_video(folder, name, text):
    (folder / name).write_bytes(text.encode("utf-8"))
    (folder / "hls.m3u8").write_text(M3U8)
    with pytest.raises(ProbeError) as caught:
        probe(folder / name)
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize(
    "kind",
    [
        ("JPEG"),
        ("PNG"),
        ("BMP"),
    ],
)
def test_a_picture_is_no_video(folder, kind):
    Image.effect_noise((32, 32), 40).convert("RGB").save(folder / "picture.mp4", kind)
    with pytest.raises(ProbeError) as caught:
        probe(folder / "picture.mp4")
    assert caught.value.kind == "unreadable"


def test_a_list_is_in_the_report_and_the_video_beside_it_in_the_manifest(folder):
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile real.mp4\n")
    report = index_dataset(read_layout("folder", folder.parent), folder.parent, folder / "m.parquet", IndexSettings())
    assert Manifest.load(folder / "m.parquet").table.column("path").to_pylist() == ["class/real.mp4"]
    assert report.bad == {"unreadable": 1}


def test_a_list_is_not_decoded_even_where_a_manifest_holds_it(folder):
    """One of before, say: the decoder opens files as the probe does."""
    index_dataset(read_layout("folder", folder.parent), folder.parent, folder / "m.parquet", IndexSettings())
    video = Manifest.load(folder / "m.parquet").video(0)
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile real.mp4\n")
    posing = replace(
        video,
        path=folder / "list.mp4",
        file_bytes=(folder / "list.mp4").stat().st_size,
        content_hash=None,
        mtime_ns=None,
    )
    clip, cpu = ClipFormat(num_frames=2, short_side=16, crop=16), torch.device("cpu")
    decoder = PyAVDecoder(clip, cpu, 1)
    found = decoder.decode([SnippetRequest(each, 0, 0.5, 0.5, False) for each in (video, posing)])
    decoder.close()
    assert list(found.failures) == [1]
