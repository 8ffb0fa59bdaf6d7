"""The recipe: typed settings of a run, and the reader that checks them."""

from normistral.recipe.cleaning import (
    EncodingSettings,
    ExtractSettings,
    LineSettings,
    PersonalDataSettings,
)
from normistral.recipe.corpus import CorpusSettings, ProfileSettings, SourceSettings
from normistral.recipe.dedup import DecontaminationSettings, DedupSettings
from normistral.recipe.execution import CorpusExecutionSettings, SlurmSettings
from normistral.recipe.language_id import LanguageIdSettings
from normistral.recipe.load import dump_recipe, load_recipe, parse_recipe
from normistral.recipe.mixture import MixtureSettings
from normistral.recipe.rules import LengthSettings, QualitySettings, RepetitionSettings
from normistral.recipe.schema import (
    BaseSettings,
    EvaluationSettings,
    PublishSettings,
    Recipe,
    SwapSettings,
    TokenizerSettings,
)
from normistral.recipe.shards import ImportedShards, ShardSettings
from normistral.recipe.training import (
    EarlyStopSettings,
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
    "CorpusExecutionSettings",
    "CorpusSettings",
    "DecontaminationSettings",
    "DedupSettings",
    "EarlyStopSettings",
    "EncodingSettings",
    "EvaluationSettings",
    "ExtractSettings",
    "ForgettingBudget",
    "ImportedShards",
    "LanguageIdSettings",
    "LengthSettings",
    "LineSettings",
    "LossSettings",
    "MixtureSettings",
    "ObjectiveSettings",
    "PersonalDataSettings",
    "ProfileSettings",
    "PublishSettings",
    "QualitySettings",
    "Recipe",
    "RepetitionSettings",
    "RuntimeSettings",
    "ScheduleSettings",
    "ShardSettings",
    "SlurmSettings",
    "SourceSettings",
    "SpikeSettings",
    "SwapSettings",
    "TokenizerSettings",
    "TrainingSettings",
    "dump_recipe",
    "load_recipe",
    "parse_recipe",
]
