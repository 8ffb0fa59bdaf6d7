"""Labels of language identifiers as the codes of this house: ISO 639-3, one code for each language.

Identifiers name languages by ISO 639-1 (`se`) or by ISO 639-3, also with a script (`sme_Latn`). Where one
language has two codes in use, that of a macrolanguage and that of its standard (`est` and `ekk`), both become
the macrolanguage's, so that a recipe may use either. Norwegian is the exception: `nob` and `nno` are written
languages, and what says `no` means Bokmål.
"""

from __future__ import annotations

from functools import lru_cache

NOTHING_READ = "und"
"""ISO 639-3 for undetermined: too little to read, or no language known to the identifier."""


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


ISO_639_1 = _pairs(
    """
    aa:aar ab:abk ae:ave af:afr ak:aka am:amh an:arg ar:ara as:asm av:ava ay:aym az:aze ba:bak be:bel bg:bul
    bh:bho bi:bis bm:bam bn:ben bo:bod br:bre bs:bos ca:cat ce:che ch:cha co:cos cr:cre cs:ces cu:chu cv:chv
    cy:cym da:dan de:deu dv:div dz:dzo ee:ewe el:ell en:eng eo:epo es:spa et:est eu:eus fa:fas ff:ful fi:fin
    fj:fij fo:fao fr:fra fy:fry ga:gle gd:gla gl:glg gn:grn gu:guj gv:glv ha:hau he:heb hi:hin ho:hmo hr:hrv
    ht:hat hu:hun hy:hye hz:her ia:ina id:ind ie:ile ig:ibo ii:iii ik:ipk io:ido is:isl it:ita iu:iku ja:jpn
    jv:jav ka:kat kg:kon ki:kik kj:kua kk:kaz kl:kal km:khm kn:kan ko:kor kr:kau ks:kas ku:kur kv:kom kw:cor
    ky:kir la:lat lb:ltz lg:lug li:lim ln:lin lo:lao lt:lit lu:lub lv:lav mg:mlg mh:mah mi:mri mk:mkd ml:mal
    mn:mon mr:mar ms:msa mt:mlt my:mya na:nau nb:nob nd:nde ne:nep ng:ndo nl:nld nn:nno no:nob nr:nbl nv:nav
    ny:nya oc:oci oj:oji om:orm or:ori os:oss pa:pan pi:pli pl:pol ps:pus pt:por qu:que rm:roh rn:run ro:ron
    ru:rus rw:kin sa:san sc:srd sd:snd se:sme sg:sag sh:hbs si:sin sk:slk sl:slv sm:smo sn:sna so:som sq:sqi
    sr:srp ss:ssw st:sot su:sun sv:swe sw:swa ta:tam te:tel tg:tgk th:tha ti:tir tk:tuk tl:tgl tn:tsn to:ton
    tr:tur ts:tso tt:tat tw:twi ty:tah ug:uig uk:ukr ur:urd uz:uzb ve:ven vi:vie vo:vol wa:wln wo:wol xh:xho
    yi:yid yo:yor za:zha zh:zho zu:zul
    """
)

ONE_CODE = _pairs(
    """
    nor:nob als:sqi aln:sqi arb:ara ary:ara arz:ara apc:ara acm:ara acq:ara aeb:ara ajp:ara ars:ara ayr:aym
    azj:aze azb:aze ckb:kur kmr:kur sdh:kur ekk:est fil:tgl fuv:ful gaz:orm gug:grn hbo:heb cmn:zho wuu:zho
    khk:mon lvs:lav npi:nep ory:ori pbt:pus pes:fas prs:fas plt:mlg quy:que quz:que swh:swa twi:aka uzn:uzb
    uzs:uzb ydd:yid zsm:msa knc:kau
    """
)
"""Codes of a language's standard or variety, and the code that stands for both."""

STANDS_FOR_ANY: dict[str, frozenset[str]] = {"hbs": frozenset({"bos", "cnr", "hrv", "srp"})}
"""Labels of identifiers that don't tell these languages apart."""


def one_code(code: str) -> str:
    """The code by which a language is compared here.

    Example:
        >>> one_code("ekk"), one_code("srp_Cyrl"), one_code("nob")
        ('est', 'srp', 'nob')
    """
    language = code.partition("_")[0]
    return ONE_CODE.get(language, language)


@lru_cache(maxsize=1 << 14)
def code_of_label(label: str) -> str:
    """The code for what an identifier calls a language; `und` for labels that name none.

    Example:
        >>> [code_of_label(label) for label in ("se", "__label__nob_Latn", "zh", "no")]
        ['sme', 'nob', 'zho', 'nob']
    """
    language = label.removeprefix("__label__").partition("_")[0].partition("-")[0].lower()
    return one_code(ISO_639_1.get(language, language)) or NOTHING_READ


def names_language(found: str, wanted: str) -> bool:
    """Whether an identifier that says `found` may mean `wanted` (both as of `one_code`)."""
    return found == wanted or wanted in STANDS_FOR_ANY.get(found, frozenset())
