"""Folders of images: classes by name, pixels exact, decoded once, and nothing from outside the folder."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from lth.data import folders
from lth.data.classes import by_number, by_text, recorded
from lth.data.folders import read_images
from lth.errors import UsageError

Image = pytest.importorskip("PIL.Image", reason="Pillow is not here: pip install lth[images]")


def picture(mode: str = "L", size: tuple[int, int] = (6, 5), seed: int = 0):
    shape = (size[1], size[0], 3)
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8))
    return image.convert(mode)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes, three images each to train and two to test, grey PNG of 6 x 5."""
    root = tmp_path / "pets"
    for part, count in (("train", 3), ("test", 2)):
        for name in ("cat", "ant"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                picture(seed=len(part) * 100 + len(name) * 10 + number).save(folder / f"{number}.png")
    return root


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def read(root: Path, cache: Path):
    said: list[str] = []
    return read_images(root, cache, said.append), said


def test_images_are_read_in_order(root, cache):
    data, _ = read(root, cache)
    assert (data.name, data.classes, data.train_x.shape, data.test_x.shape) == ("pets", 2, (6, 1, 5, 6), (4, 1, 5, 6))
    assert (data.train_x.dtype, data.train_y.dtype) == (np.uint8, np.int64)
    assert data.train_y.tolist() == [0, 0, 0, 1, 1, 1]
    for index, path in enumerate(sorted((root / "train/ant").iterdir()) + sorted((root / "train/cat").iterdir())):
        np.testing.assert_array_equal(data.train_x[index, 0], np.asarray(Image.open(path)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_one_image_in_colour_makes_all_of_them_rgb(root, cache, mode):
    path = root / "test/cat/1.png"
    picture(mode, seed=7).save(path)
    data, _ = read(root, cache)
    assert data.train_x.shape == (6, 3, 5, 6)
    np.testing.assert_array_equal(data.test_x[-1], np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1))
    np.testing.assert_array_equal(data.train_x[0, 0], data.train_x[0, 2])


@pytest.mark.parametrize("mode", ["1", "LA"])
def test_kinds_of_grey_stay_grey(root, cache, mode):
    picture(mode).save(root / "test/cat/1.png")
    assert read(root, cache)[0].test_x.shape == (4, 1, 5, 6)


def test_jpeg_and_capitals_are_read_and_the_rest_passed_over(root, cache):
    picture("RGB").save(root / "train/ant/9.JPG")
    picture("RGB").save(root / "train/ant/8.jpeg")
    (root / "train/ant/notes.txt").write_text("x")
    (root / "train/ant/.DS_Store").write_text("x")
    (root / "train/.git").mkdir()
    data, said = read(root, cache)
    assert data.train_y.tolist() == [0] * 5 + [1] * 3
    assert said[0] == f"{root}: 1 entries are ignored because they are not .png, .jpg or .jpeg files"


# The cache


def test_images_are_decoded_once(root, cache, monkeypatch):
    first, said = read(root, cache)
    assert said == [f"{root}: decoding 10 images, once"]
    monkeypatch.setattr(folders, "_decode_all", lambda _: pytest.fail("decoded again"))
    second, said = read(root, cache)
    assert said == []
    np.testing.assert_array_equal(first.train_x, second.train_x)


def test_change_in_the_folder_is_noticed_and_the_old_cache_removed(root, cache):
    before, _ = read(root, cache)
    path = root / "train/ant/0.png"
    times = path.stat()
    picture(seed=99).save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    after, said = read(root, cache)
    assert said == [f"{root}: decoding 10 images, once"]
    assert not np.array_equal(before.train_x[0], after.train_x[0])
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("spoil", [lambda content: content[:-40], lambda content: content.replace(b"NUMPY", b"DUMMY")])
def test_damaged_cache_is_named_and_replaced(root, cache, spoil):
    before, _ = read(root, cache)
    (kept,) = cache.iterdir()
    kept.write_bytes(spoil(kept.read_bytes()))
    after, said = read(root, cache)
    assert str(kept) in said[0]
    assert said[0].endswith("the images are decoded again")
    np.testing.assert_array_equal(before.train_x, after.train_x)
    assert read(root, cache)[1] == []


def test_cache_that_cannot_be_written_costs_time_only(root, tmp_path):
    (tmp_path / "file").write_text("x")
    data, said = read(root, tmp_path / "file")
    assert len(data.train_x) == 6
    assert "cannot be kept" in said[1]


# What is refused


def refused(root: Path, cache: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read(root, cache)
    assert "\n" not in str(caught.value)
    assert not cache.exists()
    return str(caught.value)


def test_missing_parts(root, cache):
    (root / "test").rename(root / "val")
    assert f"{root} has no folder test/; expected {root}/train/CLASS/*.png" in refused(root, cache)


def test_classes_that_differ(root, cache):
    (root / "test/cat").rename(root / "test/dog")
    assert "the classes in train/ and test/ differ: cat, dog" in refused(root, cache)


def test_one_class_is_none(root, cache):
    for part in ("train", "test"):
        (root / part / "cat").rename(root / f"{part}-cat")
    assert "has 1 subfolders, expected at least two" in refused(root, cache)


def test_class_without_images(root, cache):
    for path in (root / "test/cat").iterdir():
        path.rename(path.with_suffix(".bmp"))
    assert "holds no .png, .jpg or .jpeg file" in refused(root, cache)


def test_sizes_that_differ(root, cache):
    picture(size=(7, 5)).save(root / "test/cat/1.png")
    message = refused(root, cache)
    assert f"{root}/test/cat/1.png is 7 x 5 pixels, {root}/train/ant/0.png 6 x 5" in message


@pytest.mark.parametrize("spoil", [lambda png: b"", lambda png: b"GIF89a", lambda png: png[:-30], lambda png: png[:60]])
def test_file_that_is_no_image(root, cache, spoil):
    path = root / "test/cat/1.png"
    path.write_bytes(spoil(path.read_bytes()))
    assert f"{path} is not a complete PNG or JPEG image" in refused(root, cache)


def test_other_format_under_the_name_of_png(root, cache):
    picture().save(root / "test/cat/1.png", format="BMP")
    assert "is not a complete PNG or JPEG image" in refused(root, cache)


def deep_png(path: Path, values: np.ndarray) -> None:
    """A PNG of 16 bits a channel: grey [h, w], or colours [h, w, 3]."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    path.write_bytes(png_of(width, height, rows, depth=16, kind=0 if values.ndim == 2 else 2))


def test_sixteen_bits_keep_their_upper_byte_in_grey_and_in_colour(root, cache):
    values = np.random.default_rng(0).integers(0, 2**16, (5, 6, 3))
    deep_png(root / "test/cat/0.png", values[..., 0])
    grey, said = read(root, cache)
    np.testing.assert_array_equal(grey.test_x[2, 0], values[..., 0] >> 8)
    assert said[1] == f"{root}: 1 images have 16 bits per channel: only the upper 8 are used; values below 256 become 0"
    deep_png(root / "test/cat/1.png", values)
    colour, said = read(root, cache)
    np.testing.assert_array_equal(colour.test_x[3], (values >> 8).transpose(2, 0, 1))
    np.testing.assert_array_equal(colour.test_x[2], np.repeat(values[None, ..., 0] >> 8, 3, axis=0))
    assert said[1].startswith(f"{root}: 2 images have 16 bits")


def test_twelve_bits_in_files_of_sixteen_are_refused(root, cache):
    for path in root.rglob("*.png"):
        deep_png(path, np.arange(30).reshape(5, 6) * 100)
    assert "use only the lower 12, so 16 levels would remain; save their values as float32" in refused(root, cache)


# Photographs


def photograph(path: Path, size: tuple[int, int], **options) -> None:
    """Its upper half is black, its lower half white."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[size[1] // 2 :] = 255
    Image.fromarray(pixels).save(path, **options)


def test_photographs_of_different_sizes_are_scaled_and_cropped(root, cache):
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        photograph(path, (40 + 7 * number, 64 - 3 * number))
    said: list[str] = []
    data = read_images(root, cache, said.append, size=(8, 12))
    assert data.train_x.shape == (6, 3, 8, 12) and data.train_x.dtype == np.uint8
    assert (data.train_x[:, :, :3] < 30).all() and (data.train_x[:, :, 5:] > 225).all()
    other = read_images(root, cache, said.append, size=(12, 8))
    assert other.train_x.shape == (6, 3, 12, 8) and len(said) == 2  # another size is another entry of the cache
    assert "or data.size=64 to scale and crop" in refused_without_cache(root, cache)


def refused_without_cache(root: Path, cache: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read(root, cache)
    return str(caught.value)


def test_a_photograph_is_turned_as_its_camera_was_held(root, cache):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    photograph(root / "train/ant/0.jpg", (64, 64), exif=exif)
    photograph(root / "train/ant/1.jpg", (64, 64))
    data = read_images(root, cache, lambda line: None, size=(8, 8))
    assert data.train_x[0, :, 0].min() > 225 and data.train_x[0, :, -1].max() < 30
    assert data.train_x[2, :, 0].max() < 30 and data.train_x[2, :, -1].min() > 225


# The order of classes


def test_classes_that_are_numbers_come_in_numeric_order(root, cache):
    for part in ("train", "test"):
        (root / part / "ant").rename(root / part / "10")
        (root / part / "cat").rename(root / part / "9")
    data, _ = read(root, cache)
    assert data.class_names == ("9", "10") and data.train_y.tolist() == [0, 0, 0, 1, 1, 1]
    before = read_images(root, cache, lambda line: None, order=by_text)
    assert before.class_names == ("10", "9")
    np.testing.assert_array_equal(before.train_x[:3], data.train_x[3:])
    given = read_images(root, cache, lambda line: None, order=recorded(["10", "9"]))
    np.testing.assert_array_equal(given.train_x, before.train_x)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "9", "-1", "2.5"], ("-1", "2.5", "9", "10")),
        (["1", "01", "2"], ("01", "1", "2")),
        (["b", "10", "9"], ("10", "9", "b")),
        (["1e3", "5"], ("1e3", "5")),
        (["\u0663", "1"], ("1", "\u0663")),
    ],
)
def test_order_by_number(names, expected):
    assert by_number(names) == expected


def test_a_record_of_other_classes_is_refused(root):
    for record, said in (
        (["ant", "dog"], "names 'dog', and no class is called so"),
        (["cat"], "lacks ant: name every"),
    ):
        with pytest.raises(UsageError, match=said):
            recorded(record)(["ant", "cat"])


def test_names_that_are_no_text_are_written_out(root, cache):
    for part in ("train", "test"):
        (root / part / "cat").rename(root / part / os.fsdecode(b"\xffcat"))
    assert read(root, cache)[0].class_names == ("\\xffcat", "ant")


# Bombs


def png_of(width: int, height: int, rows: bytes = b"", depth: int = 8, kind: int = 0) -> bytes:
    """A small PNG that declares any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 12_000, 40_000])
def test_decompression_bombs(root, cache, side):
    (root / "train/ant/0.png").write_bytes(png_of(side, side))
    assert f"at most {folders.MOST_PIXELS:,} are decoded" in refused(root, cache).replace(
        f"more than the {folders.MOST_PIXELS:,} pixels that", f"at most {folders.MOST_PIXELS:,}"
    )


@pytest.mark.parametrize("size", [(), (8, 8)])
def test_small_files_of_large_images_are_refused_before_one_is_decoded(root, cache, size, monkeypatch):
    monkeypatch.setattr(folders, "_decode", lambda *_: pytest.fail("decoded"))
    for path in root.rglob("*.png"):
        Image.new("1", (8000, 8000)).save(path)
    stored = sum(path.stat().st_size for path in root.rglob("*.png"))
    with pytest.raises(UsageError) as caught:
        read_images(root, cache, lambda line: None, size)
    most = 64 * 2**20 + 200 * stored
    assert f"{stored:,} bytes and decode to 640,000,000, more than the {most:,} that are decoded" in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(root))


def test_more_images_than_memory_is_meant_for(root, cache, monkeypatch):
    monkeypatch.setattr(folders, "most_bytes", lambda: 100)
    assert "decode to 300 bytes, at most 100 are read" in refused(root, cache)


@pytest.mark.parametrize("place", ["train/ant/9.png", "train/owl", "train"])
def test_links_that_lead_outside(root, cache, tmp_path, place):
    outside = tmp_path / "outside"
    if place == "train":
        (root / "train").rename(outside)
    elif place == "train/owl":
        outside.mkdir()
        (root / "test/owl").mkdir()
        picture().save(outside / "0.png")
    else:
        picture().save(outside, format="PNG")
    (root / place).symlink_to(outside)
    assert f"is a link that leads outside of {root}" in refused(root, cache)


def test_links_that_stay_inside_are_followed(root, cache, tmp_path):
    (root / "train/ant/9.png").symlink_to("../cat/0.png")
    (tmp_path / "alias").symlink_to(root)
    data, _ = read(tmp_path / "alias", cache)
    assert len(data.train_x) == 7
    assert data.name == "pets"


def test_things_that_are_no_files_are_passed_over(root, cache):
    os.mkfifo(root / "train/ant/9.png")
    (root / "train/ant/8.png").mkdir()
    data, said = read(root, cache)
    assert len(data.train_x) == 6
    assert "2 entries" in said[0]


def test_without_pillow_the_error_says_what_to_type(root, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert "pip install lth[images]" in refused(root, cache)
