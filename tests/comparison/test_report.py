import csv
import re
import shlex
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import stats

from la_det.comparison.report import Quotes, commands, write_report
from la_det.comparison.results import RunRecord, read_record, write_record
from la_det.comparison.schemes import SCHEMES
from la_det.comparison.summary import read_rows
from la_det.errors import UserError


def add_some(results):
    gap = {"nms_gap/AP_without_nms": 20.0, "nms_gap/AP_with_nms": 26.0, "nms_gap/duplicates": 1.234}
    gap |= {"nms_gap/duplicates_apart": 1.2, "nms_gap/duplicates_crowded": 0.034}
    results.add_run("fcos", [10.0, 20.0, 25.0], **gap)
    for seed, ap in enumerate((30.0, 32.0)):
        results.add_run("poto", [ap - 20, ap - 10, ap], seed=seed, **gap)
    results.add_run("lla", [30.0, 40.0], data="shapes_crowd", **{"crowdhuman/mMR": 50.0})
    results.add_cost("poto", [120.0, 130.0], [3.0, 2.0])


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_tables(results):
    add_some(results)
    results.folder.joinpath("notes.md").write_text("## What it says\n\nLittle.\n")
    document = write_report(results.folder)
    assert document == results.folder.parent / "results.md"
    text = document.read_text()
    order = [text.index(part) for part in ("# Comparison", "Little.", "## shapes_tiny", "## shapes_crowd")]
    assert order == sorted(order)
    lines = text.splitlines()
    starts = ("| scheme", "| [fcos]", "| [poto]")
    header, fcos, poto = (cells(next(line for line in lines if line.startswith(start))) for start in starts)
    poto, fcos = dict(zip(header, poto, strict=True)), dict(zip(header, fcos, strict=True))
    assert poto["scheme"] == "[poto](../projects/POTO/README.md)"
    assert (poto["AP"], poto["AP at 1/3"], poto["AP without NMS"]) == ("31.0 ± 1.4", "11.0 ± 1.4", "20.0 ± 0.0")
    assert (poto["s/iter"], poto["matching %"], poto["peak MiB"], poto["M params"]) == ("0.125", "2.0", "100", "2.50")
    assert (fcos["AP"], fcos["AP at 2/3"], fcos["duplicates"], fcos["s/iter"]) == ("25.0", "20.0", "1.23", "")
    assert "mMR" not in header and "AR" not in header
    assert "30 iterations; cpu (2 threads), torch 2.9." in lines
    assert "Detectron2's own models" not in text

    with results.folder.joinpath("shapes_tiny.csv").open() as file:
        fcos, poto = csv.DictReader(file)
    assert (poto["scheme"], poto["seeds"], poto["AP"], poto["AP spread"]) == ("poto", "2", "31", "1.41421")
    assert (fcos["s/iter"], fcos["AP"], fcos["AP spread"]) == ("", "25", "0")

    drawn = {path.name for path in results.folder.glob("*.png")}
    tiny = {f"shapes_tiny_{name}.png" for name in ("nms", "time", "duplicates", "cost")}
    assert drawn == tiny | {f"shapes_crowd_{name}.png" for name in ("time", "miss_rate")}
    for name in drawn:
        assert f"(results/{name})" in text
        assert cv2.imread(str(results.folder / name)).std() > 10


def test_notes_take_their_figures_from_the_records(results):
    for seed in range(3):
        results.add_run("fcos", [20.0 + seed % 2], seed=seed)
        results.add_run("poto", [30.0], seed=seed)
    notes = results.folder.joinpath("notes.md")
    notes.write_text(
        "POTO: {shapes_tiny[poto AP]}, {shapes_tiny[poto / fcos]} times. {shapes_tiny[poto > fcos]}, "
        "{shapes_tiny[fcos > poto]}. {shapes_tiny[highest AP]}, {shapes_tiny[lowest AP]}"
    )
    text = write_report(results.folder).read_text()
    assert "\nPOTO: 30.0 ± 0.0, 1.48 (1.38 to 1.58) times. yes, no. poto (30.0 ± 0.0), fcos (20.3 ± 0.6)\n" in text
    results.add_run("lla", [20.5])
    notes.write_text("{shapes_tiny[fcos > lla]}.")
    assert "\ncannot be told.\n" in write_report(results.folder).read_text()


@pytest.mark.parametrize(
    "wrong",
    [
        *("{shapes_tiny[dw AP]}", "{shapes_tiny[poto mMR]}", "{shapes_tiny[highest mMR]}"),
        *("{shapes_tiny[poto / dw]}", "{shapes_tiny[poto > dw]}", "{shapes_crowd[poto AP]}", "{nothing[poto AP]}"),
    ],
)
def test_what_is_not_in_the_records_cannot_be_quoted(results, wrong):
    add_some(results)
    results.folder.joinpath("notes.md").write_text(f"Some text, {wrong}, and more.")
    with pytest.raises(UserError, match=f"notes.md: {re.escape(wrong)} is not in the records$"):
        write_report(results.folder)


@pytest.mark.parametrize("wrong", ["{", "}", "{0}", "{shapes_tiny}", "{shapes_tiny.figures}", "{shapes_tiny[poto]"])
def test_other_braces_are_refused(results, wrong):
    add_some(results)
    results.folder.joinpath("notes.md").write_text(f"Some text {wrong}")
    with pytest.raises(UserError, match=f"notes.md: {re.escape(wrong)} is not of the form"):
        write_report(results.folder)


def test_a_ratio_without_noise_cannot_be_quoted(results):
    results.add_run("fcos", [20.0])
    results.add_run("poto", [30.0])
    results.folder.joinpath("notes.md").write_text("{shapes_tiny[poto / fcos]}")
    with pytest.raises(UserError, match="poto / fcos"):
        write_report(results.folder)


def test_the_same_files_each_time(results):
    results.add_run("fcos", [10.0, 25.0])
    results.add_cost("detectron2_fcos", [120.0], [0.0])
    files = []
    for _ in range(2):
        document = write_report(results.folder)
        files.append([path.read_bytes() for path in (document, *sorted(results.folder.iterdir()))])
    assert files[0] == files[1]
    assert "Detectron2's own models" in document.read_text()


def test_commands_that_made_it(results):
    for scheme in SCHEMES:
        results.add_run(scheme, [1.0])
    results.add_cost("poto", [1.0, 1.0], [0.0, 0.0])
    assert commands("shapes_tiny", read_rows(results.folder)["shapes_tiny"]) == [
        "la-det compare cost --data shapes_tiny --rounds 2 --steps 20 --schemes poto",
        "la-det compare run --data shapes_tiny --max-iter 30 --seeds 0",
        "la-det compare report",
    ]
    results.add_run("atss", [1.0], seed=1)
    _, first, second, _ = commands("shapes_tiny", read_rows(results.folder)["shapes_tiny"])
    assert first.endswith(f"--seeds 0 --schemes {' '.join(s for s in SCHEMES if s != 'atss')}")
    assert second == "la-det compare run --data shapes_tiny --max-iter 30 --seeds 0 1 --schemes atss"


def test_a_budget_of_seconds(results):
    """Each scheme has its own number of iterations, from its cost, which comes first."""
    overrides = ["optimizer.lr=0.1", "dataloader.train.dataset.names=[a, b]"]
    for scheme, max_iter in (("fcos", 900), ("poto", 1201)):
        path = results.add_run(scheme, [1.0], max_iter=max_iter)
        record = read_record(path, RunRecord)
        write_record(path, replace(record, budget={"seconds": 60}, overrides=overrides))
        results.add_cost(scheme, [1.0], [0.0])
    assert "900 to 1201 iterations; " in write_report(results.folder).read_text()
    cost, run, _ = commands("shapes_tiny", read_rows(results.folder)["shapes_tiny"])
    assert cost.startswith("la-det compare cost --data shapes_tiny --rounds 1 ")
    assert run.startswith("la-det compare run --data shapes_tiny --seconds 60 ")
    assert shlex.split(run)[-2:] == overrides


def test_commands_name_another_folder_than_the_default(results, monkeypatch):
    results.add_run("fcos", [10.0, 25.0])
    assert f"la-det compare report --results {results.folder}\n" in write_report(results.folder).read_text()
    monkeypatch.chdir(results.folder.parent)
    default = Path("docs/comparison")
    default.parent.mkdir()
    Path("other").mkdir()
    text = write_report(results.folder.rename(default)).read_text()
    assert "la-det compare report\n" in text and "Made by `la-det compare report` from" in text
    assert write_report(default.resolve()).read_text() == text, "the same folder"
    assert "--results other/kept\n" in write_report(default.rename(Path("other").resolve() / "kept")).read_text()


def test_a_title_and_no_words_on_costs_that_are_not_there(results):
    results.add_run("fcos", [10.0, 25.0])
    results.folder.joinpath("notes.md").write_text("# Longer trainings\n\nThey take longer.\n")
    text = write_report(results.folder).read_text()
    assert text.startswith("# Longer trainings\n\nSchemes under one budget") and "They take longer." in text
    assert "# Comparison" not in text and "matching %" not in text
    results.add_cost("fcos", [1.0], [0.0])
    assert '"matching %" is' in write_report(results.folder).read_text()


def test_intervals_of_two_schemes_alone_and_of_what_nms_adds(results):
    aps = {"fcos": (20.0, 22.0, 21.0), "poto": (30.0, 31.0, 32.0), "dw": (40.0, 40.0, 41.0)}
    for scheme, values in aps.items():
        for seed, ap in enumerate(values):
            gap = {"nms_gap/AP_without_nms": ap - 2 - seed, "nms_gap/AP_with_nms": ap}
            results.add_run(scheme, [ap], seed=seed, **gap)
    results.add_run("lla", [40.0], **{"nms_gap/AP_without_nms": 40.02, "nms_gap/AP_with_nms": 40.0})
    quotes = Quotes(read_rows(results.folder)["shapes_tiny"])
    alone = stats.ttest_rel(*(np.log(aps[scheme]) for scheme in ("poto", "fcos"))).confidence_interval(0.95)
    low, high = np.exp((alone.low, alone.high))
    assert quotes["poto / fcos alone"] == f"{np.exp((alone.low + alone.high) / 2):.2f} ({low:.2f} to {high:.2f})"
    assert quotes["poto / fcos alone"] != quotes["poto / fcos"]
    reach = stats.t.ppf(0.975, 2) / 3**0.5
    assert quotes["poto NMS gain"] == f"3.0 ({3 - reach:.1f} to {3 + reach:.1f})"
    assert quotes["lla NMS gain"] == "0.0"
    assert quotes["spread of dw"] == f"{100 * np.log(aps['dw']).std(ddof=1):.1f}"
    assert quotes["chance of spreads"] == f"{stats.bartlett(*map(np.log, aps.values())).pvalue:.2f}"
    for key in ("poto / lla alone", "poto / fcos both", "spread of lla", "atss NMS gain"):
        with pytest.raises(KeyError):
            quotes[key]
