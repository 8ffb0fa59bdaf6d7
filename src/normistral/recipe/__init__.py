"""The recipe: typed settings of a run, and the reader that checks them."""

from normistral.recipe.load import dump_recipe, load_recipe, parse_recipe
from normistral.recipe.schema import (
    BaseSettings,
    CorpusSettings,
    EvaluationSettings,
    MixtureSettings,
    ObjectiveSettings,
    PublishSettings,
    Recipe,
    RuntimeSettings,
    ScheduleSettings,
    SourceSettings,
    SwapSettings,
    TokenizerSettings,
    TrainingSettings,
)

__all__ = [
    "BaseSettings",
    "CorpusSettings",
    "EvaluationSettings",
    "MixtureSettings",
    "ObjectiveSettings",
    "PublishSettings",
    "Recipe",
    "RuntimeSettings",
    "ScheduleSettings",
    "SourceSettings",
    "SwapSettings",
    "TokenizerSettings",
    "TrainingSettings",
    "dump_recipe",
    "load_recipe",
    "parse_recipe",
]
