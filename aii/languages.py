"""The languages that Whisper knows, in the order of their tokens, and names for finding them."""

from __future__ import annotations

from aii.errors import InputError

# Code and English name. The order is that of the tokens in OpenAI's checkpoints and must stay;
# models before large-v3 know all but the last.
_TABLE = """
    en english, zh chinese, de german, es spanish, ru russian, ko korean, fr french, ja japanese,
    pt portuguese, tr turkish, pl polish, ca catalan, nl dutch, ar arabic, sv swedish, it italian,
    id indonesian, hi hindi, fi finnish, vi vietnamese, he hebrew, uk ukrainian, el greek,
    ms malay, cs czech, ro romanian, da danish, hu hungarian, ta tamil, no norwegian, th thai,
    ur urdu, hr croatian, bg bulgarian, lt lithuanian, la latin, mi maori, ml malayalam, cy welsh,
    sk slovak, te telugu, fa persian, lv latvian, bn bengali, sr serbian, az azerbaijani,
    sl slovenian, kn kannada, et estonian, mk macedonian, br breton, eu basque, is icelandic,
    hy armenian, ne nepali, mn mongolian, bs bosnian, kk kazakh, sq albanian, sw swahili,
    gl galician, mr marathi, pa punjabi, si sinhala, km khmer, sn shona, yo yoruba, so somali,
    af afrikaans, oc occitan, ka georgian, be belarusian, tg tajik, sd sindhi, gu gujarati,
    am amharic, yi yiddish, lo lao, uz uzbek, fo faroese, ht haitian creole, ps pashto,
    tk turkmen, nn nynorsk, mt maltese, sa sanskrit, lb luxembourgish, my myanmar, bo tibetan,
    tl tagalog, mg malagasy, as assamese, tt tatar, haw hawaiian, ln lingala, ha hausa,
    ba bashkir, jw javanese, su sundanese, yue cantonese
"""

# Other names that people use.
_ALIASES = """
    my burmese, ca valencian, nl flemish, ht haitian, lb letzeburgesch, ps pushto, pa panjabi,
    ro moldavian, ro moldovan, si sinhalese, es castilian, zh mandarin
"""


def _rows(table: str) -> list[tuple[str, str]]:
    rows = (row.split(maxsplit=1) for row in table.split(","))
    return [(code, name.rstrip()) for code, name in rows]


LANGUAGES: dict[str, str] = dict(_rows(_TABLE))
"""English name of each language by its code, in the order of their tokens."""

TO_LANGUAGE_CODE: dict[str, str] = {name: code for code, name in (*_rows(_TABLE), *_rows(_ALIASES))}
"""Code of each language by its English names."""

WITHOUT_SPACES = frozenset(("zh", "ja", "th", "lo", "my", "yue"))
"""Languages usually written without spaces between words."""


def language_code(language: str) -> str:
    """Whisper's code of a language given by code, English name or alias, in any case.

    Raises:
        InputError: Whisper knows no such language.
    """
    name = language.lower()
    if name in LANGUAGES:
        return name
    try:
        return TO_LANGUAGE_CODE[name]
    except KeyError:
        raise InputError(
            f"language {language!r} is unknown; give a code such as en or its English name"
        ) from None
