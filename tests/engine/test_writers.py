import json
import math

from detectron2.utils.events import EventStorage

from la_det.engine.writers import MetricsWriter


def test_metrics_are_strict_json(tmp_path):
    path = tmp_path / "metrics.json"
    writer = MetricsWriter(str(path), window_size=1)
    with EventStorage(0) as storage:
        for iteration, ap in enumerate((1.5, math.nan, math.inf)):
            storage.iter = iteration
            storage.put_scalars(loss=0.1 * iteration, **{"bbox/AP": ap}, smoothing_hint=False)
            writer.write()
        writer.write()  # nothing new
    writer.close()

    def refuse(name):
        raise AssertionError(name)

    lines = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [0, 1, 2]
    assert [line["bbox/AP"] for line in lines] == [1.5, None, None]
    assert [line["loss"] for line in lines] == [0.0, 0.1, 0.2]
