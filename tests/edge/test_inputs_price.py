"""The price of a decode against what the process really takes."""

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.edge.errors import SupportError
from edge_adapt.edge.inputs import InputSpec
from edge_adapt.edge.inputs.images import read_header
from PIL import Image

SPEC = InputSpec(3, 84, 84, mean=(0.5,) * 3, std=(0.5,) * 3)
SIZE = (2400, 1800)
PIXELS = SIZE[0] * SIZE[1]
MIB = 2**20

# Decodes each file in turn and prints how far the resident set rose above what it was before.
MEASURE = """
import json, sys
import numpy as np
from pathlib import Path
from edge_adapt.edge.inputs import InputSpec
from edge_adapt.edge.inputs.images import decode

def resident(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

spec = InputSpec(3, 84, 84, mean=(0.5,) * 3, std=(0.5,) * 3)
out = np.zeros(spec.pixel_shape, np.uint8)
decode(Path(sys.argv[1]), spec, out)
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
decode(Path(sys.argv[2]), spec, out)
print(json.dumps(resident("VmHWM") - before))
"""


def write_pictures(folder):
    noise = np.random.default_rng(0).integers(0, 32, SIZE[::-1], np.uint8)
    values = np.stack([noise + 40 * c for c in range(3)], axis=-1).astype(np.uint8)
    colour = Image.fromarray(values)
    colour.save(folder / "baseline.jpg", quality=90)
    colour.save(folder / "progressive.jpg", quality=90, progressive=True)
    colour.save(folder / "colour.png", compress_level=1)
    colour.convert("L").save(folder / "grey.png", compress_level=1)
    colour.convert("RGBA").save(folder / "clear.png", compress_level=1)
    colour.quantize(16).save(folder / "palette.png", compress_level=1)
    colour.convert("1").save(folder / "bits.png")
    colour.quantize(16).save(folder / "palette.gif")
    colour.save(folder / "colour.bmp")
    colour.resize((8, 8)).save(folder / "tiny.jpg")


def measured_decode(first, path):
    """How far decoding a file takes the resident set of a fresh process, after that of `first`."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("no /proc/self/clear_refs on this system")
    command = [sys.executable, "-c", MEASURE, str(first), str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(path, extra, before):
    """Put chunks before or behind a PNG's pixels."""
    raw = path.read_bytes()
    at = raw.index(before) - 4
    path.write_bytes(raw[:at] + extra + raw[at:])


def texts(count):
    """So many megabytes of text, compressed a thousandfold."""
    one = zlib.compress(b"a" * (2**20 - 8))
    return b"".join(chunk(b"zTXt", b"k%d\0\0" % n + one) for n in range(count))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "bytes_per_pixel"),
    [
        ("baseline.jpg", 4 / 64),
        ("progressive.jpg", 4 / 64 + 2 * 1.5),
        ("colour.png", 4),
        ("grey.png", 1),
        ("clear.png", 4 + 4),
        ("palette.png", 1 + 4),
        ("bits.png", 1 + 1),
        ("palette.gif", 1 + 4),
        ("colour.bmp", 4),
    ],
)
def test_the_price_is_the_bytes_per_pixel_of_what_is_kept_and_bounds_the_measured_rise(
    pictures, name, bytes_per_pixel
):
    price = read_header(pictures / name, SPEC).decode_bytes
    assert 0 < price - bytes_per_pixel * PIXELS < 2 * MIB
    measured = measured_decode(pictures / "tiny.jpg", pictures / name)
    assert measured <= price
    assert measured >= 0.5 * bytes_per_pixel * PIXELS


def test_a_jpeg_with_one_scan_per_component_is_priced_in_full(tmp_path):
    """Rewrite a baseline file's scan header to announce one component, as multi-scan files do."""
    path = tmp_path / "a.jpg"
    Image.new("RGB", SIZE).save(path)
    interleaved = read_header(path, SPEC).decode_bytes
    content = path.read_bytes()
    start = content.index(b"\xff\xda")
    path.write_bytes(content[:start] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + content[start + 14 :])
    assert read_header(path, SPEC).decode_bytes - interleaved > 2.9 * PIXELS


@pytest.mark.parametrize("extra", ["texts", "a text", "an unknown chunk"])
def test_what_a_png_holds_behind_its_pixels_is_not_read(extra, pictures, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (84, 84)).save(path)
    large = b"k\0" + bytes(30 * MIB)
    kinds = {"texts": texts(60), "a text": chunk(b"tEXt", large), "an unknown chunk": chunk(b"abCd", large)}
    with_chunks(path, kinds[extra], b"IEND")
    assert measured_decode(pictures / "tiny.jpg", path) <= read_header(path, SPEC).decode_bytes < MIB


def test_what_a_png_holds_before_its_pixels_is_priced_and_much_text_is_refused(pictures, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (84, 84)).save(path)
    plain = read_header(path, SPEC).decode_bytes
    with_chunks(path, chunk(b"abCd", bytes(3 * MIB)) + texts(1), b"IDAT")
    price = read_header(path, SPEC).decode_bytes
    assert price >= plain + 8 * MIB - 100
    assert measured_decode(pictures / "tiny.jpg", path) <= price
    with_chunks(path, texts(3), b"IDAT")
    with pytest.raises(SupportError, match=r"a\.png: cannot be read \(Too much memory used in text chunks"):
        read_header(path, SPEC)
