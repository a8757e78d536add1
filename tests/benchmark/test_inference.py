"""What the benchmark of inference measures; not how fast it is."""

import pytest
import torch

from la_det.benchmark import inference
from la_det.cli import bench, build_parser
from la_det.data.shapes import SHAPES
from la_det.errors import UserError

FCOS, POTO = "FCOS/fcos_r18_fpn_shapes_tiny", "POTO/poto_r18_fpn_shapes_tiny"


@pytest.fixture(scope="module")
def inputs() -> list[dict]:
    return inference.images(SHAPES["shapes"], 2, (96, 128))


@pytest.mark.parametrize("name", [FCOS, POTO])
def test_random_weights_give_as_many_candidates_as_wanted(inputs, name):
    model = inference.load(name, None, inputs, candidates=150)
    images = model.preprocess_image(inputs)
    with torch.no_grad():
        predictions = model.predict(images.tensor)["main"]
        candidates = model.inference.candidates(predictions, torch.tensor(images.image_sizes))
    assert candidates.counts.sum() == pytest.approx(300, abs=5)


def test_all_cases_and_columns(inputs, tmp_path):
    models = {name: inference.load(name, None, inputs, 150) for name in (FCOS, POTO)}
    figures = inference.measure(
        inference.cases(models, ["eager"], [1, 2], (96, 128), tmp_path), inputs, repeats=2, warmup=0
    )
    assert {(case.model, case.nms, case.batch_size) for case in figures} == {
        (model, nms, batch) for model in (FCOS, POTO) for nms in (None, 0.6) for batch in (1, 2)
    }
    for row in figures.values():
        assert row["total"] > 0 and len(row["totals"]) == 2
        assert row["detections"] > 0
    for case, row in figures.items():
        if (case.model, case.nms) == (FCOS, 0.6):
            assert row["ratio"] == 1.0


def test_ratio_is_of_the_same_round():
    """The second round was slow for both."""
    assert inference.paired_ratio({"totals": [2.0, 20.0, 3.0]}, {"totals": [4.0, 40.0, 6.0]}) == 0.5


def test_command(capsys, tmp_path):
    argv = [
        POTO,
        "--candidates",
        "100",
        "--runtimes",
        "eager",
        "--image-size",
        "64",
        "64",
        "--batch-sizes",
        "1",
        "--repeats",
        "1",
    ]
    threads = torch.get_num_threads()
    bench.run(build_parser("bench").parse(["inference", *argv, "--json", str(tmp_path / "figures.json")]))
    torch.set_num_threads(threads)
    header, _, plain, with_nms = capsys.readouterr().out.splitlines()
    assert "postprocess ms" in header and "total ms" in header
    assert " none " in plain and " 0.6 " in with_nms
    assert (tmp_path / "figures.json").exists()


@pytest.mark.parametrize("pair", ["POTO/other=weights.pth", POTO])
def test_weights_of_no_config_that_is_measured(pair):
    with pytest.raises(UserError, match=f"--weights {pair}: it has the form CONFIG=FILE, with one of {POTO}"):
        bench.run(build_parser("bench").parse(["inference", POTO, "--weights", pair]))
