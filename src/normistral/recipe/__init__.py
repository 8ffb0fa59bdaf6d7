"""The recipe: typed settings of a run, and the reader that checks them."""

from normistral.recipe.cleaning import (
    EncodingSettings,
    ExtractSettings,
    LineSettings,
    PersonalDataSettings,
    RuleSettings,
)
from normistral.recipe.corpus import CorpusSettings, ProfileSettings, SourceSettings
from normistral.recipe.dedup import DecontaminationSettings, DedupSettings
from normistral.recipe.language_id import LanguageIdSettings
from normistral.recipe.load import dump_recipe, load_recipe, parse_recipe
from normistral.recipe.mixture import MixtureSettings
from normistral.recipe.schema import (
    BaseSettings,
    EvaluationSettings,
    PublishSettings,
    Recipe,
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
    "DecontaminationSettings",
    "DedupSettings",
    "EncodingSettings",
    "EvaluationSettings",
    "ExtractSettings",
    "ForgettingBudget",
    "LanguageIdSettings",
    "LineSettings",
    "LossSettings",
    "MixtureSettings",
    "ObjectiveSettings",
    "PersonalDataSettings",
    "ProfileSettings",
    "PublishSettings",
    "Recipe",
    "RuleSettings",
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
