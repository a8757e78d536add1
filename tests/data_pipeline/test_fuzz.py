"""Mutated files: each is read with every loss counted, or refused in one line that names it."""

import copy
import json
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from la_det.data.build import Options
from la_det.data.coco import read_coco
from la_det.data.images import read_header, read_image
from la_det.data.odgt import read_odgt_records
from la_det.data.table import Records
from la_det.data.voc import read_voc
from la_det.data.yolo import read_yolo
from la_det.errors import UserError

FILES_PER_FORM = 250
IMAGES = 200
SECONDS = 20  # after which a file hangs
SIZE = 64
ODD = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1.5,
        10**30,
        10**400,
        float("nan"),
        float("inf"),
        -1e308,
        "",
        "12",
        "a\0b",
        "\ud800",
        "é",
    ),
    *([], {}, [1], [[]], {"a": 1}, "../../x.png", "/etc/passwd", "x" * 10_000, 2**53 + 1, -(2**63), [1, 2, 3, 4]),
]


@contextmanager
def time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def outcome(read: Callable[[], Records], name: str, written: int | None) -> str:
    """What became of a file: refused, read with counted losses, or read.

    Args:
        name: a part of the path that a refusal has to name.
        written: number of annotations in the file; None where its damage may have hidden some.
    """
    with time_limit():
        try:
            records = read()
        except UserError as error:
            assert name in str(error) and "\n" not in str(error), error
            return "refused"
        for record in records:  # all of them can be made
            assert record["height"] > 0
        records.counts()
    dropped = sum(problem.dropped for problem in records.problems.found)
    if written is not None:
        assert int(records.counts().sum()) + dropped == written, "lost without a word"
    return "read, losses counted" if dropped else "read, remarks" if records.problems.found else "read"


def mutate(node: object, rng: random.Random) -> object:
    """A copy with one to three values replaced, removed, doubled or moved."""
    node = copy.deepcopy(node)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(node))
        if not places:
            break
        parent, key = rng.choice(places)
        match rng.randrange(5):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            case 2:
                other, other_key = rng.choice(places)
                parent[key] = copy.deepcopy(other[other_key])
            case _:
                parent[key] = copy.deepcopy(rng.choice(ODD))
    return node


def _places(node: object) -> Iterator[tuple[object, object]]:
    keys = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in list(keys):
        yield node, key
        yield from _places(node[key])


def damage_text(data: bytes, rng: random.Random) -> bytes:
    """Cut, doubled, or with some bytes replaced."""
    data = bytearray(data)
    match rng.randrange(4):
        case 0:
            return bytes(data[: rng.randrange(len(data))])
        case 1:
            start = rng.randrange(len(data))
            return bytes(data[:start] + data[start : start + 50] + data[start:])
        case _:
            for _ in range(rng.choice([1, 3, 30])):
                data[rng.randrange(len(data))] = rng.randrange(256)
            return bytes(data)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "images"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (SIZE, SIZE), (i, i, i)).save(folder / f"{i}.png")
    return folder


def coco() -> dict:
    annotations = [
        {
            "id": i,
            "image_id": i % 3,
            "category_id": i % 2,
            "bbox": [i, 2 * i, 10 + i, 20],
            "area": 100.5,
            "iscrowd": int(i == 4),
            "segmentation": [[1, 2, 30, 4, 5, 6]] if i % 2 else {"size": [SIZE, SIZE], "counts": [5, 10, SIZE**2 - 15]},
        }
        for i in range(6)
    ]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": SIZE, "height": SIZE} for i in range(3)],
        "annotations": annotations,
        "categories": [{"id": 0, "name": "nut"}, {"id": 1, "name": "bolt"}],
    }


def fuzz_coco(images: Path, rng: random.Random) -> str:
    path = images.parent / "fuzzed.json"
    if rng.random() < 0.2:
        path.write_bytes(damage_text(json.dumps(coco()).encode(), rng))
        written = None
    else:
        data = mutate(coco(), rng)
        path.write_text(json.dumps(data))
        annotations = data.get("annotations") if isinstance(data, dict) else None
        written = len(annotations) if isinstance(annotations, list) else 0
    return outcome(lambda: read_coco(str(path), str(images)), "fuzzed.json", written)


def fuzz_odgt(images: Path, rng: random.Random) -> str:
    box = {
        "tag": "person",
        "fbox": [5, 6, 20, 30],
        "vbox": [5, 6, 10, 10],
        "hbox": [5, 6, 3, 3],
        "extra": {"ignore": 0},
    }
    lines = [{"ID": str(i), "gtboxes": [box | {"fbox": [j, j, 20, 30]} for j in range(2)]} for i in range(3)]
    path = images.parent / "fuzzed.odgt"
    written = None
    if rng.random() < 0.2:
        path.write_bytes(damage_text("\n".join(map(json.dumps, lines)).encode(), rng))
    else:
        i = rng.randrange(3)
        lines[i] = mutate(lines[i], rng)
        path.write_text("\n".join(map(json.dumps, lines)))
        if all(isinstance(line, dict) and isinstance(line.get("gtboxes"), list) for line in lines):
            written = sum(len(line["gtboxes"]) for line in lines)
    (images.parent / "fuzzed.odgt.sizes.json").unlink(missing_ok=True)
    return outcome(lambda: read_odgt_records(path, images), "fuzzed.odgt", written)


def fuzz_yolo(images: Path, rng: random.Random) -> str:
    labels = images.parent / "labels"
    labels.mkdir(exist_ok=True)
    # Without the folder of the test, whose name would decide where the damage is.
    files = {images.parent / "data.yaml": "train: images\nnames: [nut, bolt]\nnc: 2\n"}
    for i in range(3):
        files[labels / f"{i}.txt"] = f"0 0.5 0.5 0.2 0.{i + 2}\n1 0.1 0.1 0.5 0.2 0.3 0.4\n"
    for path, text in files.items():
        path.write_text(text)
    path = rng.choice(list(files))
    written = None
    if path.suffix == ".txt" and rng.random() < 0.7:
        lines = [line.split() for line in files[path].splitlines()]
        line = rng.choice(lines)
        line[rng.randrange(len(line))] = str(rng.choice(ODD)).replace("\ud800", "?").replace("\n", " ")
        path.write_text("\n".join(" ".join(line) for line in lines))
        written = 6
    else:
        path.write_bytes(damage_text(files[path].encode(), rng))
    return outcome(
        lambda: read_yolo(str(images.parent / "data.yaml"), Options(split="train")), str(images.parent), written
    )


def fuzz_voc(images: Path, rng: random.Random) -> str:
    folder = images.parent / "voc"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for i in range(3):
        (folder / f"{i}.png").write_bytes((images / f"{i}.png").read_bytes())
        corners = f"<xmin>{i + 1}</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax>"
        an_object = f"<object><name>nut</name><bndbox>{corners}</bndbox></object>"
        size = f"<size><width>{SIZE}</width><height>{SIZE}</height></size>"
        (folder / f"{i}.xml").write_text(f"<annotation>{size}{an_object * 2}</annotation>")
    path = folder / f"{rng.randrange(3)}.xml"
    text = path.read_text()
    if rng.random() < 0.7:
        value = str(rng.choice(ODD)).replace("\ud800", "?").replace("\0", " ").replace("<", "")
        for old in rng.sample(["<xmin>", "<ymax>", "<name>nut", "<width>64", "</bndbox>", "<object>", "<xmax>30"], 1):
            text = text.replace(old, old.rstrip("nut6430") + value if rng.random() < 0.7 else "", 1)
        path.write_text(text)
    else:
        path.write_bytes(damage_text(text.encode(), rng))
    try:
        written = sum(len(list(ElementTree.parse(file).iter("object"))) for file in folder.glob("*.xml"))
    except (ElementTree.ParseError, ValueError, LookupError):
        written = None
    return outcome(lambda: read_voc(str(folder)), str(folder), written)


@pytest.mark.slow
@pytest.mark.parametrize("fuzz", [fuzz_coco, fuzz_odgt, fuzz_yolo, fuzz_voc], ids=["coco", "odgt", "yolo", "voc"])
def test_mutated_annotations(images, fuzz):
    outcomes = Counter(fuzz(images, random.Random(seed)) for seed in range(FILES_PER_FORM))
    print(f"\n{fuzz.__name__}: {dict(outcomes.most_common())}")
    assert outcomes["refused"] > FILES_PER_FORM / 10 and outcomes.total() - outcomes["refused"] > FILES_PER_FORM / 10


@pytest.mark.slow
def test_mutated_images(images):
    rng, noise = random.Random(0), np.random.default_rng(0)
    outcomes: Counter[str] = Counter()
    path = images.parent / "fuzzed.img"
    for i in range(IMAGES):
        mode = rng.choice(["RGB", "L", "P", "RGBA", "I;16", "CMYK"])
        kind = rng.choice(
            {"CMYK": ["JPEG", "TIFF"], "I;16": ["PNG", "TIFF"]}.get(mode, ["PNG", "TIFF", "GIF", "WEBP", "BMP"])
        )
        pixels = noise.integers(0, 256, (40, 50, 4), dtype=np.uint8)
        if mode == "I;16":
            image = Image.fromarray(noise.integers(0, 65536, (40, 50), dtype=np.uint16))
        else:
            image = Image.fromarray(pixels).convert("RGB" if mode == "CMYK" else mode).convert(mode)
        buffer = BytesIO()
        image.save(buffer, kind)
        path.write_bytes(damage_text(buffer.getvalue(), rng) if i % 10 else buffer.getvalue())
        with time_limit():
            try:
                found = read_image(path, rng.choice(["BGR", "RGB", "L"]))
                assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[:2] == read_header(path).size
                outcomes["read"] += 1
            except UserError as error:
                assert "fuzzed.img" in str(error) and "\n" not in str(error)
                outcomes["refused"] += 1
    print(f"\nimages: {dict(outcomes)}")
    assert outcomes["refused"] > IMAGES / 10 and outcomes["read"] > IMAGES / 10
