"""The most frequent function words of some languages, for the rule `min_stop_words`.

Running text has many of them, lists and tables have none. They tell text from no text, not one language from
another: languages that are close share most of theirs, and language identification is a step of its own.
"""

from __future__ import annotations

_LISTS = {
    "nob": "og i det er på som en til av for at med han de ikke den har jeg om et men var seg hun fra vi "
    "du kan nå skal ved også eller etter å være blir ble dette denne når hva så mot over ut inn "
    "opp alle vil må",
    "nno": "og i det er på som ein til av for at med han dei ikkje den har eg om eit men var seg ho frå "
    "vi du kan no skal ved også eller etter å vere blir vart vert dette denne når kva så mot over "
    "ut inn opp alle vil må",
    "dan": "og i det er på som en til af for at med han de ikke den har jeg om et men var sig hun fra vi "
    "du kan nu skal ved også eller efter være bliver blev dette denne når hvad så mod over ud ind "
    "op alle vil må",
    "swe": "och i det är på som en till av för att med han de inte den har jag om ett men var sig hon "
    "från vi du kan nu ska skall vid också eller efter vara blir blev detta denna när vad så mot "
    "över ut in upp alla vill måste",
    "isl": "og í það er á sem að til af fyrir við með hann þeir ekki þá hún um en var eru frá ég þú nú "
    "þar svo því eða eftir þetta þessi sér hafa hefur vera verið þegar hvað mun úr út inn upp "
    "allir",
    "fao": "og í tað er á sum at til av fyri við hann teir ikki tá hon um men var eru frá eg tú nú har "
    "so tí ella eftir hetta henda seg hava hevur vera verið verður tey tær ein eitt eisini hjá "
    "kann skal úr út inn upp øll",
    "eng": "the of and to in a is that for it was on are as with his they be at have this from or by but "
    "not what all were we when your can there an which she their if will he you has had its",
    "sme": "ja lea go leat mii dat dan dán maid ahte ii eará birra mielde maiddái nu de dát mat dasa "
    "muhto buot man dál son dahje daid eai das lei vai jus jos sii su sin min juo ain vel gos "
    "geat mas leamaš dalle ovdal",
    "smj": "ja le li gå jali aj de ma jus la ij birra mij l dát gudi vaj gånnå milta muhtem dan baktu "
    "dán dav sij valla lij jut nav gaskan gåktu guhti duola dáv sijá mijá majt ietjá",
    "sma": "jïh lea bïjre leah mah dah dan akte gosse guktie aktem jallh aaj dïhte goh mij juktie jis ij "
    "dam dellie maam gusnie jeatjah mietie dle dovne daate jih gaskem dejtie dej mijjieh edtja "
    "man daan",
    "smn": "já lii láá meid ko et ij tot mii mield kalga lasseen tääl iä tâi puoh taan tast meiddei "
    "nuuvt tom at jis moh mast mon te lâi mutâ kiäh vâi ton lah puáhtá toos tun sun",
    "sms": "da lij što še liâ di diõtt mieʹldd miešldd tõn tän jeeʹres koon kook lie leʹbe âlgg ko tõt "
    "tuâi ij mâid kuʹrr mon ton son",
    "fin": "ja on ei se että hän oli mutta ovat kun myös tai kuin niin jos sen joka mitä vain mukaan ole "
    "hänen siitä sitä sekä voi minä he me te tämä tämän jo nyt kanssa ennen sitten olla ollut "
    "eivät joita jotka",
    "deu": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an "
    "werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über so zum war "
    "haben nur oder",
    "nld": "de van een het en in is dat op te zijn met voor niet die aan er om ook als dan maar bij of "
    "uit nog naar door over ze zich hij heeft kan wordt deze dit was worden wel",
    "fra": "de la le et les des en un du une que est pour qui dans par pas au sur ne se ce il sont plus "
    "avec son aux ou mais comme nous vous cette ses elle on été leur",
    "est": "ja on ei et see ta oli ka kui aga ning mis või nii oma seda selle kes siis mida veel ma sa "
    "me te nad ainult juba kuid pole olid olnud",
}

STOP_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split()) | frozenset(word.capitalize() for word in words.split())
    for language, words in _LISTS.items()
}
"""Function words by language (ISO 639-3), each also with a capital."""
