"""Image files of every kind: the right RGB, or an error that names the file and the reason."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from unigendet.data import image_files
from unigendet.data.image_files import ImageError, decode_image, read_image, to_rgb

WHITE = [255, 255, 255]
NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
"""A picture that compresses badly, so that a half of its file lacks a half of its pixels."""


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def frames(kind: str) -> bytes:
    turned = [Image.fromarray(NOISE[::-1]), Image.fromarray(NOISE[:, ::-1])]
    return encoded(Image.fromarray(NOISE), kind, save_all=True, append_images=turned)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    size: tuple[int, int], bits: int, colour: int, row: bytes, transparent: bytes = b""
) -> bytes:
    """A PNG of one row, byte by byte; colour 0 is grey, 2 RGB, 4 grey with alpha, 6 RGBA."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0))
    marked = chunk(b"tRNS", transparent) if transparent else b""
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + header + marked + pixels + chunk(b"IEND", b"")


def words(*values: int) -> bytes:
    """Big-endian 16 bits each."""
    return struct.pack(f">{len(values)}H", *values)


def pixels(data: bytes) -> list[list[int]]:
    """The RGB triples of a decoded file, row by row."""
    image = decode_image(data, "x")
    assert image.mode == "RGB"
    triples: list[list[int]] = np.asarray(image).reshape(-1, 3).tolist()
    return triples


def grey(*values: int) -> list[list[int]]:
    return [[value] * 3 for value in values]


def on_white(colour: tuple[int, ...], alpha: int) -> list[float]:
    return [(value * alpha + 255 * (255 - alpha)) / 255 for value in colour]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("alpha", [0, 1, 128, 254, 255])
def test_alpha_is_composited_on_white(kind: str, alpha: int) -> None:
    rgba = Image.new("RGBA", (4, 4), (10, 130, 250, alpha))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    found = pixels(encoded(rgba, kind, **options))
    np.testing.assert_allclose(found, [on_white((10, 130, 250), alpha)] * 16, atol=1)
    if kind != "WEBP":  # which has no greys
        found = pixels(encoded(Image.new("LA", (4, 4), (10, alpha)), kind))
        np.testing.assert_allclose(found, [on_white((10,) * 3, alpha)] * 16, atol=1)


def test_a_palette_may_be_transparent() -> None:
    palette = Image.new("P", (3, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    palette.putdata([0, 1, 2])
    opaque = [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    assert pixels(encoded(palette, "PNG")) == opaque
    for kind in ("PNG", "GIF"):
        assert pixels(encoded(palette, kind, transparency=1)) == [opaque[0], WHITE, opaque[2]]
    found = pixels(encoded(palette, "PNG", transparency=bytes([255, 0, 100])))
    expected = [opaque[0], WHITE, on_white((70, 80, 90), 100)]
    np.testing.assert_allclose(found, expected, atol=1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png((4, 1), 8, 0, bytes([0, 10, 20, 30]), words(10)), grey(0, 255, 20, 30)),
        (png((4, 1), 4, 0, bytes([0x07, 0x3F]), words(3)), grey(0, 119, 255, 255)),
        (png((4, 1), 2, 0, bytes([0b00011011]), words(1)), grey(0, 255, 170, 255)),
        (png((8, 1), 1, 0, bytes([0b10100000]), words(0)), grey(*[255] * 8)),
        (png((8, 1), 1, 0, bytes([0b10100000])), grey(255, 0, 255, 0, 0, 0, 0, 0)),
        (png((4, 1), 2, 0, bytes([0b00011011])), grey(0, 85, 170, 255)),
        (png((2, 1), 8, 2, bytes([1, 2, 3, 4, 5, 6]), words(4, 5, 6)), [[1, 2, 3], WHITE]),
    ],
    ids=["grey", "4 bits", "2 bits", "1 bit", "1 bit opaque", "2 bits opaque", "rgb"],
)
def test_a_colour_may_be_transparent(data: bytes, expected: list[list[int]]) -> None:
    assert pixels(data) == expected


LEVELS = (0, 257, 0x1234, 0x12FF, 65535)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png((5, 1), 16, 0, words(*LEVELS)), grey(0, 1, 18, 18, 255)),
        (png((5, 1), 16, 0, words(*LEVELS), words(0x1234)), grey(0, 1, 255, 18, 255)),
        (png((2, 1), 16, 4, words(0x1234, 65535, 9, 0)), grey(18, 255)),
        (png((2, 1), 16, 2, words(0, 257, 0xFFFF, 0x1234, 5, 6)), [[0, 1, 255], [18, 0, 0]]),
        (png((2, 1), 16, 6, words(257, 257, 0x1234, 65535, 9, 9, 9, 0)), [[1, 1, 18], WHITE]),
        (b"P5 5 1 65535\n" + words(*LEVELS), grey(0, 1, 18, 18, 255)),
        (b"P6 1 1 65535\n" + words(0x1200, 0x8000, 65535), [[18, 128, 255]]),
    ],
    ids=["grey", "grey transparent", "grey alpha", "rgb", "rgba", "pgm", "ppm"],
)
def test_sixteen_bits_keep_their_contrast(data: bytes, expected: list[list[int]]) -> None:
    np.testing.assert_allclose(pixels(data), expected, atol=1 if data[:2] == b"P6" else 0)


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_sixteen_bit_tiffs_of_either_byte_order(mode: str) -> None:
    order = ">u2" if mode == "I;16B" else "<u2"
    levels = np.array(LEVELS, dtype=order).tobytes()
    data = encoded(Image.frombytes(mode, (5, 1), levels), "TIFF")
    assert data[:2] == (b"MM" if mode == "I;16B" else b"II")
    assert pixels(data) == grey(0, 1, 18, 18, 255)


def test_cmyk_is_converted() -> None:
    cmyk = Image.new("CMYK", (16, 16), (200, 100, 0, 50))
    ink = [55 * 205 / 255, 155 * 205 / 255, 205]  # light that the ink, then the black, lets through
    np.testing.assert_allclose(pixels(encoded(cmyk, "TIFF")), [ink] * 256, atol=1)
    adobe = encoded(cmyk, "JPEG", quality=100)
    np.testing.assert_allclose(pixels(adobe), [ink] * 256, atol=2)
    start = adobe.index(b"\xff\xee")  # Adobe's marker says that the values are inverted
    plain = adobe[:start] + adobe[start + 2 + struct.unpack_from(">H", adobe, start + 2)[0] :]
    assert pixels(plain) == pixels(adobe)  # as browsers, too, take files that do not say so


def test_other_colour_spaces_are_converted() -> None:
    colour = (200, 100, 50)
    flat = Image.new("RGB", (16, 16), colour)
    for mode in ("YCbCr", "LAB"):
        data = encoded(flat.convert(mode), "TIFF")
        np.testing.assert_allclose(pixels(data), [colour] * 256, atol=3)
    assert pixels(encoded(flat.convert("1"), "TIFF", compression="group4")).count(WHITE) > 50
    premultiplied = Image.new("RGBA", (1, 1), (100, 50, 0, 51)).convert("RGBa")
    expected = [on_white((100, 50, 0), 51)]
    np.testing.assert_allclose(np.asarray(to_rgb(premultiplied))[0], expected, atol=2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(Image.new("F", (2, 2), 0.5), "TIFF"), "32-bit floats"),
        (encoded(Image.new("I", (2, 2), 70000), "TIFF"), "32-bit integers"),
        (b"Pf\n1 1\n-1.0\n" + struct.pack("<f", 0.5), "32-bit floats"),
        (png((1, 1), 16, 2, words(1, 2, 3), words(1, 2, 3)), "transparent colour"),
        (b"", "the file is empty"),
        (b"not an image", "not an image"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + b"\0" * 64, r"not an image, or of a kind .*AVIF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "kind that is not read"),
        (png((0, 5), 8, 2, b""), "x: "),
        (b"P6 0 4 255\n", "x: "),
    ],
    ids=["float", "integer", "pfm", "colour16", "empty", "text", "heic", "eps", "zero", "zero ppm"],
)
def test_what_cannot_be_used_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode_image(data, "x")
    assert str(caught.value).startswith("x: ")


def test_a_grey_tiff_of_other_black_and_white_is_refused() -> None:
    for tag, value in ((262, 0), (258, 12)):
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[tag] = value
        levels = Image.fromarray(np.array([LEVELS], dtype=np.uint16))
        data = bytearray(encoded(levels, "TIFF"))
        place = data.index(struct.pack("<HHI", tag, 3, 1))
        struct.pack_into("<H", data, place + 8, value)
        with pytest.raises(ImageError, match="12 bits, or one whose 0 is white"):
            decode_image(bytes(data), "x")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_several_frames_are_refused_by_number(kind: str) -> None:
    with pytest.raises(ImageError, match=r"x: it holds 3 frames or pages; save the one"):
        decode_image(frames(kind), "x")
    assert decode_image(encoded(Image.fromarray(NOISE), kind), "x").size == (60, 40)


def test_a_camera_file_with_previews_is_its_photograph() -> None:
    first = encoded(Image.fromarray(NOISE), "JPEG")
    assert pixels(frames("MPO")) == pixels(first)


def turned(orientation: int) -> NDArray[np.uint8]:
    """How EXIF says that NOISE has to be shown: flips of the axes, then rows for columns."""
    image = NOISE
    if orientation in (2, 3, 7, 8):
        image = image[:, ::-1]
    if orientation in (3, 4, 6, 7):
        image = image[::-1]
    return image.swapaxes(0, 1) if orientation >= 5 else image


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_camera_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(NOISE), kind, exif=exif, **options)
    np.testing.assert_array_equal(decode_image(data, "x"), turned(orientation))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"MM\0*",
        b"XXXXXXXXXX",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff\x12\x01\x02\x00\xff\xff\xff\xff\0\0\0\0",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",  # orientation 99
    ],
)
def test_broken_metadata_do_not_hide_the_picture(kind: str, exif: bytes) -> None:
    image = Image.fromarray(NOISE)
    found = decode_image(encoded(image, kind, exif=b"Exif\0\0" + exif), "x")
    np.testing.assert_array_equal(found, decode_image(encoded(image, kind), "x"))


def with_size(kind: str, width: int, height: int) -> bytes:
    """A small file whose header claims another size."""
    data = bytearray(encoded(Image.new("RGB", (8, 8)), kind))
    if kind == "PNG":
        return png((width, height), 8, 2, b"\0" * 24)
    if kind == "JPEG":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    elif kind == "GIF":
        struct.pack_into("<HH", data, 6, width, height)
    else:
        struct.pack_into("<ii", data, 18, width, height)
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
@pytest.mark.parametrize("side", [11_000, 50_000])
def test_a_header_that_claims_too_much_is_refused_at_once(kind: str, side: int) -> None:
    with pytest.raises(ImageError, match=r"x: .*100,000,000 (pixels )?that are read; shrink"):
        decode_image(with_size(kind, side, side), "x")


def test_the_limit_itself_may_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(NOISE), "PNG")
    monkeypatch.setattr(image_files, "MAX_FILE_PIXELS", 60 * 40)
    assert decode_image(data, "x").size == (60, 40)
    monkeypatch.setattr(image_files, "MAX_FILE_PIXELS", 60 * 40 - 1)
    with pytest.raises(ImageError, match="x: 60 x 40 pixels are more than the 2,399"):
        decode_image(data, "x")


@pytest.mark.parametrize("kind", image_files.KINDS)
def test_a_part_of_a_file_is_refused_or_whole(kind: str) -> None:
    whole = encoded(Image.fromarray(NOISE), kind)
    expected = np.asarray(decode_image(whole, "x"))
    cuts = np.linspace(0, len(whole) - 1, 60).astype(int)
    for cut in cuts:
        try:
            found = decode_image(whole[:cut], "x")
        except ImageError as error:
            assert str(error).startswith("x: ")
        else:
            assert cut > 0.9 * len(whole)
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("build", [frames, lambda kind: encoded(Image.fromarray(NOISE), kind)])
@pytest.mark.parametrize("kind", ["GIF", "TIFF", "AVIF", "PNG", "WEBP"])
def test_changed_bytes_never_escape_as_another_error(
    kind: str, build: Callable[[str], bytes]
) -> None:
    whole = build(kind)
    generator = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(whole)
        end = len(whole) if generator.random() < 0.5 else 200  # headers often
        for place in generator.integers(0, end, 3):
            damaged[place] = int(generator.choice([0, 127, 128, 255]))
        with contextlib.suppress(ImageError):
            decode_image(bytes(damaged), "x")


def test_files_are_known_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.fromarray(NOISE), "PNG"))
    np.testing.assert_array_equal(read_image(path), NOISE)


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"absent\.png: there is no such file"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path / ("long" * 100))
