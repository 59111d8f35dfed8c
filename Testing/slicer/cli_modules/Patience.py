#!/usr/bin/env python-real
"""A CLI module that takes its time, for the tests of the task queue."""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--input")
parser.add_argument("--output")
parser.add_argument("--seconds", type=float, default=0.3)
parser.add_argument("--complaint", default="")
parser.add_argument("--trace")
options = parser.parse_args()

if options.trace:
    (Path(options.trace) / str(os.getpid())).touch()
begun = time.monotonic()
while (share := (time.monotonic() - begun) / max(options.seconds, 1e-6)) < 1:
    print(f"<filter-progress>{share:.3f}</filter-progress>", flush=True)
    time.sleep(0.05)
if options.complaint:
    print(options.complaint, file=sys.stderr)
    sys.exit(2)
if options.output:
    shutil.copyfile(options.input, options.output)
