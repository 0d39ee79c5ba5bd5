"""Stage `pretrain_generator` of dvc.yaml."""

from __future__ import annotations

import sys

from pipeline.generator import pretrain_generator
from pipeline.stage import run_stage

if __name__ == "__main__":
    sys.exit(run_stage("pretrain_generator", pretrain_generator))
