import torch

from la_det.benchmark import evaluation
from la_det.cli import bench, build_parser


def test_every_image_once_in_both_ways():
    inputs = evaluation.images(9, (33, 96))
    found = evaluation.ways(inputs, 4, 32)
    for batches in found.values():
        assert sorted(id(x) for batch in batches for x in batch) == sorted(map(id, inputs))
    together, apart = (evaluation.padding(batches, 32) for batches in found.values())
    assert 0 < apart < together < 1
    assert len(found["padded together"]) == 3


def test_command(capsys):
    argv = ["POTO/poto_r18_fpn_shapes_tiny", "--images", "3", "--sides", "32", "64", "--repeats", "1"]
    threads = torch.get_num_threads()
    bench.run(build_parser("bench").parse(["evaluation", *argv]))
    torch.set_num_threads(threads)
    header, _, together, apart = capsys.readouterr().out.splitlines()
    assert "images / s" in header and "padded together" in together and "of one size" in apart
