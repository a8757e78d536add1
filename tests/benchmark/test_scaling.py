from la_det.benchmark import scaling
from la_det.benchmark.matching import SCHEMES
from la_det.cli import bench, build_parser


def test_tables(capsys):
    arguments = "scaling --gts 2 4 --sizes 64 128 --schemes poto --repeats 1".split()
    bench.run(build_parser("bench").parse(arguments))
    by_gts, by_pixels = capsys.readouterr().out.strip().split("\n\n")
    assert [row.split("|")[2].strip() for row in by_gts.splitlines()[2:]] == ["2", "4"]
    assert [row.split("|")[4].strip() for row in by_pixels.splitlines()[2:]] == ["64", "128"]
    assert float(by_pixels.splitlines()[-1].split("|")[-2])


def test_the_default_schemes_exist():
    assert {*scaling.BY_GTS, *scaling.BY_PIXELS} <= SCHEMES.keys()
