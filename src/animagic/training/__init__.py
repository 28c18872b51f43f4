"""Training: the one trainer, the moving average of weights, and data that are drawn while they are needed."""

from .data import SceneBatches
from .trainer import Objective, Trainer, TrainingConfig

__all__ = ["Objective", "SceneBatches", "Trainer", "TrainingConfig"]
