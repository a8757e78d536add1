import dataclasses

import pytest

from la_det import model_zoo
from la_det.cli import build_parser
from la_det.engine.setup import load_config
from la_det.model_zoo import records
from la_det.model_zoo.names import project_folders
from la_det.model_zoo.records import get_records, get_tables

BACKBONES = {
    "r18": "half-width R-18",
    "r50": "R-50",
    "r101": "R-101",
    "x101_32x8d": "X-101-32x8d",
    "x101_64x4d": "X-101-64x4d",
    "swin_t": "Swin-T",
}
RECORDS = get_records()


def test_every_config_has_a_record_and_every_record_a_config():
    assert sorted(RECORDS) == sorted(model_zoo.list())


@pytest.mark.parametrize("name", RECORDS)
def test_record_is_complete(name):
    record = RECORDS[name]
    assert record.attributes["schedule"]
    parts = name.partition("_fpn_")[0]
    assert [full for short, full in BACKBONES.items() if parts.endswith(f"_{short}")] == [record.attributes["backbone"]]
    assert record.source or not record.published
    assert all(0 < value < 100 for value in (*record.published.values(), *record.measured.values()))


@pytest.mark.parametrize("name", RECORDS)
def test_attributes_say_what_the_name_says(name):
    attributes = RECORDS[name].attributes
    assert bool(attributes.get("DCNv2")) == ("dcnv2" in name)
    if "MS" in attributes:
        assert "_ms_" in name


@pytest.mark.parametrize("folder", project_folders(), ids=lambda folder: folder.name)
def test_tables_show_every_figure(folder):
    """Each project's own records, each once; a column that no record fills would be a misspelt one."""
    project = folder.name
    tables = get_tables(project)
    own = [record for table in tables.values() for record in table.records if record.name.startswith(f"{project}/")]
    assert sorted(record.name for record in own) == [name for name in sorted(RECORDS) if name.startswith(f"{project}/")]
    for table in tables.values():
        shown = set(table.columns)
        assert {column for column in shown if " " not in column} <= records.ATTRIBUTES
        for column in (c for c in shown if c.startswith("published ")):
            assert any(column.removeprefix("published ") in record.published for record in table.records)
    shown = {
        (r.name, column)
        for p in project_folders()
        for t in get_tables(p.name).values()
        for r in t.records
        for column in t.columns
    }
    for record in own:
        for metric in record.published:
            assert (record.name, f"published {metric}") in shown
        for metric in record.measured:
            assert (record.name, f"measured {metric}") in shown


def test_misspelt_key_is_named(monkeypatch):
    content = {"coco": {"columns": [], "records": {"a_r50_fpn_1x_coco": {"publisht": {"AP": 1.0}}}}}
    monkeypatch.setattr(records, "project_tables", lambda: {"A": content})
    monkeypatch.setattr(records, "get_records", records.get_records.__wrapped__)
    with pytest.raises(ValueError, match="a_r50_fpn_1x_coco: zoo.yaml has a key that no record has .*publisht"):
        records.get_records()


# All metrics that a table has a column for, of all configs in the table.
MEASURED = {
    (record.name, column.removeprefix("measured "))
    for folder in project_folders()
    for table in get_tables(folder.name).values()
    for record in table.records
    for column in table.columns
    if column.startswith("measured ")
}


class TestCommand:
    RECORD = RECORDS["POTO/poto_r18_fpn_shapes_tiny"]

    @pytest.mark.parametrize(
        ("metric", "options"),
        [
            ("AP", "--output output/POTO/poto_r18_fpn_shapes_tiny"),
            ("AP after a third", "train.eval_period=900"),
            ("AP with NMS", "model.inference.nms_threshold=0.6"),
            ("mask AP without NMS", "model.inference.nms_threshold=null"),
        ],
    )
    def test_options(self, metric, options):
        command = self.RECORD.command(metric)
        kind = "eval" if " NMS" in metric else "train"
        assert command.startswith(f"la-det {kind} POTO/poto_r18_fpn_shapes_tiny ")
        assert command.endswith(options)
        args = build_parser(kind).parse(command.split()[2:])
        assert args.config == self.RECORD.name and str(args.output).startswith("output/POTO/")

    @pytest.mark.parametrize(("name", "metric"), sorted(pair for pair in MEASURED if pair[1].endswith(" NMS")))
    def test_the_config_has_what_the_command_changes(self, name, metric):
        *_, override = RECORDS[name].command(metric).split()
        config = load_config(name, [override])
        assert config.model.inference.nms_threshold == (None if metric.endswith(" without NMS") else 0.6)

    def test_with_the_options_of_the_measurement(self):
        command = dataclasses.replace(self.RECORD, options="train.max_iter=7").command("AP")
        assert command.split()[3] == "train.max_iter=7"
        evaluation = dataclasses.replace(self.RECORD, options="train.max_iter=7").command("AP with NMS")
        assert "train.max_iter=7" in evaluation.split()

    def test_what_is_evaluated_is_what_is_trained(self):
        output = build_parser("train").parse(self.RECORD.command("AP").split()[2:]).output
        evaluation = build_parser("eval").parse(self.RECORD.command("AP with NMS").split()[2:])
        assert evaluation.weights == f"{output}/model_final.pth" and evaluation.output == output / "eval"
