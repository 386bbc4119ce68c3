"""Files and data sets convert the same image to the same pixels."""

import warnings

import numpy as np
import pytest
import torch
from pictures import pixels
from PIL import ExifTags, Image, ImageCms
from torchvision.transforms.v2.functional import pil_to_tensor, to_dtype

from ssl_modules.datamodules import ImageDataModule, ImageFiles, ImageFolderDataModule, TensorImages
from ssl_modules.datamodules.batches import BatchedImages
from ssl_modules.datamodules.conversion import WhiteLevel, to_uint8
from ssl_modules.datamodules.decoding import read_image

RGB = Image.fromarray(pixels(0, 6, 8))
LEVELS = np.array([[0, 1, 2047, 4095], [128, 129, 30000, 65535]], np.uint16)
WIDE = ["I", "I;16", "I;16B", "I;16L"]
OF_GRAY = ["1", "L", "LA", "La", "F", *WIDE]
MODES = [*OF_GRAY, "P", "P, transparent", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"]
LAB, SRGB = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")


def in_mode(mode):
    if mode in ("La", "RGBa"):
        faded = RGB.convert("RGBA")
        faded.putalpha(Image.fromarray(pixels(1, 6, 8)).convert("L").point(lambda level: max(level, 128)))
        return faded.convert("LA" if mode == "La" else "RGBA").convert(mode)
    if mode in WIDE:
        kind = {"I": "<i4", "I;16B": ">u2"}.get(mode, "<u2")
        return Image.frombytes(mode, LEVELS.shape[::-1], LEVELS.astype(kind).tobytes())
    if mode == "LAB":
        return ImageCms.profileToProfile(RGB, SRGB, LAB, outputMode="LAB")
    if mode == "F":
        return Image.fromarray(np.asarray(RGB.convert("L"), np.float32) / 255)
    image = RGB.convert(mode.partition(",")[0])
    if mode == "P, transparent":
        image.info["transparency"] = bytes(range(256))
    return image


def expected(image, channels):
    """Convert with a plain call of Pillow."""
    if image.mode.startswith("I"):
        gray = torch.from_numpy((LEVELS / 65535 * 255).round().astype(np.uint8))[None]
        return gray.repeat(channels, 1, 1)
    if image.mode == "F":
        return pil_to_tensor(RGB.convert("L")).repeat(channels, 1, 1)
    if image.mode == "LAB":
        image = ImageCms.profileToProfile(image, LAB, SRGB, outputMode="RGB")
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    image = image.copy()
    image.info.pop("transparency", None)
    return pil_to_tensor(image.convert({1: "L", 3: "RGB"}[channels]))


IN_TIFF = [mode for mode in MODES if mode not in ("La", "RGBa", "HSV", "P, transparent", "RGBX")]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_a_data_set_of_any_mode_becomes_gray_or_colour(mode, channels):
    image = in_mode(mode)
    right = expected(image, channels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(to_uint8(image, channels), right)
        ((batch, _),) = [BatchedImages([(image, 0)], tuple(right.shape), ()).__getitems__([0])]
    assert torch.equal(batch[0], right)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", IN_TIFF)
def test_files_and_data_sets_give_the_same_pixels(tmp_path, mode, channels):
    image = in_mode(mode)
    image.save(tmp_path / "x.tif")
    with Image.open(tmp_path / "x.tif") as stored:
        right = to_uint8(stored, channels)
    assert torch.equal(read_image(tmp_path / "x.tif", channels), right)
    assert torch.equal(right, to_uint8(image, channels))


@pytest.mark.parametrize("mode", MODES)
def test_without_channels_an_image_stays_gray_or_coloured(mode):
    image = in_mode(mode)
    assert torch.equal(to_uint8(image), expected(image, 1 if mode in OF_GRAY else 3))


@pytest.mark.parametrize("mode", ["RGBA", "CMYK", "LA"])
def test_another_number_of_channels_keeps_the_bands(mode):
    image = in_mode(mode)
    assert torch.equal(to_uint8(image, len(image.getbands())), pil_to_tensor(image))


def test_tensors_become_gray_and_coloured_as_pillow_does():
    colour, gray = pil_to_tensor(RGB), pil_to_tensor(RGB.convert("L"))
    assert torch.equal(to_uint8(colour, 1), gray)
    assert torch.equal(to_uint8(gray, 3), gray.repeat(3, 1, 1))
    assert to_uint8(torch.zeros(13, 2, 2, dtype=torch.uint8), 13).shape == (13, 2, 2)


def test_images_of_a_data_set_are_turned_upright():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = RGB.copy()
    image.info["exif"] = exif.tobytes()
    assert torch.equal(to_uint8(image), pil_to_tensor(RGB).rot90(-1, (1, 2)))
    assert image.size == RGB.size  # the data set's image is not changed


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_level_survives(mode, dtype):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(levels if mode == "L" else np.stack([levels, levels[::-1], levels.T], axis=-1))
    reference = pil_to_tensor(image)
    assert torch.equal(to_uint8(image), reference)
    assert torch.equal(to_uint8(to_dtype(reference, dtype, scale=True)), reference)


LINE = torch.linspace(0, 1, 6).view(1, 2, 3)
INTEGERS = torch.tensor([[[0, 2048, 4095]]])


@pytest.mark.parametrize(
    ("image", "error", "message", "mended"),
    [
        (LINE * 0.3, ValueError, "k / 255, got .* from 0 to 0.3.*image \\* 255", lambda x: (x * 255).round().byte()),
        (LINE * 255, ValueError, "from 0 to 255; .* give image.round", lambda x: x.round().to(torch.uint8)),
        (LINE * 2 - 1, ValueError, "-1 to 1 give", lambda x: ((x + 1) * 127.5).round().to(torch.uint8)),
        (LINE * 4095, ValueError, "0 to 4095 give", lambda x: (x * (255 / 4095)).round().to(torch.uint8)),
        (LINE * torch.nan, ValueError, "k / 255, .* replace NaN", lambda x: x.nan_to_num()),
        (LINE * 5 - 2, ValueError, "from -2 to 3; leave normalisation to the module, or give uint8", None),
        (LINE > 0.5, TypeError, "got torch.bool; .* for bool image.float()", lambda x: x.float()),
        ([[0, 255]], TypeError, "got list; give items .* keys image and label", None),
    ],
)
def test_inexact_images_are_refused_and_the_advice_works(image, error, message, mended):
    with pytest.raises(error, match=message):
        to_uint8(image)
    if mended is not None:
        assert to_uint8(mended(image)).dtype == torch.uint8


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_integers_need_a_white_level(dtype):
    with pytest.raises(TypeError, match=f"got {dtype}; for integers give white=, .* such as 255 or 4095"):
        to_uint8(INTEGERS.to(dtype))
    assert to_uint8(INTEGERS.to(dtype), white=WhiteLevel(4095)).tolist() == [[[0, 128, 255]]]
    assert to_uint8(INTEGERS.to(dtype).clamp(max=255), white=WhiteLevel(255)).tolist() == [[[0, 255, 255]]]


def test_uint16_has_65536_levels():
    levels = torch.from_numpy(LEVELS)[None]
    assert torch.equal(to_uint8(levels), expected(in_mode("I;16"), 1))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_white_keeps_all_256_levels(bits):
    white = 2**bits - 1
    levels = torch.arange(white + 1)
    made = WhiteLevel(white).to_bytes(levels)
    assert torch.equal(made.double(), (levels.double() * 255 / white + 0.5).floor())
    assert len(made.unique()) == 256


@pytest.mark.parametrize(
    ("level", "values", "message"), [(None, [0, 70000], "0 to 70000; give white="), (9, [-5], "-5 to -5; subtract")]
)
def test_levels_out_of_range_are_refused(level, values, message):
    with pytest.raises(ValueError, match=f"expected pixels of 8 or 16 bits, got values from {message}"):
        WhiteLevel(level).to_bytes(torch.tensor(values))
    assert WhiteLevel(70000).to_bytes(torch.tensor([0, 70000, 80000])).tolist() == [0, 255, 255]


@pytest.mark.parametrize("white", [0, -1, float("nan"), "4095"])
def test_a_white_level_is_positive(white):
    with pytest.raises((ValueError, TypeError), match="white: expected"):
        WhiteLevel(white)


def folder_of(tmp_path, most, bits=16):
    """Write two classes of 16-bit gray images with values up to ``most``."""
    for index in range(4):
        place = tmp_path / "ab"[index % 2]
        place.mkdir(exist_ok=True)
        levels = np.linspace(0, most, 16 * 16, dtype=np.uint16 if bits == 16 else np.uint8).reshape(16, 16)
        Image.fromarray(levels).save(place / f"{index}.png")
    return tmp_path


def messages(loaders):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batches = [batch for loader in loaders for batch in loader]
    return [str(warning.message) for warning in caught if "white" in str(warning.message)], batches


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("most", "advised"), [(800, 1023), (1023, 1023), (4000, 4095), (16383, 16383), (200, 255)])
def test_dark_files_are_told_once_and_the_advice_works(tmp_path, most, advised, workers):
    options = {"image_size": 16, "decode_size": 16, "batch_size": 2, "num_workers": workers, "val_size": 2}
    data = ImageFolderDataModule(folder_of(tmp_path, most), **options)
    data.setup()
    loader = data.train_dataloader()
    (message,), _ = messages([loader, loader, data.val_dataloader()])
    assert f"brightest level of the images with 16 bits read so far is {most}, far below white (65535)" in message
    assert f"give white={advised}" in message
    data = ImageFolderDataModule(tmp_path, white=advised, **options)
    data.setup()
    told, ((images, _),) = messages([data.train_dataloader()])
    assert not told
    assert images.max() == round(most * 255 / advised)
    held = ImageFolderDataModule(tmp_path, white=advised, in_memory=True, image_size=16, num_workers=0)
    held.setup()
    assert torch.equal(held.labelled_set.images[0], images[0])


@pytest.mark.parametrize(("most", "bits"), [(16384, 16), (65535, 16), (255, 8), (0, 16)])
def test_bright_files_are_not_told(tmp_path, most, bits):
    data = ImageFolderDataModule(folder_of(tmp_path, most, bits), image_size=16, batch_size=2, num_workers=0)
    data.setup()
    assert messages([data.train_dataloader()])[0] == []


def test_files_in_memory_are_told(tmp_path):
    data = ImageFolderDataModule(folder_of(tmp_path, 4095), image_size=16, num_workers=0, in_memory=True)
    with pytest.warns(UserWarning, match="give white=4095"):
        data.setup()


@pytest.mark.parametrize("form", ["pil", "uint16", "int16"])
def test_a_data_set_of_12_bits_takes_white_too(form):
    levels = np.linspace(0, 4095, 64, dtype=np.uint16).reshape(8, 8)
    image = Image.fromarray(levels) if form == "pil" else torch.from_numpy(levels.astype(form))[None]
    facts = {"num_classes": 2, "mean": (0.5,), "std": (0.5,), "batch_size": 2}
    if form != "int16":  # the range of int16 pixels is not known
        data = ImageDataModule([(image, 0), (image, 1)], **facts)
        data.setup()
        (message,), _ = messages([data.train_dataloader(), data.train_dataloader()])
        assert "give white=4095" in message
    data = ImageDataModule([(image, 0), (image, 1)], white=4095, **facts)
    data.setup()
    told, ((images, _),) = messages([data.train_dataloader()])
    assert not told
    assert images[0].double().equal(torch.from_numpy(levels / 4095 * 255).round()[None])


def test_the_first_image_decides_the_channels():
    facts = {"num_classes": 1, "batch_size": 1}
    palette = ImageDataModule([(RGB.convert("P"), 0)], mean=(0.5,) * 3, std=(0.5,) * 3, **facts)
    assert palette.dims == (3, 6, 8)
    gray = ImageDataModule([(RGB, 0)], dims=(1, 6, 8), mean=(0.5,), std=(0.5,), **facts)
    gray.setup()
    ((images, _),) = gray.train_dataloader()
    assert torch.equal(images[0], pil_to_tensor(RGB.convert("L")))


def test_channels_last_is_refused_and_the_advice_works():
    image = torch.from_numpy(pixels(0, 6, 8))
    facts = {"num_classes": 1, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    with pytest.raises(
        ValueError, match=r"train: .* \[6, 8, 3\], which looks like \[H, W, C\]; give .*\(image\).permute\("
    ):
        ImageDataModule([(image, 0)], **facts)
    with pytest.raises(
        ValueError, match=r"image 0: .* got \[6, 8, 3\]; give images \[C, H, W\], .*\(image\).permute\("
    ):
        BatchedImages([(image, 0)], (3, 6, 8), ())[0]
    assert ImageDataModule([(image.permute(2, 0, 1), 0)], **facts).dims == (3, 6, 8)
    with pytest.raises(
        ValueError,
        match=r"give torch.as_tensor\(images\).permute\(0, 3, 1, 2\), or if they have 6 channels, dims=\(6, 8, 3",
    ):
        ImageDataModule(TensorImages(image[None], torch.tensor([0])), **facts)
    ImageDataModule(TensorImages(image[None].permute(0, 3, 1, 2), torch.tensor([0])), **facts)
    of_six = {"num_classes": 1, "mean": (0.5,) * 6, "std": (0.5,) * 6}
    assert ImageDataModule([(image, 0)], dims=(6, 8, 3), **of_six).dims == (6, 8, 3)


def test_files_take_white(tmp_path):
    Image.fromarray(LEVELS[:1]).save(tmp_path / "x.png")
    part = ImageFiles(tmp_path, ["x.png", "x.png"], image_size=1, decode_size=1, white=4095)
    assert part.select(torch.tensor([1])).white == 4095
    assert read_image(tmp_path / "x.png", 1, white=part.levels).tolist() == [[[0, 0, 127, 255]]]
