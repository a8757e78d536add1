import errno
import json
import os
from pathlib import Path

import pytest

from la_det.engine.output_dir import OutputDir
from la_det.errors import UserError


def write(folder, iterations, tail=""):
    lines = [json.dumps({"iteration": i, "total_loss": 1.0}) + "\n" for i in iterations]
    (folder / "metrics.json").write_text("".join(lines) + tail)


def read(path):
    return [json.loads(line)["iteration"] for line in path.read_text().splitlines()]


def test_resumed_run_drops_what_it_writes_again(tmp_path):
    write(tmp_path, range(7), tail='{"iteration": 7, "lo')
    (tmp_path / "last_checkpoint").write_text("model_0000004.pth")
    output = OutputDir(tmp_path)
    output.start_at(5)
    assert read(output.metrics) == [0, 1, 2, 3, 4]
    assert output.has_line(4, with_losses=True) and not output.has_line(5, with_losses=True)
    assert (tmp_path / "last_checkpoint").exists()


def test_finished_run_keeps_its_final_evaluation(tmp_path):
    write(tmp_path, range(3), tail='{"iteration": 3, "bbox/AP": 1.0}\n')
    output = OutputDir(tmp_path)
    output.start_at(3)
    assert read(output.metrics) == [0, 1, 2, 3] and output.has_line(3, with_losses=False)


def test_run_whose_checkpoints_are_gone_keeps_the_old_metrics(tmp_path):
    write(tmp_path, range(3))
    output = OutputDir(tmp_path)
    output.start_at(0)
    assert not output.metrics.exists()
    assert read(tmp_path / "metrics.old.json") == [0, 1, 2]


def test_empty_folder(tmp_path):
    output = OutputDir(tmp_path)
    output.check_new()
    for start in (0, 4):
        output.start_at(start)
    assert not list(tmp_path.iterdir()) and output.read_metrics() == []


@pytest.mark.parametrize("name", ["metrics.json", "last_checkpoint", "model_0000004.pth", "model_final.pth"])
def test_a_run_is_not_written_over(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match="it holds a run; --resume .* train.output_dir=FOLDER .* --overwrite"):
        OutputDir(tmp_path).check_new()


def test_what_a_failed_start_leaves_is_no_run(tmp_path):
    for name in ("config.yaml", "log.txt", "non_finite_0000000_rank0.pth"):
        (tmp_path / name).write_text("x")
    (tmp_path / "metrics.json").touch()
    OutputDir(tmp_path).check_new()


def test_a_run_is_moved_whole(tmp_path):
    for content in ("first", "second"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "metrics.json").write_text(content)
        OutputDir(tmp_path / "run").move_away()
    assert not list((tmp_path / "run").iterdir())
    assert [(tmp_path / f"run.old-{i}" / "metrics.json").read_text() for i in (1, 2)] == ["first", "second"]


def test_runs_below_are_not_moved(tmp_path):
    (tmp_path / "other").mkdir()
    OutputDir(tmp_path).check_movable()
    write(tmp_path / "other", range(2))
    with pytest.raises(UserError, match="other in it is another run"):
        OutputDir(tmp_path).check_movable()


def test_temporary_files_of_killed_writers_go(tmp_path):
    """Files of others stay, since the output folder can be any folder, such as the user's home."""
    temporary = [".model_final.pth.123", ".model_0000004.pth.5", ".last_checkpoint.7", ".metrics.json.8"]
    others = [".bashrc.2024", ".config.yaml.1.2", ".lock", ".netrc.1", ".notes.model.pth.1", "model_final.pth"]
    for name in [*temporary, ".config.yaml.9", *others]:
        (tmp_path / name).touch()
    OutputDir(tmp_path).remove_temporary_files()
    assert sorted(path.name for path in tmp_path.iterdir()) == others


def write_trial(folder):
    (folder / "model_final.pth").write_text("weights")
    write(folder, [0, 1])


@pytest.mark.parametrize("name", [".", "..", "../..", "absolute"])
def test_the_current_folder_is_not_moved_away(tmp_path, monkeypatch, name):
    """Paths of the command would then mean other files."""
    current = tmp_path / "a" / "b"
    current.mkdir(parents=True)
    monkeypatch.chdir(current)
    output = OutputDir(current if name == "absolute" else name)
    output.check_new()
    output.check_movable()
    write_trial(output.folder)
    for check in (output.check_new, output.check_movable):
        with pytest.raises(UserError, match="it is or holds the current folder; go to another folder"):
            check()


def test_a_path_that_ends_in_dots_is_moved_away(tmp_path, monkeypatch):
    (tmp_path / "run" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    output = OutputDir("run/below/..")
    write_trial(output.folder)
    output.check_new()
    assert output.move_away() == tmp_path / "run.old-1"
    assert not list((tmp_path / "run").iterdir())


def test_a_link_keeps_its_target(tmp_path):
    """The new run is on the same disk as the old one."""
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "run")
    write_trial(tmp_path / "link")
    assert OutputDir(tmp_path / "link").move_away() == tmp_path / "disk" / "run.old-1"
    assert (tmp_path / "link").resolve() == tmp_path / "disk" / "run" and not list((tmp_path / "link").iterdir())


def test_a_folder_that_cannot_be_renamed(tmp_path, monkeypatch):
    """Such as a mount point."""
    write_trial(tmp_path)

    def rename(self, target):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(UserError, match=rf"{tmp_path}: cannot rename it to .*old-1 \(.*busy\); choose another"):
        OutputDir(tmp_path).move_away()


def test_bytes_that_are_no_text(tmp_path):
    write(tmp_path, range(3))
    lines = (tmp_path / "metrics.json").read_bytes().splitlines(keepends=True)
    (tmp_path / "metrics.json").write_bytes(b"".join([lines[0], b"\x80" + lines[1], lines[2], b"\xff\xfe"]))
    output = OutputDir(tmp_path)
    assert [line["iteration"] for line in output.read_metrics()] == [0, 2]
    with pytest.raises(UserError, match="it holds a run"):
        output.check_new()
    output.start_at(2)
    assert read(output.metrics) == [0]


def test_a_trial_of_one_iteration_is_not_in_the_way(tmp_path):
    output = OutputDir(tmp_path / "run")
    output.folder.mkdir()
    (output.folder / "model_final.pth").write_text("weights")
    output.metrics.write_text('{"iteration": 0, "total_loss": 1.0}\n{"iteration": 1, "bbox/AP": 2.0}\n')
    output.check_new()
    assert (output.move_away() / "model_final.pth").read_text() == "weights"
    (output.folder / "model_final.pth").write_text("weights")
    output.metrics.write_text('{"iteration": 2, "total_loss": 1.0}\n')
    with pytest.raises(UserError, match="it holds a run"):
        output.check_new()
