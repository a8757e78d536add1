"""Figures that documents repeat in sentences and in tables of their own are those of the records.

The generated tables are compared with the records by tests/tools/test_zoo_table.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from la_det import model_zoo
from la_det.comparison.summary import read_rows
from la_det.conversion.repositories import REPOSITORIES
from la_det.reproduction.verdict import NOISE, ROUNDING
from tests.docs.blocks import DOCUMENTS, FENCE, ROOT

RECORDS = model_zoo.get_records()
COMPARISON = read_rows(ROOT / "docs" / "comparison")
ROW = re.compile(r"^\| \[[^|]+ \| `(?P<config>[^`]+)` \|(?P<cells>.*)\|$", re.MULTILINE)
NUMBER = re.compile(r" (\d+\.\d) ")

GENERATED = re.compile(r"<!-- zoo: (\w+) -->.*?<!-- end -->", re.DOTALL)
TABLE = re.compile(r"^\|.*\|$", re.MULTILINE)
SENTENCE = re.compile(r"(?<=[.:;!?])\s+(?=[A-Z*`\"])")
METRIC = re.compile(r"\b(AP|mMR|JI|Recall)\b|NMS (would add|adds)")
FIGURE = re.compile(r"(?<![\w.^-])\d+(?:\.\d+)?(?![\w^])")
# Numbers in sentences about metrics that are no figures, or are figures of others for which there is no record.
OTHERS = (
    r"IoU 0\.5\b",
    r"NMS at IoU 0\.6\b",
    r"`[^`]*`",
    r"\{\w+\[[^\]]+\]\}",  # taken from the records by the report
    r"50\.7 on test-dev with multi-scale testing",
    r"the published mask AP of CondInst with R-50 is 35\.7 \(1x\) and 38\.2 \(3x with the semantic loss\)",
    r"The authors publish 45\.3 AP on test-dev for R-101 with a 2x schedule at 640 to 800 pixels",
    r"The best 13 locations",
    r"\d,\d{3} iterations",
    r"is the AP of one scheme over the AP of another one, and its 95 % interval",
    r"In brackets is its 95 % interval",
    r"Differences of 1 or 2 AP may be chance",
)


def measured(config: str, metric: str) -> float:
    return RECORDS[config].measured[metric]


def published(config: str, metric: str = "AP") -> float:
    return RECORDS[config].published[metric]


def compared(scheme: str, column: str, data: str = "shapes_tiny") -> float:
    """A cell of docs/comparison.md."""
    return next(row for row in COMPARISON[data] if row.scheme == scheme).figures()[column].mean


def noise(config: str, metric: str = "AP") -> float:
    return RECORDS[config].noise[metric]


def gain(config: str) -> float:
    """AP without NMS, more than POTO's."""
    ap = "AP without NMS"
    return measured(f"DATE/{config}_r18_fpn_shapes_tiny", ap) - measured("POTO/poto_r18_fpn_shapes_tiny", ap)


DEMO, COCO = "O2F/o2f_r18_fpn_shapes_tiny", "POTO/poto_r50_fpn_3x_ms_coco"
CONVERGENCE = (
    "POTO/poto_r18_fpn_shapes_tiny",
    *(f"DATE/{scheme}_r18_fpn_shapes_tiny" for scheme in ("date_f", "date_r", "date_atss", "date_dw")),
)
AFTER_A_THIRD = [measured(config, "AP after a third") for config in CONVERGENCE]
POTO, ATSS, O2F = COCO, "ATSS/atss_r50_fpn_1x_coco", "O2F/o2f_r50_fpn_1x_coco"
# Claim -> the config that is better, and the other one.
PAPERS = {
    "FCOS with NMS is better than POTO without": ("FCOS/fcos_r50_fpn_3x_ms_coco", POTO),
    'POTO is better than "center"': (POTO, "POTO/center_r50_fpn_3x_ms_coco"),
    'POTO is better than "anchor"': (POTO, "POTO/anchor_r50_fpn_3x_ms_coco"),
    'POTO is better than "loss"': (POTO, "POTO/loss_r50_fpn_3x_ms_coco"),
    "3DMF makes POTO better": ("POTO/poto_3dmf_r50_fpn_3x_ms_coco", POTO),
    "Aux makes POTO with 3DMF better": (
        "POTO/poto_3dmf_aux_r50_fpn_3x_ms_coco",
        "POTO/poto_3dmf_r50_fpn_3x_ms_coco",
    ),
    "ATSS is better than FCOS": ("ATSS/atss_mmdet_r50_fpn_1x_coco", "FCOS/fcos_mmdet_center_normbbox_r50_fpn_1x_coco"),
    "TOOD is better than ATSS": ("TOOD/tood_r50_fpn_1x_coco", ATSS),
    "DW is better than ATSS": ("DW/dw_r50_fpn_1x_coco", ATSS),
    "OTA is better than ATSS": ("OTA/ota_r50_fpn_1x_coco", ATSS),
    "PAA is better than ATSS": ("PAA/paa_r50_fpn_1x_coco", ATSS),
    "AutoAssign is better than ATSS": ("AutoAssign/autoassign_r50_fpn_1x_coco", ATSS),
    "DW is better than PAA": ("DW/dw_r50_fpn_1x_coco", "PAA/paa_r50_fpn_1x_coco"),
    "o2f is better than DATE-F": (O2F, "DATE/date_f_r50_fpn_12ep_coco"),
    "DDQ FCN is better than o2f": ("DDQ/ddq_fcn_r50_fpn_12ep_coco", O2F),
}
# Document -> sentences, or parts of them, with {} for each figure -> the figures.
CLAIMS: dict[str, dict[str, list[float]]] = {
    "README.md": {
        "It reached box AP {} without NMS, and NMS would add {}": [
            measured(DEMO, "AP without NMS"),
            measured(DEMO, "AP with NMS") - measured(DEMO, "AP without NMS"),
        ],
        "TOOD and PAA are ahead with NMS (AP {} and {}), and TAL's dual assignment and DDQ FCN without NMS "
        "after the model (AP {} and {})": [compared(scheme, "AP") for scheme in ("tood", "paa", "tal_dual", "ddq_fcn")],
        "converts and evaluates the files of {} repositories": [len({repository.name for repository in REPOSITORIES})],
    },
    "docs/reproduce.md": {
        "At most {} away, one unit of the last digit": [ROUNDING],
        "{} AP and {} mMR in DeFCN, {} AP in OneNet, {} AP in DDQ": [
            noise("POTO/poto_r50_fpn_30k_crowdhuman"),
            noise("POTO/poto_r50_fpn_30k_crowdhuman", "mMR"),
            noise("OneNet/onenet_fcos_r50_fpn_270k_ms_coco"),
            noise("DDQ/ddq_fcn_r50_fpn_12ep_coco"),
        ],
    },
    "docs/comparison/notes.md": {
        f"| {claim} | {{}} and {{}} |": [published(better), published(worse)]
        for claim, (better, worse) in PAPERS.items()
    }
    | {
        "POTO is published to have the same AP ({}) if": [published("POTO/poto_argmax_r50_fpn_3x_ms_coco")],
        "published with AP {} and mMR {} on CrowdHuman, FCOS with {} and {}": [
            published(f"{scheme}_r50_fpn_30k_crowdhuman", metric)
            for scheme in ("LLA/lla", "FCOS/fcos")
            for metric in ("AP", "mMR")
        ],
    },
    "docs/date_convergence/notes.md": {
        "the AP of all five are within {}": [max(AFTER_A_THIRD) - min(AFTER_A_THIRD)],
        "our combinations with ATSS and DW are {} and {} AP better": [gain("date_atss"), gain("date_dw")],
        "with FCOS is {} AP better, and the one with RetinaNet {} AP worse": [gain("date_f"), -gain("date_r")],
    },
    "docs/which_scheme.md": {
        "with NMS, TOOD (AP {}), PAA (AP {}) and DW (AP {}); without NMS, TAL's dual assignment (AP {}), "
        "DDQ FCN with its own NMS (AP {}) and o2f (AP {})": [
            compared(scheme, "AP") for scheme in ("tood", "paa", "dw", "tal_dual", "ddq_fcn", "o2f")
        ],
        "DDQ FCN had the best figures (AP {}, mMR {}). o2f had AP {} and mMR {}; LLA, with NMS, had AP {} and mMR {}": [
            compared(scheme, metric, "shapes_crowd") for scheme in ("ddq_fcn", "o2f", "lla") for metric in ("AP", "mMR")
        ],
    },
    "projects/DATE/README.md": {
        "they are better than POTO alone from the start, and {} and {} AP better at the end": [
            gain("date_atss"),
            gain("date_dw"),
        ],
        "DATE gains {} AP, and only at the end": [gain("date_f")],
        "With RetinaNet, it loses {} AP": [-gain("date_r")],
        "After a third of the schedule, all are within {} AP": [max(AFTER_A_THIRD) - min(AFTER_A_THIRD)],
    },
    "projects/DDQ/README.md": {"It says that results vary by about {}": [noise("DDQ/ddq_fcn_r50_fpn_12ep_coco")]},
    "projects/LLA/README.md": {
        "without NMS, its AP is {}": [measured("LLA/lla_r18_fpn_shapes_crowd", "AP without NMS")]
    },
    "projects/O2F/README.md": {
        "the same assignment and backbone have box AP {} and {}": [
            published("O2F/o2f_r50_fpn_1x_coco"),
            published("O2F/o2f_r50_fpn_3x_ms_coco"),
        ]
    },
    "projects/POTO/README.md": {"The authors state a noise of about {} AP": [noise(COCO)]},
}
# Documents in which every figure in a sentence has a claim. Those that tools write have only figures of records.
CHECKED = [
    *(str(file.relative_to(ROOT)) for file in DOCUMENTS if file.name == "README.md"),
    *("docs/comparison/notes.md", "docs/date_convergence/notes.md", "docs/which_scheme.md"),
]


def prose(document: str) -> str:
    """A document without its blocks and generated tables, on one line."""
    return " ".join(GENERATED.sub("", FENCE.sub("", (ROOT / document).read_text())).split())


def claimed(text: str, claim: str) -> re.Match | None:
    """The place of a claim in a text, with a group for each of its figures."""
    return re.search(re.escape(claim).replace(re.escape("{}"), r"(\d+(?:\.\d+)?)"), text)


def wrong_figures(text: str, claim: str, figures: list[float]) -> list[str]:
    """What the text says otherwise: figures are rounded as they are printed."""
    place = claimed(text, claim)
    if place is None:
        return [f"{claim}: not there"]
    decimals = [len(printed.partition(".")[2]) for printed in place.groups()]
    expected = [f"{figure:.{n}f}" for figure, n in zip(figures, decimals, strict=True)]
    return [f"{place[0]}: {expected}"] if list(place.groups()) != expected else []


def unknown_figures(document: str, text: str) -> Iterator[str]:
    """Sentences about metrics that have a figure for which there is no claim. `text` has line breaks."""
    text = TABLE.sub("", GENERATED.sub("", FENCE.sub("", text)))
    for paragraph in re.split(r"\n\s*\n", text):
        line = " ".join(paragraph.split())
        for claim in CLAIMS.get(document, {}):
            while place := claimed(line, claim):
                line = line.replace(place[0], re.sub(r"[\d.]+", "N", place[0]))
        for other in OTHERS:
            line = re.sub(other, "", line)
        yield from (s for s in SENTENCE.split(line) if METRIC.search(s) and FIGURE.search(s))


@pytest.mark.parametrize("document", CLAIMS)
def test_figures_in_sentences_are_those_of_the_records(document):
    text = prose(document)
    assert [wrong for claim, figures in CLAIMS[document].items() for wrong in wrong_figures(text, claim, figures)] == []


@pytest.mark.parametrize("document", CHECKED)
def test_every_figure_in_a_sentence_is_compared(document):
    assert list(unknown_figures(document, (ROOT / document).read_text())) == []


def test_other_figures_are_found():
    text = "DATE gains 1.6 AP, and only at the end.\nIts AP\nis 12.3 here, at IoU 0.5."
    document, claim = "projects/DATE/README.md", "DATE gains {} AP, and only at the end"
    assert wrong_figures(text, claim, [1.46]) == ["DATE gains 1.6 AP, and only at the end: ['1.5']"]
    assert wrong_figures(text, claim, [1.55000001]) == []
    assert wrong_figures("", claim, [1.5]) == [f"{claim}: not there"]
    assert list(unknown_figures(document, text)) == ["Its AP is 12.3 here, at ."]
    assert list(unknown_figures("README.md", text)) == [
        "DATE gains 1.6 AP, and only at the end.",
        "Its AP is 12.3 here, at .",
    ]
    assert list(unknown_figures(document, "| AP | 12.3 |\n\n```text\nAP 12.3\n```\n\nIt has 12 levels.")) == []


def test_figures_of_which_scheme_are_published():
    rows = list(ROW.finditer((ROOT / "docs/which_scheme.md").read_text()))
    assert len(rows) == 21
    for row in rows:
        figures = [float(number) for number in NUMBER.findall(row["cells"])]
        expected = [published(row["config"], metric) for metric in ("AP", "mMR")[: len(figures)]]
        assert (row["config"], figures) == (row["config"], expected)


def test_measured_figures_are_those_of_the_runs():
    """Of runs with the recipe's length, whose records are kept."""
    places = {"AP after a third": (0, "AP_without"), "AP after two thirds": (1, "AP_without")}
    places |= {"AP without NMS": (2, "AP_without"), "AP with NMS": (2, "AP_with")}
    compared = 0
    for file in sorted((ROOT / "docs" / "date_convergence").glob("*_seed0.json")):
        run = json.loads(file.read_text())
        for metric, figure in RECORDS[run["config"]].measured.items():
            index, name = places[metric]
            evaluation = run["evaluations"][index]
            found = evaluation.get(f"nms_gap/{name}_nms", evaluation["bbox/AP"] if name == "AP_without" else None)
            if found is not None:
                assert (run["config"], metric, figure) == (run["config"], metric, round(found, 1))
                compared += 1
    assert compared == 19


def test_measured_figures_on_crowds_are_those_of_the_comparison():
    """Its runs have the recipe's length there."""
    metrics = {"AP without NMS": "nms_gap/AP_without_nms", "AP with NMS": "nms_gap/AP_with_nms"}
    metrics |= {metric: f"crowdhuman/{metric}" for metric in ("mMR", "JI", "Recall")}
    runs = {run.config: run for row in COMPARISON["shapes_crowd"] for run in row.runs if run.seed == 0}
    measured_here = {name for name, record in RECORDS.items() if name.endswith("_shapes_crowd") and record.measured}
    assert measured_here == runs.keys()
    for config, run in runs.items():
        figures = {metric: round(run.evaluations[-1][name], 1) for metric, name in metrics.items()}
        assert (config, RECORDS[config].measured) == (config, figures)


def test_noise_of_the_verdicts_is_defcn_s():
    record = RECORDS["POTO/poto_r50_fpn_30k_crowdhuman"]
    assert NOISE == {"AP": record.noise["AP"], "mask AP": record.noise["AP"], "mMR": record.noise["mMR"]}
