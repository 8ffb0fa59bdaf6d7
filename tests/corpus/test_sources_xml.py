"""GiellaLT, METS/ALTO and TMX: what they mean is read, and no file of XML can do harm."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_rows import make_source

from normistral.corpus.documents import Document
from normistral.corpus.sources import list_files, read_file, read_source, source_size, source_state
from normistral.corpus.sources.xml_files import is_language, root_name
from normistral.errors import UserError
from normistral.recipe import SourceSettings


def read(source: SourceSettings) -> list[Document]:
    return list(read_source(source, Path("no-cache")))


def the_document(source: SourceSettings) -> Document:
    (document,) = read(source)
    return document


# --- GiellaLT

GIELLALT = """<?xml version='1.0' encoding='utf-8'?>
<!DOCTYPE document PUBLIC "-//UIT//DTD Corpus V1.0//EN" "http://giellatekno.uit.no/dtd/corpus.dtd">
<document xml:lang="sme" id="no_id"><header><title>Boazu</title><genre code="admin"/><year>2014</year>
<availability>{availability}</availability><multilingual/>
<origFileName>https://example.org/boazu.pdf</origFileName></header><body>
<section><p type="title">Boazu ja <em type="bold">olmmoš</em></p></section>
<p>Boazu  lea
 eal<hyph/>li.</p><p xml:lang="nob">Rein er et dyr.</p><p xml:lang="sme">Son <span>“eallá”</span>.</p>
<list><p type="listitem">okta</p><p type="listitem">guokte</p></list>
<table><row><p type="tablecell">1</p></row></table>
<p>čálli<errorort correct="meaddu">medddu<correct>meaddu</correct></errorort> boahtá</p>
<p> </p></body></document>"""


def giellalt(path: Path, availability: str = "<free/>") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(GIELLALT.format(availability=availability))
    return path


def test_paragraphs_of_giellalt_become_lines_without_those_in_other_languages(tmp_path: Path) -> None:
    source = make_source(giellalt(tmp_path / "admin" / "boazu.pdf.xml"), language="sme")
    document = the_document(source)
    assert document.text.split("\n") == [
        *("Boazu ja olmmoš", "Boazu lea ealli.", "Son “eallá”.", "okta", "guokte", "1"),
        "čállimedddu boahtá",
    ]
    assert document.id == "boazu.pdf.xml"
    assert (document.url, document.date) == ("https://example.org/boazu.pdf", "2014")
    kept = the_document(source.model_copy(update={"other_languages": "keep"}))
    assert "Rein er et dyr." in kept.text.split("\n")


def test_what_is_licensed_to_one_university_alone_is_dropped_unless_asked_for(tmp_path: Path) -> None:
    source = make_source(giellalt(tmp_path / "a.xml", '<license type="standard"/>'), language="sme")
    document = the_document(source)
    assert document.dropped
    assert (document.dropped.step, document.dropped.rule) == ("read", "availability")
    anyway = the_document(source.model_copy(update={"availability": "any"}))
    assert not anyway.dropped
    assert anyway.licence == "LicenseRef-GiellaLT-restricted"
    assert the_document(make_source(giellalt(tmp_path / "b.xml"))).licence == "CC0-1.0"


# --- METS and ALTO

ALTO = """<?xml version="1.0" encoding="UTF-8"?>
<alto xmlns="http://www.loc.gov/standards/alto/ns-v3#"><Layout>{order}<Page ID="P1">
<TopMargin><TextBlock ID="head">
<TextLine><String CONTENT="Nordlys" WC="0.1"/></TextLine></TextBlock></TopMargin>
<PrintSpace>{blocks}</PrintSpace></Page></Layout></alto>"""


def block(name: str, *lines: str, following: str = "") -> str:
    attribute = f' IDNEXT="{following}"' if following else ""
    inner = "".join(f"<TextLine>{line}</TextLine>" for line in lines)
    return f'<TextBlock ID="{name}"{attribute}>{inner}</TextBlock>'


def words(text: str, confidence: str = "") -> str:
    return "<SP/>".join(f'<String CONTENT="{word}"{confidence}/>' for word in text.split())


def half(content: str, number: int, entire: str, confidence: str = "") -> str:
    return (
        f'<String CONTENT="{content}" SUBS_TYPE="HypPart{number}" SUBS_CONTENT="{entire}"{confidence}/>'
        + '<HYP CONTENT="-"/>' * (number == 1)
    )


def alto(path: Path, *blocks: str, order: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ALTO.format(blocks="".join(blocks), order=order))
    return path


def test_words_cut_at_line_ends_come_whole_with_their_punctuation(tmp_path: Path) -> None:
    path = alto(
        tmp_path / "page.xml",
        block(
            "b1",
            words("Dette er ei") + half("«avis-", 1, "avisside"),
            half("side»,", 2, "avisside") + words("sa ho."),
        ),
        block("b2", words("Ho kom frå") + half("Nord-", 1, "Nord-Norge")),
        block("b3", half("Norge", 2, "Nord-Norge") + words("i går.")),
    )
    assert the_document(make_source(path)).text.split("\n") == [
        "Dette er ei «avisside», sa ho.",
        "Ho kom frå Nord-Norge",
        "i går.",
    ]


def test_a_word_cut_twice_comes_once(tmp_path: Path) -> None:
    lines = (
        half("fylkes-", 1, "fylkeskommunestyre"),
        half("kommune-", 2, "fylkeskommunestyre") + '<HYP CONTENT="-"/>',
        half("styre", 2, "kommunestyre") + words("møtte"),
    )
    assert the_document(make_source(alto(tmp_path / "p.xml", block("b", *lines)))).text == (
        "fylkeskommunestyre møtte"
    )


def test_hyphens_without_the_whole_word_join_and_unexplained_ones_keep_their_line_end(tmp_path: Path) -> None:
    path = alto(
        tmp_path / "page.xml",
        block(
            "b1", words("eit eks") + '<HYP CONTENT="-"/>', words("empel i Nord") + "<HYP/>", words("Noreg")
        ),
        block("b2", words("hus-"), words("og hytte-"), words("bygging")),
    )
    assert the_document(make_source(path)).text == ("eit eksempel i Nord-Noreg\nhus-\nog hytte-\nbygging")


def test_blocks_come_in_reading_order(tmp_path: Path) -> None:
    blocks = [block(name, words(name)) for name in ("c", "a", "d", "b")]
    order = "<ReadingOrder><OrderedGroup>{}</OrderedGroup></ReadingOrder>".format(
        "".join(f'<ElementRef REF="{name}"/>' for name in "abc")
    )
    assert the_document(make_source(alto(tmp_path / "1.xml", *blocks))).text == "c\na\nd\nb"
    assert the_document(make_source(alto(tmp_path / "2.xml", *blocks, order=order))).text == "a\nb\nc\nd"
    chained = [
        block("c", words("c")),
        block("a", words("a"), following="b"),
        block("b", words("b"), following="c"),
        block("d", words("d")),
    ]
    assert the_document(make_source(alto(tmp_path / "3.xml", *chained))).text == "a\nb\nc\nd"
    circle = [block("a", words("a"), following="b"), block("b", words("b"), following="a")]
    assert the_document(make_source(alto(tmp_path / "4.xml", *circle))).text == "a\nb"


def test_confidence_is_the_mean_over_characters_and_margins_are_left_out(tmp_path: Path) -> None:
    path = alto(tmp_path / "p.xml", block("b", words("abcd", ' WC="0.5"') + words("ab", ' CC="0 9"')))
    document = the_document(make_source(path))
    assert document.text == "abcd ab"
    assert document.quality_score == pytest.approx((4 * 0.5 + 2 * 0.5) / 6)
    with_margins = the_document(make_source(path, page_margins="keep"))
    assert with_margins.text == "Nordlys\nabcd ab"
    assert with_margins.quality_score == pytest.approx((6 * 0.5 + 7 * 0.1) / 13)
    low = the_document(make_source(path, min_quality_score=0.6))
    assert low.dropped
    assert low.dropped.rule == "min_quality_score"
    assert the_document(make_source(alto(tmp_path / "n.xml", block("b", words("x"))))).quality_score is None


METS = """<?xml version="1.0"?><mets:mets xmlns:mets="http://www.loc.gov/METS/"
 xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:mods="http://www.loc.gov/mods/v3" OBJID="avis-1">
<mets:dmdSec ID="d"><mets:mdWrap MDTYPE="MODS"><mets:xmlData><mods:mods>
<mods:identifier type="urn">URN:NBN:no-nb_avis</mods:identifier>
<mods:identifier type="uri">https://example.org/avis</mods:identifier>
<mods:originInfo><mods:dateIssued>1924-05-17</mods:dateIssued></mods:originInfo></mods:mods></mets:xmlData>
</mets:mdWrap></mets:dmdSec><mets:fileSec><mets:fileGrp>
<mets:file ID="I1" MIMETYPE="image/jp2"><mets:FLocat LOCTYPE="URL" xlink:href="file://./img/1.jp2"/></mets:file>
<mets:file ID="A2" MIMETYPE="text/xml"><mets:FLocat LOCTYPE="URL" xlink:href="{second}"/></mets:file>
<mets:file ID="A1" MIMETYPE="text/xml"><mets:FLocat LOCTYPE="URL" xlink:href="file://./alto/p%201.xml"/></mets:file>
</mets:fileGrp></mets:fileSec>
<mets:structMap TYPE="PHYSICAL"><mets:div TYPE="ISSUE">
<mets:div ORDER="2"><mets:fptr FILEID="A2"/></mets:div>
<mets:div ORDER="1"><mets:fptr><mets:par>
<mets:area FILEID="I1"/><mets:area FILEID="A1"/></mets:par></mets:fptr></mets:div>
</mets:div></mets:structMap>{logical}</mets:mets>"""

LOGICAL = """<mets:structMap TYPE="LOGICAL"><mets:div><mets:div TYPE="ARTICLE">
<mets:fptr><mets:area FILEID="A1" BETYPE="IDREF" BEGIN="b3"/></mets:fptr>
<mets:fptr><mets:area FILEID="A2" BETYPE="IDREF" BEGIN="b1"/></mets:fptr></mets:div><mets:div TYPE="ARTICLE">
<mets:fptr><mets:area FILEID="A1" BETYPE="IDREF" BEGIN="b1"/></mets:fptr></mets:div></mets:div>
</mets:structMap>"""


def mets(folder: Path, logical: str = "", second: str = "alto/p2.xml") -> Path:
    alto(
        folder / "alto" / "p 1.xml",
        block("b1", words("nest artikkel")),
        block("b2", words("annonse")),
        block("b3", words("første") + half("arti-", 1, "artikkel")),
    )
    alto(folder / "alto" / "p2.xml", block("b1", half("kkel.", 2, "artikkel") + words("held fram")))
    path = folder / "mets.xml"
    path.write_text(METS.format(logical=logical, second=second))
    return path


def test_a_mets_object_is_one_document_with_pages_in_order(tmp_path: Path) -> None:
    mets(tmp_path / "avis-1")
    source = make_source(tmp_path / "**" / "*.xml", name="aviser")
    assert [file.name for file in list_files(source, "", tmp_path)] == ["avis-1/mets.xml"]
    document = the_document(source)
    assert document.id == "avis-1/mets.xml"
    assert document.text == "nest artikkel\nannonse\nførste artikkel\nheld fram"
    assert (document.url, document.date) == ("https://example.org/avis", "1924-05-17")


def test_articles_of_a_newspaper_are_put_together_by_its_logical_structure(tmp_path: Path) -> None:
    path = mets(tmp_path, LOGICAL)
    assert the_document(make_source(path)).text == ("første artikkel\nheld fram\nnest artikkel\nannonse")


def test_the_state_and_size_of_a_mets_object_cover_its_pages(tmp_path: Path) -> None:
    source = make_source(mets(tmp_path))
    before, (size, _) = source_state(source), source_size(source, tmp_path)
    told: list[float] = []
    list(read_source(source, tmp_path, told.append))
    assert sum(told) == pytest.approx(size)
    page = tmp_path / "alto" / "p2.xml"
    page.write_text(page.read_text().replace("fram", "fram."))
    assert source_state(source) != before


def test_a_mets_object_without_one_of_its_pages_is_counted(tmp_path: Path) -> None:
    path = mets(tmp_path, second="alto/p3.xml")
    dropped = the_document(make_source(path)).dropped
    assert dropped
    assert (dropped.rule, dropped.detail) == (
        "missing_page",
        "mets.xml names the page p3.xml, which is not there",
    )


# --- TMX

TMX = """<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="nob"/><body>{units}</body></tmx>"""


def tmx(path: Path, pairs: list[tuple[str, str]], languages: tuple[str, str] = ("nob", "sme")) -> Path:
    units = "".join(
        "<tu>"
        + "".join(
            f'<tuv xml:lang="{language}"><seg>{text}</seg></tuv>'
            for language, text in zip(languages, pair, strict=True)
        )
        + "</tu>\n"
        for pair in pairs
    )
    path.write_text(TMX.format(units=units))
    return path


def test_one_side_of_a_translation_memory_is_a_document(tmp_path: Path) -> None:
    pairs = [
        ("Hei &amp; <bpt i='1'>&lt;b&gt;</bpt>hallo<ept i='1'/>", "Bures"),
        ("God  dag", " Buorre \n beaivi "),
        ("Bare norsk", ""),
    ]
    path = tmx(tmp_path / "nob2sme.tmx", pairs)
    document = the_document(make_source(path, language="sme"))
    assert (document.id, document.text) == ("nob2sme.tmx", "Bures\nBuorre beaivi")
    assert the_document(make_source(path, language="nob")).text == "Hei & hallo\nGod dag\nBare norsk"


def test_a_long_translation_memory_is_several_documents_in_parts(tmp_path: Path) -> None:
    path = tmx(tmp_path / "x.tmx", [(f"norsk {n}", f"sámi {n}") for n in range(25)])
    source = make_source(path, language="sme", segments_per_document=10)
    documents = read(source)
    assert [document.id for document in documents] == ["x.tmx:1", "x.tmx:2", "x.tmx:3"]
    assert "\n".join(document.text for document in documents) == "\n".join(f"sámi {n}" for n in range(25))
    (file,) = list_files(source, "", tmp_path)
    parts = [list(read_file(source, file, tmp_path, part, 2)) for part in range(2)]
    assert [[document.id for document in part] for part in parts] == [["x.tmx:1", "x.tmx:3"], ["x.tmx:2"]]


def test_a_translation_memory_of_other_languages_is_counted(tmp_path: Path) -> None:
    dropped = the_document(make_source(tmx(tmp_path / "x.tmx", [("a", "b")]), language="fao")).dropped
    assert dropped
    assert dropped.detail == "x.tmx has no segment in fao (it has: nob, sme)"


def test_a_translation_memory_that_is_cut_short_is_refused_or_used_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmx(tmp_path / "x.tmx", [(f"norsk {n}", f"sámi {n}") for n in range(2000)])
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"x\.tmx is damaged or no TMX file"):
        read(make_source(path, language="sme"))
    documents = read(make_source(path, language="sme", on_damage="skip"))
    assert [document.dropped and document.dropped.rule for document in documents] == [
        *(None for _ in documents[:-1]),
        "damaged_file",
    ]
    assert documents[0].text.startswith("sámi 0\nsámi 1\n")


@pytest.mark.parametrize(
    ("mark", "language", "fits"),
    [
        ("sme", "sme", True),
        ("se", "sme", True),
        ("se-NO", "sme", True),
        ("smj", "sme", False),
        ("no", "nob", True),
        ("no", "nno", True),
        ("nb-NO", "nob", True),
        ("nn", "nob", False),
        ("sr_Cyrl", "srp_Cyrl", True),
        ("sv", "swe", True),
    ],
)
def test_language_marks_mean_recipe_languages(mark: str, language: str, fits: bool) -> None:
    assert is_language(mark, language) == fits


# --- XML at large


def test_kinds_of_xml_are_told_by_their_roots_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    giellalt(tmp_path / "1.xml")
    alto(tmp_path / "2.xml", block("b", words("x")))
    tmx(tmp_path / "3.xml", [("a", "b")])
    files = list_files(make_source(tmp_path / "*.xml"), "", tmp_path)
    assert [file.format for file in files] == ["giellalt", "alto", "tmx"]
    (tmp_path / "4.xml").write_text("<!-- <mets> --><html/>")
    with pytest.raises(UserError, match=r"4\.xml is XML of an unknown kind \(root element <html>"):
        list_files(make_source(tmp_path / "*.xml"), "", tmp_path)
    assert root_name('<?xml version="1.0"?><a:mets/>'.encode("utf-16")) == "mets"


ENTITIES = '<!DOCTYPE {root} [<!ENTITY a "ha"><!ENTITY b "{many}">]>'.replace("{many}", "&a;" * 100)


@pytest.mark.parametrize("kind", ["giellalt", "alto", "tmx"])
def test_entities_of_a_file_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    if kind == "tmx":
        tmx(path, [("a", "b")])
        path.write_text(
            path.read_text().replace('<!DOCTYPE tmx SYSTEM "tmx14.dtd">', ENTITIES.format(root="tmx"))
        )
        with pytest.raises(UserError, match="defines entities of its own"):
            read(make_source(path, language="sme"))
        return
    if kind == "alto":
        alto(path, block("b", words("x")))
        path.write_text(path.read_text().replace("<alto", ENTITIES.format(root="alto") + "<alto", 1))
    else:
        giellalt(path)
        text = path.read_text()
        start, end = text.index("<!DOCTYPE"), text.index("<document")
        path.write_text(text[:start] + ENTITIES.format(root="document") + text[end:])
    dropped = the_document(make_source(path)).dropped
    assert dropped
    assert (dropped.rule, dropped.detail) == (
        "not_xml",
        "x.xml defines entities of its own, which can stand for gigabytes",
    )


def test_a_file_outside_is_never_read_through_xml(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("hemmelig")
    for declared in (
        f'<!DOCTYPE document [<!ENTITY x SYSTEM "{secret.as_uri()}">]>',
        f'<!DOCTYPE document SYSTEM "{secret.as_uri()}">',
    ):
        (tmp_path / "x.xml").write_text(
            f'{declared}<document xml:lang="sme"><body><p>a&x;b</p></body></document>'
        )
        assert "hemmelig" not in str(read(make_source(tmp_path / "x.xml", format="giellalt")))


@pytest.mark.parametrize("name", ["giellalt", "alto"])
def test_a_damaged_xml_file_is_counted_and_the_others_are_read(name: str, tmp_path: Path) -> None:
    make = {"giellalt": giellalt, "alto": lambda path: alto(path, block("b", words("x")))}[name]
    for number in range(3):
        make(tmp_path / f"{number}.xml")
    damaged = tmp_path / "1.xml"
    damaged.write_text(damaged.read_text()[:-30])
    documents = read(make_source(tmp_path / "*.xml"))
    assert [document.dropped is None for document in documents] == [True, False, True]
    assert documents[1].dropped
    assert documents[1].dropped.rule == "not_xml"
