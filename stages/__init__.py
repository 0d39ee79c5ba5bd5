"""One file per `dvc.yaml` stage, run as `python -m stages.<name>`; no logic of their own."""
