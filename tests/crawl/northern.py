"""Text for made-up pages: Northern Sámi and its decoys, made of words in an order that a seed decides, and a
judge that knows Northern Sámi by its little words."""

from __future__ import annotations

import random
from collections.abc import Sequence

from normistral.corpus.crawl.steps import extraction_steps
from normistral.corpus.documents import Document, Dropped
from normistral.corpus.steps.step import Step
from normistral.recipe.crawl import CrawlSettings

WORDS = {
    "sme": (
        "ja lea leat ii eai mun don son mii dii sii go dat dán dasa dás maid muhto vai juos dalle doppe "
        "dáppe ovdal maŋŋá gitta birra vuostá mielde oktan beaivi mánná skuvla giella sámegiella boazu "
        "boazodoallu čáhci várri duoddaris jávri johka guolli guolástit ealli olmmoš nisu áhkku áddjá "
        "viessu goahti lávvu dálvi geassi čakča giđđa muohta jiekŋa biegga arvi boahtá manná čállá "
        "lohká oaidná gullá bargá ássá diehtá máhttá galgá sáhttá dáhttu čáppat buorre stuoris unni "
        "ođas boares guhkki oanehis Kárášjohka Guovdageaidnu Romsa Ohcejohka Sápmi"
    ),
    "smj": (
        "ja la li ij mån dån sån mij dij sij gå dat dav dassta dán majt valla vaj jus dálla dåppe dáppe "
        "åvddåla maŋŋel biejvve mánná skåvllå giella julevsáme boahtsoj tjáhtje várre jávrre jåhkå "
        "guolle ulmusj nissun áhkko áddjá goahte dálvve giesse tjaktja gidá muohta jiegŋa biegga boahtá "
        "manná tjállá låhkå vuojnná gullá barggá årru diehtá máhttá galggá máhttá sihtá tjáppes buorre "
        "stuorak unna ådå boares Jåhkåmåhkke Divtasvuodna Sábme"
    ),
    "sma": (
        "jïh lea leah ij eah manne datne dïhte mijjieh dijjieh dah gosse dam dïsse daesnie maam mohte "
        "jis dellie desnie aarebi mænngan biejjie maana skuvle gïele åarjelsaemien bovtse tjaetsie "
        "vaerie jaevrie johke guelie almetje nyjsenæjja gåetie gåatan daelvie giesie tjaktje gïjre "
        "lopme jïenge bïegke båata vaadtsa tjaala lohka vuajna gåvla barka årroe daajra maahta edtja "
        "maahta sæjhta tjaebpies buerie stoere onne orre båeries Snåase Saepmie"
    ),
    "nob": (
        "og er var ikke jeg du han vi dere de når det den der her men hvis da før etter rundt mot med "
        "dag barn skole språk norsk rein vann fjell vidde innsjø elv fisk menneske kvinne bestemor "
        "bestefar hus telt vinter sommer høst vår snø is vind regn kommer går skriver leser ser hører "
        "arbeider bor vet kan skal vil vakker god stor liten ny gammel lang kort Oslo Bergen Tromsø "
        "Norge"
    ),
}
MARKS = frozenset(
    [
        "ja",
        "lea",
        "leat",
        "ii",
        "eai",
        "mun",
        "don",
        "son",
        "mii",
        "dii",
        "sii",
        "go",
        "dat",
        "muhto",
        "dalle",
        "maŋŋá",
        "beaivi",
        "boahtá",
        "čállá",
    ]
)
"""Little words of Northern Sámi that its neighbours spell otherwise, or hardly have."""


def prose(language: str, seed: str, words: int = 120) -> str:
    """Sentences in (words of) a language; another seed gives another text, the same one the same."""
    draw = random.Random(f"{language} {seed}")
    known = WORDS[language].split()
    sentences: list[str] = []
    while words > 0:
        length = min(draw.randint(6, 12), words)
        sentences.append(" ".join(draw.choices(known, k=length)).capitalize() + ".")
        words -= length
    return " ".join(sentences)


class LittleWords(Step):
    """Keeps a text with many of the little words of Northern Sámi."""

    name = "language"

    def judge(self, document: Document) -> Document | Dropped:
        words = document.text.lower().replace(".", " ").split()
        share = sum(word in MARKS for word in words) / max(len(words), 1)
        if share < 0.1:
            return self.drop("other_language", f"nob ({share:.2f})")
        return Document(
            **{field: getattr(document, field) for field in document.__slots__} | {"language_score": 0.9}
        )


def quick_steps(settings: CrawlSettings) -> Sequence[Step]:
    """The crawl's own steps, but for this judge."""
    return [*extraction_steps(settings), LittleWords()]
