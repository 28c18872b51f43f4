"""Sentences to be read aloud, composed at random, so that every phone of English and some of others come up."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

LANGUAGES = ("en", "de", "fr", "es", "it")

_HELD_OUT = 8  # of so many sentences one is held out

_ENGLISH = {
    "adjective": "quiet|yellow|enormous|clever|broken|gentle|foggy|joyful|purple|shiny|thirsty|usual|wooden|young|"
    "zealous|fresh|cheap|smooth|pleasant|rough|thick|vague|warm|heavy|hollow|narrow|polite|ancient|royal|curious",
    "noun": "teacher|garden|kitchen|judge|treasure|boy|village|wheel|feather|theatre|ship|orange|hour|mouth|bridge|"
    "zebra|engine|puzzle|jacket|window|thing|mayor|doctor|fox|violin|onion|yard|cowboy|church|uncle|mirror|shadow|poet",
    "nouns": "apples|books|voices|horses|letters|mushrooms|pictures|thoughts|watches|toys|songs|clouds|boxes|flowers|"
    "leaves|measures|jewels|owls|fingers|roofs|machines|brothers|youths|beaches|buttons",
    "past": "watched|carried|found|followed|painted|moved|pushed|heard|washed|showed|caught|enjoyed|measured|chose|"
    "threw|opened|borrowed|forgot|loved|visited|judged|refused|shook|bought|guarded",
    "verb": "sing|walk|dance|whisper|jump|fly|argue|cook|vanish|laugh|breathe|shout|yawn|travel|choose|pray|row|wait|"
    "think|fall|weave|study",
    "when": "slowly|today|yesterday|once again|before lunch|with great care|after all|in the morning|near the river|"
    "on the other side|without a word|at eight o'clock|for two years|from here to the harbour|by the fire|in July",
    "who": "Sophie|George|my father|Mister Jones|the children|Beth and Oliver|our neighbour|Zoe|nobody|everyone|"
    "Aunt Ruth|Captain Fisher|Hugh|Joyce|a stranger|Charlotte|William",
    "joint": "because|although|while|until|before|unless|so|and|but",
    "question": "Why|How|When|Where",
    "number": "two|three|five|seven|eight|eleven|twelve|thirteen|thirty|forty|fifty-six|a hundred|a thousand",
    "oh": "Well|Oh|Look|Yes|No|Please|Honestly|Of course|Hello|Good morning|Thank you|Wait|Maybe|By the way",
}
_ENGLISH_SENTENCES = (
    "The {adjective} {noun} {past} {number} {adjective} {nouns} {when}.",
    "{oh}, {who} {past} the {noun} {when}.",
    "{oh}, I think that {who} {past} it {when}!",
    "{question} did {who} {verb} {when}?",
    "{question} would {adjective} {nouns} {verb}, {joint} not {verb}?",
    "{who} {past} my {noun}, {joint} {who} {past} your {nouns}.",
    "You should {verb} {when}, {joint} we could {verb} {when}.",
    "There were {number} {nouns} and {number} {nouns} beside the {noun}.",
    "{oh}!",
    "{oh}, {oh}.",
    "This {noun} is {adjective}, those {nouns} are {adjective}.",
    "Nothing is as {adjective} as {who}, {joint} they all {verb}.",
    "{who} must {verb} and {verb} {when}.",
    "Have you {past} the {noun} of {who}?",
    "I would rather {verb} than {verb}, {oh}.",
    "Both {nouns} and {nouns}: {adjective}, {adjective}, {adjective}.",
)
_GERMAN = {
    "who": "Der Bäcker|Meine Schwester|Jürgen|Die Königin|Unser Nachbar|Frau Schröder|Ein Fuchs|Das Mädchen|Niemand",
    "does": "sucht|findet|kauft|öffnet|zeichnet|verliert|wäscht|holt|bewundert|versteckt",
    "what": "einen Apfel|das schöne Buch|zwölf Häuser|die Tür|ein Pfund Möhren|den grünen Schlüssel|alte Bücher|euch",
    "when": "heute|am Morgen|ohne ein Wort|im Frühling|jeden Tag|zum Glück|hinter dem Haus|vielleicht",
}
_FRENCH = {
    "who": "Le boulanger|Ma sœur|Jean|La reine|Notre voisin|Madame Dubois|Un renard|La jeune fille|Le chien",
    "does": "cherche|trouve|achète|ouvre|dessine|perd|lave|apporte|regarde|montre",
    "what": "une pomme|le beau livre|douze maisons|la porte|un bon vin blanc|les clés|mon jardin|des oiseaux",
    "when": "aujourd'hui|le matin|sans un mot|au printemps|chaque jour|derrière la maison|peut-être|souvent",
}
_SPANISH = {
    "who": "El panadero|Mi hermana|Jorge|La reina|Nuestro vecino|La señora Gómez|Un zorro|La muchacha|Nadie",
    "does": "busca|encuentra|compra|abre|dibuja|pierde|lava|trae|mira|muestra",
    "what": "una manzana|el libro viejo|doce casas|la puerta|un kilo de arroz|las llaves|mi jardín|los pájaros",
    "when": "hoy|por la mañana|sin decir nada|en primavera|todos los días|detrás de la casa|quizás|despacio",
}
_ITALIAN = {
    "who": "Il fornaio|Mia sorella|Giorgio|La regina|Il nostro vicino|La signora Bianchi|Una volpe|La ragazza|Nessuno",
    "does": "cerca|trova|compra|apre|disegna|perde|lava|porta|guarda|mostra",
    "what": "una mela|il libro vecchio|dodici case|la porta|un chilo di riso|le chiavi|il giardino|gli uccelli",
    "when": "oggi|di mattina|senza una parola|in primavera|ogni giorno|dietro la casa|forse|lentamente",
}
_FOREIGN_SENTENCES = (
    "{who} {does} {what} {when}.",
    "{who} {does} {what}, {who} {does} {what}.",
    "{who} {does} {what}!",
)
_KNOWN = {
    "en": (_ENGLISH_SENTENCES, _ENGLISH),
    "de": (_FOREIGN_SENTENCES, _GERMAN),
    "fr": (_FOREIGN_SENTENCES, _FRENCH),
    "es": (_FOREIGN_SENTENCES, _SPANISH),
    "it": (_FOREIGN_SENTENCES, _ITALIAN),
}


def sentence(rng: np.random.Generator, language: str = "en", held_out: bool = False) -> str:
    """A sentence, grammatical but of no sense, in one of LANGUAGES. Held-out ones never come up among the others."""
    forms, words = _KNOWN[language]

    def one(choices: Sequence[str]) -> str:
        return choices[int(rng.integers(len(choices)))]

    while True:
        text = re.sub(r"\{(\w+)\}", lambda slot: one(words[slot[1]].split("|")), one(forms))
        text = text[0].upper() + text[1:]
        if (zlib.crc32(text.encode()) % _HELD_OUT == 0) == held_out:
            return text
