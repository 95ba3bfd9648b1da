"""Manifest rows for tests that need no real videos."""


def row(path: str, name: str, **values: object) -> dict[str, object]:
    """One row of a manifest with plausible values; name any column to set it."""
    return {
        "path": path, "class_name": name, "split": "train", "group": "g01", "num_frames": 40, "first_frame": 0, "file_frames": 40,
        "fps": 25.0, "width": 64, "height": 48, "rotation": 0, "codec": "h264", "pixel_format": "yuv420p", "duration": 1.6,
        "segment_start": float("nan"), "segment_end": float("nan"), "file_bytes": 999, "key_frames": [0, 12], "key_pts": [0, 6144],
        "mtime_ns": None, "content_hash": None, **values,
    }  # fmt: skip
