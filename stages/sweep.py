"""Stage `sweep` of dvc.yaml."""

from __future__ import annotations

import sys

from pipeline.stage import run_stage
from pipeline.sweep import sweep

if __name__ == "__main__":
    sys.exit(run_stage("sweep", sweep))
