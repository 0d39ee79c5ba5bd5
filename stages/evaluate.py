"""Stage `evaluate` of dvc.yaml."""

from __future__ import annotations

import sys

from pipeline.evaluate import evaluate
from pipeline.stage import run_stage

if __name__ == "__main__":
    sys.exit(run_stage("evaluate", evaluate))
