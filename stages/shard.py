"""Stage `shard` of dvc.yaml."""

from __future__ import annotations

import sys

from pipeline.sharding import shard
from pipeline.stage import run_stage

if __name__ == "__main__":
    sys.exit(run_stage("shard", shard))
