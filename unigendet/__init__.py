"""UniGenDet: one transformer that generates images, and detects and explains generated ones.

This package is the science in plain PyTorch: it imports neither Ray nor MLflow nor DVC, so it works
from a notebook. `pipeline` and `stages` turn it into an experiment.
"""
