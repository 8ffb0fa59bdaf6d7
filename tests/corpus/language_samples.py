"""Prose for the tests of language identification, a model file for fastText, and where the corpora lie."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"
needs_corpora = pytest.mark.skipif(not CORPORA.is_dir(), reason="the corpora for measuring are not here")
needs_heliport = pytest.mark.skipif(
    importlib.util.find_spec("heliport") is None, reason="heliport is not installed"
)

NOB = (
    "Kommunestyret vedtok i går at den gamle skolen ved fjorden skal rives. Foreldrene er ikke fornøyde, og "
    "flere av dem sier at de kommer til å klage. Ordføreren mener at bygningen er for dyr å holde ved like, "
    "og at barna får det bedre i den nye skolen.\n"
    "Hun forteller at arbeidet begynner til våren, og at det blir bussforbindelse hver morgen.\n"
)
NNO = (
    "Kommunestyret vedtok i går at den gamle skulen ved fjorden skal rivast. Foreldra er ikkje nøgde, og "
    "fleire av dei seier at dei kjem til å klage. Ordføraren meiner at bygningen er for dyr å halde ved like "
    "og at borna får det betre i den nye skulen.\n"
    "Ho fortel at arbeidet tek til om våren, og at det vert bussamband kvar morgon.\n"
)
SME = (
    "Mun lean riegádan Guovdageainnus ja bajásšaddan boazodoallobearrašis. Dál mun orun Romssas, gos mun "
    "barggan oahpaheaddjin. Sámegiella lea mu eatnigiella, ja mu mánát hállet dan beaivválaččat ruovttus ja "
    "skuvllas. Geasset mii johtit mearragáddái, ja dálvit mii leat siseatnamis.\n"
    "Ovdal lei váttis oažžut girjjiid sámegillii, muhto dál leat olu buorit girjjit mánáide.\n"
)
ENG = (
    "The council decided yesterday that the old school by the fjord will be pulled down. The parents are not "
    "happy about it, and several of them say that they will complain. The mayor thinks that the building "
    "costs too much to keep, and that the children will be better off in the new school.\n"
    "She says that the work begins in spring, and that there will be a bus every morning.\n"
)
SRP_CYRILLIC = (
    "Општинско веће је јуче одлучило да стара школа поред реке буде срушена. Родитељи нису задовољни и многи "
    "од њих кажу да ће се жалити. Градоначелница мисли да је зграда прескупа за одржавање и да ће деци бити "
    "боље у новој школи, која ће бити отворена следеће јесени.\n"
)
SRP_LATIN = (
    "Opštinsko veće je juče odlučilo da stara škola pored reke bude srušena. Roditelji nisu zadovoljni i "
    "mnogi od njih kažu da će se žaliti. Gradonačelnica misli da je zgrada preskupa za održavanje i da će "
    "deci biti bolje u novoj školi, koja će biti otvorena sledeće jeseni.\n"
)


def write_fasttext_model(path: Path, words_by_label: dict[str, tuple[str, ...]]) -> None:
    """A supervised fastText model (format 12) that knows a label by its words.

    Word vectors are one-hot by label, so that a text's label is the one with the most words in it.
    """
    labels = list(words_by_label)
    words = [(word, label) for label, those in words_by_label.items() for word in those]
    size = len(labels)
    entries = [(word, 0) for word in ["</s>", *(word for word, _ in words)]] + [
        (label, 1) for label in labels
    ]
    vectors = np.zeros((1 + len(words), size), np.float32)
    for row, (_, label) in enumerate(words, 1):
        vectors[row, labels.index(label)] = 20.0
    with path.open("wb") as file:
        file.write(struct.pack("<2i", 793712314, 12))
        # width, window, epochs, least count, negatives, word n-grams, softmax, supervised, buckets, …
        file.write(struct.pack("<12id", size, 5, 5, 1, 5, 1, 3, 3, 0, 0, 0, 100, 1e-4))
        file.write(struct.pack("<3i2q", len(entries), 1 + len(words), size, len(entries), -1))
        for entry, kind in entries:
            file.write(entry.encode() + b"\0" + struct.pack("<qb", 1, kind))
        for matrix in (vectors, np.eye(size, dtype=np.float32)):
            file.write(struct.pack("<?2q", False, *matrix.shape) + matrix.tobytes())
