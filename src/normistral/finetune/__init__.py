"""Fine-tune a model for a task: classification, tagging, answering, similarity, more text."""

from normistral.finetune.direction import check_direction, hidden_leak
from normistral.finetune.finetuned import FinetunedModel, load_finetuned
from normistral.finetune.predict import Predictions, predict_file, predict_texts
from normistral.finetune.run import finetune
from normistral.finetune.settings import FinetuneSettings

__all__ = [
    "FinetuneSettings",
    "FinetunedModel",
    "Predictions",
    "check_direction",
    "finetune",
    "hidden_leak",
    "load_finetuned",
    "predict_file",
    "predict_texts",
]
