"""Training: the one trainer, stages and objectives, and data that are drawn while they are needed."""

from .data import SceneBatches
from .stages import Course, Stage, train
from .trainer import Objective, Trainer, TrainingConfig

__all__ = ["Course", "Objective", "SceneBatches", "Stage", "Trainer", "TrainingConfig", "train"]
