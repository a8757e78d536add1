import json

from la_det.engine.output_dir import prepare_output_dir


def write(folder, iterations, tail=""):
    lines = [json.dumps({"iteration": i, "loss": 1.0}) + "\n" for i in iterations]
    (folder / "metrics.json").write_text("".join(lines) + tail)


def read(path):
    return [json.loads(line)["iteration"] for line in path.read_text().splitlines()]


def test_resumed_run_drops_what_it_writes_again(tmp_path):
    write(tmp_path, range(7), tail='{"iteration": 7, "lo')
    (tmp_path / "last_checkpoint").write_text("model_0000004.pth")
    assert read(prepare_output_dir(tmp_path, start=5)) == [0, 1, 2, 3, 4]
    assert (tmp_path / "last_checkpoint").exists()


def test_new_run_keeps_the_old_metrics_and_forgets_the_old_checkpoint(tmp_path):
    write(tmp_path, range(3))
    (tmp_path / "last_checkpoint").write_text("model_0000002.pth")
    assert not prepare_output_dir(tmp_path, start=0).exists()
    assert read(tmp_path / "metrics.old.json") == [0, 1, 2]
    assert not (tmp_path / "last_checkpoint").exists()


def test_empty_folder(tmp_path):
    assert prepare_output_dir(tmp_path, start=0) == tmp_path / "metrics.json"
    assert prepare_output_dir(tmp_path, start=4) == tmp_path / "metrics.json"
    assert not list(tmp_path.iterdir())
