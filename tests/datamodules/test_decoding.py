import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from pictures import assert_same_levels, pixels, write_image
from PIL import ExifTags, Image
from torchvision.transforms.v2 import functional as reference

from ssl_modules.datamodules.conversion import WhiteLevel
from ssl_modules.datamodules.decoding import crop, read_image, square


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp", "x.bmp", "x.tif"])
def test_every_format_gives_pillows_pixels(tmp_path, name, channels):
    path = write_image(tmp_path / name)
    expected = reference.pil_to_tensor(Image.open(path).convert("RGB" if channels == 3 else "L"))
    assert torch.equal(read_image(path, channels), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_every_mode_becomes_colour_or_gray(tmp_path, mode):
    ending = "jpg" if mode == "CMYK" else "png"
    image = Image.fromarray(pixels(0, 6, 8)).convert(mode)
    image.save(tmp_path / f"x.{ending}")
    colours = read_image(tmp_path / f"x.{ending}")
    with Image.open(tmp_path / f"x.{ending}") as stored:
        assert torch.equal(colours, reference.pil_to_tensor(stored.convert("RGB")))
    assert read_image(tmp_path / f"x.{ending}", 1).shape == (1, 6, 8)


def test_transparency_is_dropped_without_a_warning(tmp_path):
    image = Image.fromarray(pixels(0, 6, 8)).convert("P")
    image.save(tmp_path / "x.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "x.png").shape == (3, 6, 8)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path, ending, orientation):
    """Orient as PIL's ImageOps does. Height and width differ, so the four orientations that swap them show."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"x.{ending}"
    Image.fromarray(pixels(0, 48, 64)).save(path, exif=exif)
    turns = {
        1: lambda x: x,
        2: lambda x: x.flip(2),
        3: lambda x: x.flip(1, 2),
        4: lambda x: x.flip(1),
        5: lambda x: x.mT,
        6: lambda x: x.rot90(-1, (1, 2)),
        7: lambda x: x.mT.flip(1, 2),
        8: lambda x: x.rot90(1, (1, 2)),
    }
    Image.fromarray(pixels(0, 48, 64)).save(tmp_path / f"plain.{ending}")
    expected = turns[orientation](read_image(tmp_path / f"plain.{ending}"))
    assert torch.equal(read_image(path), expected)


def test_damaged_notes_are_no_damage_to_the_image(tmp_path):
    path = write_image(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    expected = reference.pil_to_tensor(Image.open(write_image(tmp_path / "plain.jpg")))
    assert torch.equal(read_image(path), expected)
    path = write_image(tmp_path / "y.jpg", exif=b"Exif\0\0no header at all")
    assert torch.equal(read_image(path), expected)


def test_of_an_animation_the_first_picture_is_taken(tmp_path):
    first, second = (Image.fromarray(pixels(seed, 8, 8)) for seed in (0, 1))
    first.save(tmp_path / "x.webp", save_all=True, append_images=[second], lossless=True)
    assert torch.equal(read_image(tmp_path / "x.webp"), reference.pil_to_tensor(first))


def png(colour_type, rows):
    """Write a PNG with 16 bits per channel by hand: Pillow reads 16-bit colour, but can't write it."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = rows.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bits_of_several_channels_lose_the_lower_8(tmp_path, colour_type, channels):
    levels = np.random.default_rng(0).integers(65536, size=(5, 6, channels), dtype=np.uint16)
    (tmp_path / "x.png").write_bytes(png(colour_type, levels))
    colours = levels[..., :3] if channels > 2 else levels[..., :1].repeat(3, axis=2)
    expected = torch.from_numpy((colours >> 8).astype(np.int64)).permute(2, 0, 1)
    assert torch.equal(read_image(tmp_path / "x.png").long(), expected)
    with pytest.raises(ValueError, match=r"white: expected None for colour images with 16 bits .* got 4095; save them"):
        read_image(tmp_path / "x.png", white=WhiteLevel(4095))


def test_dark_colour_images_of_16_bits_are_told(tmp_path):
    (tmp_path / "x.png").write_bytes(png(2, np.full((5, 6, 3), 4095, np.uint16)))
    white = WhiteLevel()
    read_image(tmp_path / "x.png", white=white)
    with pytest.warns(UserWarning, match="x: the brightest .* is 3855, far below .*; save colour images with 8 bits"):
        white.warn_if_dark("x")


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bits_become_the_nearest_of_8(tmp_path, ending):
    levels = np.array([[0, 128, 129, 257, 30000, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / f"x.{ending}")
    expected = (levels.astype(np.float64) / 65535 * 255).round()
    for channels in (1, 3):
        assert torch.equal(read_image(tmp_path / f"x.{ending}", channels).double()[0], torch.from_numpy(expected))


def test_floats_and_wide_integers_are_refused(tmp_path):
    Image.fromarray(np.full((2, 2), 0.3, np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((2, 2), 70000, np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(ValueError, match="floats"):
        read_image(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="70000"):
        read_image(tmp_path / "wide.tif")


@pytest.mark.parametrize(("at_least", "factor"), [(None, 1), (201, 1), (200, 2), (101, 2), (100, 4), (50, 8), (1, 8)])
def test_a_jpeg_is_scaled_as_it_is_decoded_and_never_below_what_is_needed(tmp_path, at_least, factor):
    write_image(tmp_path / "x.jpg", 400, 640)
    assert read_image(tmp_path / "x.jpg", at_least=at_least).shape == (3, 400 // factor, 640 // factor)


def test_a_scaled_jpeg_is_the_mean_of_its_pixels(tmp_path):
    smooth = np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None].repeat(48, 0).repeat(3, 2)
    Image.fromarray(smooth).save(tmp_path / "x.jpg", quality=100, subsampling=0)
    whole, half = read_image(tmp_path / "x.jpg"), read_image(tmp_path / "x.jpg", at_least=24)
    means = whole.double().unflatten(1, (24, 2)).unflatten(3, (32, 2)).mean((2, 4))
    assert (half - means).abs().max() <= 1


@pytest.mark.parametrize(("height", "width", "size"), [(40, 57, 20), (57, 40, 20), (33, 33, 64), (20, 31, 20)])
def test_square_is_torchvisions_centre_crop_and_resize(height, width, size):
    image = torch.from_numpy(pixels(1, height, width)).permute(2, 0, 1)
    side = min(height, width)
    expected = reference.resize(reference.center_crop(image, [side, side]), [size, size], antialias=True)
    assert_same_levels(square(image, size), expected)
    assert_same_levels(square(image[None], size)[0], expected)


def test_square_is_within_a_level_of_pillow():
    picture = Image.fromarray(pixels(2, 60, 80))
    expected = reference.pil_to_tensor(picture.crop((10, 0, 70, 60)).resize((24, 24), Image.Resampling.BILINEAR))
    ours = square(reference.pil_to_tensor(picture), 24)
    assert (ours.int() - expected.int()).abs().max() <= 1


def test_crop_takes_the_centre():
    image = torch.arange(25).view(1, 5, 5)
    assert torch.equal(crop(image, 3), reference.center_crop(image, [3, 3]))
