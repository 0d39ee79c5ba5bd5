"""Stage `forge` of dvc.yaml."""

from __future__ import annotations

import sys

from pipeline.forge import forge
from pipeline.stage import run_stage

if __name__ == "__main__":
    sys.exit(run_stage("forge", forge))
