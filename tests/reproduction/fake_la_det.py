"""Stands for `la-det`: it writes the AP that an option `ap=` names, and notes that it was called."""

import json
import os
import signal
import sys
import time
from pathlib import Path

command, config, *rest = sys.argv[1:]
output = Path(rest[rest.index("--output") + 1])
options = dict(option.split("=", 1) for option in rest if "=" in option and not option.startswith("coco:"))
with Path(sys.argv[0] + ".calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\n")
if options.get("fail") == command:
    print("much was printed\nerror: the data are gone")
    sys.exit(2)
if options.get("kill"):
    os.kill(os.getpid(), signal.SIGKILL)
if options.get("hang"):
    print("hanging", flush=True)
    time.sleep(60)
output.mkdir(parents=True, exist_ok=True)
if command == "train":
    (output / "model_final.pth").touch()
else:
    weights = Path(rest[0])
    assert weights.exists()
    folder = output / "evaluation" / weights.stem
    folder.mkdir(parents=True, exist_ok=True)
    results = {"checkpoint": str(weights), "bbox": {"AP": float(options["ap"]), "AP-cat": 1.0, "AR": None}}
    (folder / "results.json").write_text(json.dumps(results | ({"bbox": {}} if options["ap"] == "0" else {})))
