"""Code inside a question: parts whose letter case is part of a notation, and words that name things in programs.

An uncased embedder gives `getValue` and `getvalue`, `./Build` and `./build`, `None` and `none` a cosine of 1. What is
looked for here is told by its form (a path, a call, a dotted name, an escape, a variable of the shell), never by its
case alone: `JavaScript`, `YouTube` and `iPhone` are written in any case and mean the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final

from aicache._guards._base import word_set
from aicache._guards._lexicon import FUNCTION_WORDS

__all__ = ["CODE_WORDS", "about_code", "verbatim", "writes_small"]

_QUOTED: Final = re.compile(
    r"""(?<!\S)--?[A-Za-z][\w-]*        # a flag
      | (?<![A-Za-z0-9])[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+  # snake_case
      | `[^`]{1,200}` | "[^"]{1,200}" | “[^”]{1,200}” | «[^»]{1,200}» | „[^“”]{1,200}[“”]
      | (?<!\w)'[^']{1,200}'(?!\w) | (?<!\w)‘[^’]{1,200}’(?!\w)""",
    re.VERBOSE,
)

_EXTENSIONS: Final = (
    "py|pyi|ipynb|js|jsx|mjs|ts|tsx|java|kt|rs|go|rb|php|pl|cs|cpp|cc|c|h|hpp|swift|scala|sh|bash|zsh|ps1|bat|sql|r|m"
    "|html?|css|scss|vue|json|ya?ml|toml|xml|csv|tsv|txt|md|rst|ini|cfg|conf|env|lock|log|zip|tar|gz|jar|dll|exe|so"
)
_FOLDERS: Final = "src|lib|bin|app|apps|pkg|cmd|tests?|dist|build|docs?|home|usr|etc|var|tmp|opt|public|static|assets"

_CODE: Final = re.compile(
    rf"""
      (?P<escape> \S{{0,40}}\\[A-Za-z]\S{{0,80}} )                                # \d+\s, C:\Temp
    | (?P<shell>  \$\{{?[A-Za-z_]\w*\}}? | %[A-Za-z_]\w*%(?!\w) )       # $HOME, ${{HOME}}, %TEMP%
    | (?P<url>    https?://\S+ )
    | (?P<mail>   (?<![\w.+-]) [\w.+-]+@[\w-]+\.[\w.-]+ )
    | (?P<path>   (?<![\w/.]) (?: ~/ | \.{{1,2}}/ | /(?=\w+[/.]) | (?i:{_FOLDERS})/ ) [\w./@+-]*\w
                | (?<![\w/.]) /(?i:{_FOLDERS}) \b
                | (?<![\w/.-]) [\w-][\w.-]* (?: /[\w.-]+ )+ \. (?i:{_EXTENSIONS}) \b
                | (?<!\S) \*\.\w+ )
    | (?P<dotted> (?<![\w.@]) [^\W\d]\w* (?: \.[^\W\d]\w* )+ (?!\w) )
    | (?P<call>   (?<!\w) [^\W\d]\w* (?= \( (?! (?:s|es|ed|ing|n)\) ) | \[ | :: | -> ) )
    | (?P<member> (?<= ::|-> ) [^\W\d]\w* )
    | (?P<range>  \[ [^\]\[\s]{{0,40}} \w-\w [^\]\[\s]{{0,40}} \] )                   # [A-Z0-9]
    | (?P<tag>    </? [A-Za-z][\w.-]* )
    | (?P<side>   (?<![\w=]) [^\W\d]\w* (?= \s?(?:===?|!==?|:=|\+=|-=|=>|&&|\|\|) | =(?=\w) )
                | (?: (?<= ==|!=|:=|=>|&&|\w= ) | (?<= [=!>:]=\s|=>\s|&&\s ) | (?<= \w\s=\s ) ) [^\W\d]\w* )
    | (?P<table>  (?: (?<= FROM\s|JOIN\s|INTO\s ) | (?<= TABLE\s|WHERE\s ) | (?<= SELECT\s ) ) (?![A-Z]+\b) \w+ )
    | (?P<camel>  (?<![\w.]) [a-z]{{2,}} [A-Z] \w* )                    # getValue, but not iPhone or eBay
    """,
    re.VERBOSE,
)
# Each sign begins with one character of a class, which the search looks for fast.
_QUOTED_SIGNS: Final = re.compile(r"""[`"“«„'‘_-](?<!\w['-])""")
"""What every part that `_QUOTED` finds has; most questions have none and are not searched."""
_SIGNS: Final = re.compile(
    r"""[\\/(\[<=$%.:>&|A-Z]
    (?: (?<=[\\/(\[<=]) | (?<=[$%])[A-Za-z_{] | (?<=\.)\w | (?<=::|->|&&|\|\|)
      | (?<=[a-z]{2}[A-Z]) | (?<=FROM|JOIN|INTO)[ ] | (?<=WHERE|TABLE)[ ] | (?<=SELECT)[ ] )""",
    re.VERBOSE,
)
"""The same for `_CODE`."""

_CAMEL_NAMES: Final = word_set("macos watchos tvos ipados")
_NODE_NAMES: Final = word_set(
    "node next vue react express three d nuxt angular ember backbone chart discord socket moment p nest alpine ext"
)
"""Names of products that end in `.js`."""
_DOMAINS: Final = word_set("com org net edu gov io ai co uk de fr es it eu us app dev info me tv in ca")
_TITLES: Final = word_set("mr mrs ms dr st no vs prof etc ph fig inc ltd")


def verbatim(text: str) -> tuple[str, ...]:
    """The parts in which case is part of a notation: flags, `snake_case`, quoted text, code."""
    quoted = tuple(_QUOTED.findall(text)) if _QUOTED_SIGNS.search(text) else ()
    return (*quoted, *_code(text)) if _SIGNS.search(text) else quoted


def _code(text: str) -> Iterator[str]:
    for found in _CODE.finditer(text):
        kind, part = found.lastgroup or "", found.group()
        match kind:
            case "mail":
                continue
            case "url":
                _, _, path = part.partition("://")[2].partition("/")  # A host is the same in any case.
                part = path.rstrip(".,;:!?)\"'")
            case "escape":
                part = part.rstrip(".,;:!?\"'")
            case "dotted" if not _is_dotted_name(part):
                continue
            case "camel" if part.lower() in _CAMEL_NAMES:
                continue
        if part:
            yield part


def _is_dotted_name(part: str) -> bool:
    """Whether `a.b` is a name in a program or a file, and no host, abbreviation or sentence without a blank."""
    pieces = part.lower().split(".")
    if pieces[-1] in _DOMAINS or all(len(piece) <= 2 for piece in pieces):
        return False
    if pieces[-1] == "js" and pieces[0] in _NODE_NAMES:
        return False
    return pieces[0] not in _TITLES and FUNCTION_WORDS.isdisjoint(pieces)


CODE_WORDS: Final = word_set(
    """
    none true false null nil nan list dict tuple set string str int integer float double char boolean bool object array
    map any optional union promise self this class function number date error exception some ok err box vec option
    result maybe just nothing event enum void long short byte iterator iterable generator callable type record partial
    pick button input form label image link component fragment
    """
)
"""Words that name one thing with a capital and another without in some programming language."""

_ABOUT_CODE: Final = word_set(
    """
    python java javascript js typescript ts ruby rust golang php perl kotlin scala swift bash powershell haskell sql
    react vue angular django flask numpy pandas jsx html css json regex typing function functions variable variables
    compiler enum struct boolean tuple tuples array arrays dict api async lambda constructor decorator pointer pointers
    programming typeerror interpreter
    """
)

_PROPER: Final = word_set(
    """
    python java javascript typescript ruby rust golang php perl kotlin scala haskell django pandas numpy linux
    windows ubuntu monday tuesday wednesday thursday friday saturday sunday
    """
)
"""Names that whoever uses capitals writes with one."""


def about_code(words: Collection[str]) -> bool:
    """Whether a text's words, in lower case, speak of a program."""
    return not _ABOUT_CODE.isdisjoint(words)


def writes_small(text: str, words: Collection[str]) -> bool:
    """Whether the writer leaves capitals out: there is none, where `I` or the name of a language wants one."""
    return text == text.lower() and ("i" in words or not _PROPER.isdisjoint(words))
