import json

import pytest

from la_det.comparison.cost import CostRecord
from la_det.comparison.results import Run, RunRecord, check_folder, read_evaluations, read_record
from la_det.errors import UserError


def run_of(max_iter=30, overrides=(), config="POTO/poto_r18_fpn_shapes_tiny") -> Run:
    return Run(config, 0, {"max_iter": max_iter}, max_iter, list(overrides))


def test_records_that_fit(results):
    check_folder(results.folder, [run_of()])
    results.add_run("poto", [1.0])
    results.add_run("fcos", [1.0], seed=3)
    results.add_run("fcos", [1.0], data="shapes_crowd", max_iter=60)
    results.add_cost("poto", [10.0], [1.0])
    check_folder(results.folder, [run_of()])
    check_folder(results.folder, [])


@pytest.mark.parametrize(("other", "key"), [(run_of(max_iter=40), "budget"), (run_of(overrides=["a=1"]), "overrides")])
@pytest.mark.parametrize(("scheme", "seed"), [("poto", 0), ("poto", 1), ("fcos", 0)])
def test_a_record_of_another_budget_is_an_error(results, other, key, scheme, seed):
    """Also that of another scheme or seed: a report would refuse the folder."""
    path = results.add_run(scheme, [1.0], seed=seed)
    with pytest.raises(UserError, match=f"{path}: a run with {key} .* choose another --results or delete it"):
        check_folder(results.folder, [other])


def test_damaged_and_foreign_records_are_errors(results):
    run, cost = results.add_run("poto", [1.0]), results.add_cost("poto", [10.0], [1.0])
    assert read_record(run, RunRecord).evaluations == [{"iteration": 30, "bbox/AP": 1.0}]
    with pytest.raises(UserError, match=f"{cost}: not a RunRecord .* delete it"):
        read_record(cost, RunRecord)
    with pytest.raises(UserError, match=f"{run}: not a CostRecord"):
        read_record(run, CostRecord)
    text = run.read_text()
    run.write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match=f"{run}: not a RunRecord"):
        check_folder(results.folder, [run_of()])
    for damage in (
        {"evaluations": []},
        {"evaluations": [{"bbox/AP": 1.0}]},
        {"evaluations": 3},
        {"config": "elsewhere"},
    ):
        run.write_text(json.dumps(json.loads(text) | damage))
        with pytest.raises(UserError, match=str(run)):
            read_record(run, RunRecord)
    text = cost.read_text()
    for damage in ({"rounds": []}, {"rounds": [1]}, {"rounds": 3}, {"rounds": [{"step": 1.0}]}, {"data": "elsewhere"}):
        cost.write_text(json.dumps(json.loads(text) | damage))
        with pytest.raises(UserError, match=str(cost)):
            read_record(cost, CostRecord)
    for damage in ("[1]", "3", "null"):
        run.write_text(damage)
        with pytest.raises(UserError, match=str(run)):
            read_record(run, RunRecord)


class TestEvaluations:
    """Lines are as Detectron2 0.6 writes them."""

    def read(self, tmp_path, *lines, max_iter=4):
        path = tmp_path / "metrics.json"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return read_evaluations(path, max_iter)

    def test_every_evaluation_by_the_iterations_done(self, tmp_path):
        found = self.read(
            tmp_path,
            {"iteration": 1, "bbox/AP": 1.0, "bbox/APl": float("nan"), "diagnostics/conflicts": 3, "total_loss": 2.0},
            {"iteration": 2, "diagnostics/conflicts": 3, "total_loss": 2.0},
            {"iteration": 3, "diagnostics/conflicts": 3, "total_loss": 1.0},
            {"iteration": 4, "bbox/AP": 2.123456, "bbox/APl": 5.0},
        )
        assert found == [
            {"iteration": 2, "bbox/AP": 1.0, "bbox/APl": None},
            {"iteration": 4, "bbox/AP": 2.1235, "bbox/APl": 5.0},
        ]

    def test_none_at_the_end(self, tmp_path):
        with pytest.raises(UserError, match="metrics.json: it has no evaluation after 4 iterations"):
            self.read(tmp_path, {"iteration": 1, "bbox/AP": 1.0}, {"iteration": 3, "total_loss": 1.0})

    @pytest.mark.parametrize("line", ['{"iteration": 4, "bbox/AP"', "3", "[]", "{}"])
    def test_a_damaged_file(self, tmp_path, line):
        path = tmp_path / "metrics.json"
        path.write_text('{"iteration": 1, "bbox/AP": 1.0}\n' + line)
        with pytest.raises(UserError, match=f"{path}: it has a line that is no record of metrics"):
            read_evaluations(path, 4)
