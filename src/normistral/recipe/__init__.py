"""The recipe: typed settings of a run, and the reader that checks them."""

from normistral.recipe.load import dump_recipe, load_recipe, parse_recipe
from normistral.recipe.schema import (
    BaseSettings,
    CorpusSettings,
    EvaluationSettings,
    MixtureSettings,
    PublishSettings,
    Recipe,
    SourceSettings,
    SwapSettings,
    TokenizerSettings,
)
from normistral.recipe.training import (
    ForgettingBudget,
    LossSettings,
    ObjectiveSettings,
    RuntimeSettings,
    ScheduleSettings,
    SpikeSettings,
    TrainingSettings,
)

__all__ = [
    "BaseSettings",
    "CorpusSettings",
    "EvaluationSettings",
    "ForgettingBudget",
    "LossSettings",
    "MixtureSettings",
    "ObjectiveSettings",
    "PublishSettings",
    "Recipe",
    "RuntimeSettings",
    "ScheduleSettings",
    "SourceSettings",
    "SpikeSettings",
    "SwapSettings",
    "TokenizerSettings",
    "TrainingSettings",
    "dump_recipe",
    "load_recipe",
    "parse_recipe",
]
