"""Image files as cameras and people save them: what is read, how, and what is refused."""

import io
import logging
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image

from depthlm_ros.images import ImageError, decode_image, read_image


def read(path, limit=1.0):
    return read_image(path, max_megapixels=limit)


def noise(shape, dtype=np.uint8):
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def test_rgb_is_read_as_it_is(tmp_path):
    image = noise((20, 30, 3))
    Image.fromarray(image).save(tmp_path / "a.png")
    got = read(tmp_path / "a.png")
    assert (got.shape, got.dtype) == ((20, 30, 3), np.uint8)
    assert (got == image).all()
    assert (decode_image((tmp_path / "a.png").read_bytes(), max_megapixels=1.0) == image).all()


def test_transparency_is_dropped_not_blended(tmp_path):
    image = noise((20, 30, 4))
    Image.fromarray(image).save(tmp_path / "a.png")
    assert (read(tmp_path / "a.png") == image[..., :3]).all()


def test_grey_becomes_three_equal_channels(tmp_path):
    image = noise((20, 30))
    Image.fromarray(image).save(tmp_path / "a.png")
    assert (read(tmp_path / "a.png") == image[..., None]).all()


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    image = np.array([[0, 128, 129, 257, 32768, 65534, 65535]], np.uint16)
    Image.fromarray(image).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255, 255]


def test_the_exif_orientation_is_not_applied_and_that_is_said(tmp_path, caplog):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise((20, 30, 3))).save(tmp_path / "a.jpg", exif=exif)
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path / "a.jpg").shape == (20, 30, 3)
    assert "orientation 6 is not applied" in caplog.text


def test_the_exif_orientation_of_a_stream_is_not_logged_with_every_frame(caplog):
    exif, data = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(noise((20, 30, 3))).save(data, "JPEG", exif=exif)
    with caplog.at_level(logging.INFO):
        assert decode_image(data.getvalue(), max_megapixels=1.0).shape == (20, 30, 3)
    assert not caplog.records


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "MPO", "BMP", "TIFF", "WEBP", "PPM"])
def test_files_of_cameras_and_people_are_read(tmp_path, kind):
    image = np.full((20, 30, 3), 90, np.uint8)
    more = {"save_all": True, "append_images": [Image.fromarray(image)]} if kind == "MPO" else {}
    Image.fromarray(image).save(tmp_path / "a", kind, **more)
    assert abs(read(tmp_path / "a").astype(int) - image).max() < 4


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP", "PPM", "GIF", "EPS", "TGA"])
def test_a_message_holds_a_jpeg_or_a_png_and_no_decoder_is_started_for_else(monkeypatch, kind):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started a program"))
    data = io.BytesIO()
    Image.fromarray(noise((20, 30, 3))).save(data, kind)
    with pytest.raises(ImageError, match=r"expected an image as JPEG or PNG"):
        decode_image(data.getvalue(), max_megapixels=1.0)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "TGA"])
def test_a_file_of_another_format_is_refused_with_those_that_are_read(monkeypatch, tmp_path, kind):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started a program"))
    Image.fromarray(noise((20, 30, 3))).save(tmp_path / "a", kind)
    with pytest.raises(ImageError, match=r"expected an image as PNG, .* or PPM"):
        read(tmp_path / "a")


def bomb(path, width, height):
    """A PNG that claims a size and holds nothing of it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("side", [1100, 9000, 60000])
def test_too_large_is_refused_before_decoding(tmp_path, side):
    with pytest.raises(ImageError, match=r"Mpx|exceeds limit"):
        read(bomb(tmp_path / "a.png", side, side))


def test_what_is_no_whole_single_image_is_refused(tmp_path):
    Image.fromarray(noise((200, 300, 3))).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:9000])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    for name in ("moving.gif", "moving.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    Image.fromarray(noise((9, 9)).astype(np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.full((9, 9), 70000, np.int32)).save(tmp_path / "wide.tiff")
    for name, says in (
        ("cut.jpg", "truncated"),
        ("text.png", "expected an image as PNG"),
        ("empty.png", "expected an image as PNG"),
        ("moving.gif", "expected an image as PNG"),
        ("moving.png", "2 frames"),
        ("float.tiff", "floating-point"),
        ("wide.tiff", "16-bit"),
        ("absent.png", "there is no such file"),
    ):
        with pytest.raises(ImageError, match=says) as caught:
            read(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(ImageError, match="expected an image"):
        read(tmp_path)


def test_every_cut_of_a_png_is_read_whole_or_refused(tmp_path):
    image = noise((12, 10, 3))
    Image.fromarray(image).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    for end in range(0, len(data), 7):
        try:
            got = decode_image(data[:end], max_megapixels=1.0)
        except ImageError:
            continue
        assert (got == image).all()
