"""Writers of metrics beyond Detectron2's."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict

from detectron2.utils.events import JSONWriter, get_event_storage


class MetricsWriter(JSONWriter):
    """Detectron2's `metrics.json` in strict JSON: a metric that is no number, such as the AP of no object, is null."""

    def write(self) -> None:
        new: dict[int, dict[str, float | None]] = defaultdict(dict)
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(self._window_size).items():
            if iteration > self._last_write:
                new[iteration][name] = value if math.isfinite(value) else None
        for iteration, values in new.items():
            line = json.dumps(values | {"iteration": iteration}, sort_keys=True, allow_nan=False)
            self._file_handle.write(line + "\n")
        self._last_write = max(new, default=self._last_write)
        self._file_handle.flush()
        os.fsync(self._file_handle.fileno())
