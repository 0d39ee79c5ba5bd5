"""Stage `pretrain_detector` of dvc.yaml."""

from __future__ import annotations

import sys

from pipeline.detector import pretrain_detector
from pipeline.stage import run_stage

if __name__ == "__main__":
    sys.exit(run_stage("pretrain_detector", pretrain_detector))
