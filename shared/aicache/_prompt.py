"""A prompt, split into the words matched by meaning and all the rest, which must be equal.

The split is sound whatever is chosen as the question: `frame` holds every other character of the conversation and the
place of the hole, so `frame` and `text` together give the conversation back. Where the question stands is therefore a
matter of hit rate and of what "by meaning" is applied to, and the rule is: unclear means exact matching.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple, TypeAlias

import orjson

from aicache._model import ExactOnly, Extractor, Prompt, Query, Turn

__all__ = ["MAX_CHARS", "MAX_LINES", "MAX_STATEMENT", "SCANNED", "is_labelled", "split"]

MAX_CHARS: Final = 600
"""Longest question, in characters. The longest of 13,083 Banking77 questions has 433; 600 characters are about 150
tokens, which every sentence embedder takes. What is longer nearly always carries material."""
MAX_LINES: Final = 8
"""Most lines with text in a last turn taken as a whole: greeting, a few sentences, signature; more is material."""

MAX_STATEMENT: Final = 60
"""Longest statement, in characters, that may stand beside a question: about ten words, which say what happened to the
asker ("I ordered two weeks ago."). Terms and facts that a template hands over take more."""
SCANNED: Final = 12_000
"""Longest text that is looked at as a whole. Of a longer one the two ends are read, so that time stays bounded."""
_END: Final = 5_000
"""Characters read at each end of a longer text."""

_HUMAN: Final = frozenset({"human", "user"})

Span: TypeAlias = tuple[int, int]


def split(prompt: Prompt, *, question: Extractor | None) -> Query:
    """The query of a prompt: its question, and the frame around it.

    A query that is exact only has the text "": everything stands in the frame.

    Args:
        prompt: what an adapter hands over.
        question: the user's extractor. It gets the turns and returns a part of the last turn's text that occurs there
            exactly once, or None; anything else, an exception included, means exact matching.
    """
    return replace(_split(prompt, question), model_name=prompt.model_name)


def _split(prompt: Prompt, question: Extractor | None) -> Query:
    if prompt.template is not None and prompt.query is not None:
        return _from_template(prompt, prompt.template, prompt.query)
    turns = prompt.turns
    place = _place(prompt.kind, turns, question)
    if isinstance(place, ExactOnly):
        return Query(prompt.kind, "", _frame(turns, None), prompt.model, place)
    text = (turns[-1].text or "")[place[0] : place[1]]
    return Query(prompt.kind, text, _frame(turns, place), prompt.model)


def _from_template(prompt: Prompt, template: bytes, question: str) -> Query:
    if question.strip() and _is_unicode(question):
        frame = b'["template"]' + template
        return Query(prompt.kind, question, frame, prompt.model)
    frame = _dump(["template", question]) + template
    return Query(prompt.kind, "", frame, prompt.model, ExactOnly.NO_QUESTION)


def _place(kind: str, turns: Sequence[Turn], extractor: Extractor | None) -> Span | ExactOnly:
    """Where in the last turn's text the question stands."""
    if not turns:
        return ExactOnly.NO_QUESTION
    last = turns[-1]
    if last.role not in _HUMAN:
        return ExactOnly.NOT_HUMAN
    if last.text is None:
        return ExactOnly.NOT_TEXT
    place = _find(last.text, plain=kind.endswith("text")) if extractor is None else _asked(extractor, turns, last.text)
    # Embedders and stores take Unicode text only.
    if not isinstance(place, ExactOnly) and not _is_unicode(last.text[place[0] : place[1]]):
        return ExactOnly.NOT_TEXT
    return place


def _asked(extractor: Extractor, turns: Sequence[Turn], text: str) -> Span | ExactOnly:
    try:
        found = extractor(turns)
    except Exception:  # noqa: BLE001 - the user's function may fail in any way; the prompt is then matched exactly.
        return ExactOnly.BAD_QUESTION
    if found is None:
        return ExactOnly.NO_QUESTION
    if not isinstance(found, str) or not found.strip():
        return ExactOnly.BAD_QUESTION
    start = text.find(found)
    if start < 0 or text.find(found, start + 1) >= 0:
        return ExactOnly.BAD_QUESTION
    return start, start + len(found)


def _is_unicode(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


# ------------------------------------------------------------------------------------------------ the frame


def _frame(turns: Sequence[Turn], hole: Span | None) -> bytes:
    """A JSON list of the turns, then their extras one after the other.

    JSON ends where its bracket closes and the extras' lengths stand in it, so the bytes can be read in one way only.
    The hole is a pair [before, after] where a turn without one has a string.
    """
    rows: list[list[object]] = [[turn.role, turn.text, len(turn.extra)] for turn in turns]
    if hole is not None:
        text = turns[-1].text or ""
        rows[-1][1] = [text[: hole[0]], text[hole[1] :]]
    return _dump(rows) + b"".join([turn.extra for turn in turns])


def _dump(value: Sequence[object]) -> bytes:
    try:
        # Copied to its size: orjson's own bytes keep the buffer they grew in.
        return bytes(memoryview(orjson.dumps(value)))
    except TypeError:  # lone surrogates
        return json.dumps(value, separators=(",", ":")).encode()


# -------------------------------------------------------------------------------------------- the question
#
# Text is scanned once for marks: lines that begin with a label (`Question:`, `**Query:**`, `## Question`), a section
# (`Context:`), a speaker (`Human:`), or that are a ruler. The label sets are those of the stock templates of LangChain
# and LlamaIndex and their usual variations.

_QUESTIONS: Final = (
    r"(?:(?:the|my|user|user's|users|customer|current|new|next|latest|last|final|actual|original|input|search)[ ])*"
    r"(?:question|query)|q|user[ ]input|follow[- ]?up[ ](?:input|question|message)"
    r"|the[ ]original[ ](?:question|query)[ ]is[ ]as[ ]follows|quick[ ]question"
    r"|(?:aktuelle[ ]|neue[ ]|ihre[ ]|meine[ ])?(?:nutzer|kunden|benutzer|anschluss)?frage"
    r"|(?:nouvelle[ ]|ma[ ]|votre[ ])?question(?:[ ](?:de[ ]l['’]utilisateur|du[ ]client|actuelle|suivante))?"
    r"|(?:nueva[ ]|mi[ ]|su[ ])?(?:pregunta|consulta)(?:[ ](?:del[ ](?:usuario|cliente)|actual|siguiente))?"
    r"|domanda|pergunta|vraag"
)
_SECTIONS: Final = (
    r"(?:(?:the|new|more|additional|retrieved|relevant|given|provided|chat|conversation|previous|prior|original"
    r"|existing|search)[ ])*"
    r"(?:contexts?|context[ ]information[^\n:]{0,60}|history|conversation|documents?|docs|passages?|sources?|snippets?"
    r"|articles?|texts?|facts?|background|information|results?|schema|tables?|examples?|instructions?|input|data"
    r"|code|content|knowledge|notes?|references?|excerpts?|transcript|e-?mail|message)"
    r"|(?:original|existing|previous|prior)[ ]answer|we[ ]have[ ]provided[ ]an[ ]existing[ ]answer"
    r"|conditions?|terms|polic(?:y|ies)|rules"
    r"|kontext|verlauf|gesprächsverlauf|dokumente?|informationen|hintergrund|bedingungen|auszüge?|quellen?|beispiele?"
    r"|contexte|historique|informations|extraits?|exemples?|contexto|historial|documentos?|información|fragmentos?"
    r"|ejemplos?|condiciones|contesto|documenti|informações|achtergrond"
)
_REPLIES: Final = (
    r"(?:(?:helpful|final|new|refined|short|correct|your|the)[ ])*answer|a|response|output|summary"
    r"|thought|observation|action|action[ ]input|sql[ ]?query|sql[ ]?result|standalone[ ]question"
    r"|antwort|réponse|respuesta|risposta|resposta|antwoord"
)
_SPEAKERS: Final = r"human|user|customer|ai|assistant|bot|system|agent|tool|function"


def _labels(group: str, names: str) -> str:
    return (
        rf"[*_]{{0,3}}(?P<{group}>{names})[*_]{{0,3}}[ \t\u00a0\u202f]*:[*_]{{0,3}}"
        rf"|(?:\#{{1,6}}[ \t]*[*_]{{0,3}}(?P<{group}_heading>{names})[*_]{{0,3}}[ \t]*:?[ \t]*(?=\n|\Z))"
    )


# The lookahead leaves most lines of prose after one glance for a colon.
_MARK: Final = re.compile(
    r"\n(?=[ \t>]*[#<*_=`~-]|[^\n:]{1,90}:)[ \t>]*(?:(?:\#{1,6}[ \t]*)?(?:"
    + "|".join(
        (
            _labels("question", _QUESTIONS),
            _labels("section", _SECTIONS),
            _labels("reply", _REPLIES),
            _labels("speaker", _SPEAKERS),
        )
    )
    + r")|<(?P<question_tag>follow[ ]up[ ](?:message|question|input))>[ \t]*(?=\n)"
    r"|(?P<section_ruler>[-=_*]{5,}|```|~~~|<(?:context|documents?|doc|passages?|sources?|history|chat[ ]history)\b))",
    re.IGNORECASE,
)
_OPENING: Final = re.compile(r"<(?:(?:user[_-])?(?:question|query)|user[_-]input)>", re.IGNORECASE)
_TAGGED: Final = re.compile(
    r"<(?P<tag>(?:user[_-])?(?:question|query)|user[_-]input)>(?P<text>.{0,1000}?)</(?P=tag)>",
    re.IGNORECASE | re.DOTALL,
)
_CUE: Final = re.compile(
    # What may follow the last question: nothing, or a place for the answer (`Helpful Answer:`, `SQLQuery: `, `AI:`).
    r"(?:[^\W\d]?[A-Za-z*_#][^\n:]{0,60}:[\s*_\"'`]*(?:let'?s think step by step[.:]?)?"
    r"|<[^<>\n/]{1,40}>|\#{1,6}[^\n:#]{1,40})?",
    re.IGNORECASE,
)
_ANSWERER: Final = re.compile(r"[ \t]*(?:ai|assistant|bot|agent)[ \t]*:", re.IGNORECASE)


class _Mark(NamedTuple):
    kind: str
    """`question`, `section` (material), `reply` or `speaker`."""
    name: str
    start: int
    """Where its line begins."""
    end: int
    """Where the label ends."""


def _find(text: str, *, plain: bool) -> Span | ExactOnly:
    """The span of the question in a text; `plain` for a prompt without turns, which may be a transcript."""
    if len(text) <= MAX_CHARS and _PLAIN.fullmatch(text):
        return 0, len(text)
    if len(text) > SCANNED:
        return _find_in_long(text, plain=plain)
    if not text.strip():
        return ExactOnly.NO_QUESTION
    marks = _marks(text)
    turn = _last_turn(text, marks, plain=plain)
    if isinstance(turn, ExactOnly):
        return turn
    if turn is not None:
        inner = _find(text[turn[0] : turn[1]], plain=False)
        return inner if isinstance(inner, ExactOnly) else (turn[0] + inner[0], turn[0] + inner[1])
    labelled = _labelled(text, marks)
    if labelled is not None:
        return labelled
    return ExactOnly.NO_QUESTION if _holds_material(text, marks) else (0, len(text))


def _find_in_long(text: str, *, plain: bool) -> Span | ExactOnly:
    """The same for a text of which the two ends alone are read: a question with a label in the last lines, or none."""
    head = text[:_END]
    cut = text.find("\n", len(text) - _END)
    if cut < 0:
        return ExactOnly.NO_QUESTION
    place = _find(head + text[cut:], plain=plain)
    if isinstance(place, ExactOnly):
        return place
    shift = cut - len(head)
    return (place[0] + shift, place[1] + shift) if place[0] > len(head) else ExactOnly.NO_QUESTION


def is_labelled(text: str) -> bool:
    """Whether the text is nothing but one labelled question (`Question: ...`)."""
    text = text.lstrip()
    if len(text) > 2 * MAX_CHARS:
        return False
    marks = _marks(text)
    return (
        bool(marks)
        and (marks[0].kind, marks[0].start) == ("question", 0)
        and sum(mark.kind != "reply" for mark in marks) == 1
        and isinstance(_labelled(text, marks), tuple)
    )


# One sentence on one line without a sign of structure: most questions, told apart in under a microsecond.
_PLAIN: Final = re.compile(
    r"[^\n:：<{\[#`|~.!?…。！？]*[^\s:：<{\[#`|~.!?…。！？][^\n:：<{\[#`|~.!?…。！？]*[.!?…。！？]*[ \t]*"
)


def _marks(text: str) -> list[_Mark]:
    found = []
    for match in _MARK.finditer("\n" + text):
        group = match.lastgroup or ""
        name = " ".join(match[group].lower().split())
        found.append(_Mark(group.partition("_")[0], name, match.start(), match.end() - 1))
    return found


def _last_turn(text: str, marks: Sequence[_Mark], *, plain: bool) -> Span | ExactOnly | None:
    """What the human said last, if the text is a transcript ("System: ...\\nHuman: ...\\nAI:").

    A transcript begins with a speaker (only where the prompt has no turns: a user may paste one), or ends with the
    place for the AI's words.
    """
    speakers = [mark for mark in marks if mark.kind == "speaker"]
    bare = text.rstrip()
    cue = bare.rfind("\n") + 1
    asked = cue > 0 and _ANSWERER.fullmatch(bare, cue) is not None
    if not speakers or not (asked or (plain and speakers[0].start == 0)):
        return None
    end = len(text)
    if asked:
        end = cue - 1
        speakers = [mark for mark in speakers if mark.start < end]
    if not speakers or speakers[-1].name not in {"human", "user", "customer"}:
        return ExactOnly.NOT_HUMAN
    start = _skip_blanks(text, speakers[-1].end, end)
    return start, end


def _labelled(text: str, marks: Sequence[_Mark]) -> Span | ExactOnly | None:
    """The labelled question; None if there is no label, NO_QUESTION if it is unclear which one, or where it ends."""
    questions = [index for index, mark in enumerate(marks) if mark.kind == "question"]
    if "</" in text and (opening := _OPENING.search(text)) is not None:
        tagged = None if _OPENING.search(text, opening.end()) else _TAGGED.match(text, opening.start())
        if tagged is not None:
            return ExactOnly.NO_QUESTION if questions else _short(text, tagged.span("text"))
        return ExactOnly.NO_QUESTION
    if not questions:
        return None
    last = questions[-1]
    line = _line_of(text, marks[last])
    if line is None:
        return ExactOnly.NO_QUESTION
    tail = text[line[1] :].strip()
    if len(tail) <= 120 and _CUE.fullmatch(tail):  # the longest match of the pattern has about 100 characters
        return _short(text, line) if _is_last_the_asked(text, marks, questions) else ExactOnly.NO_QUESTION
    if len(questions) == 1 and _leads_to_section(text, marks, last):
        return _short(text, line)  # "Question: ...\nContext: ..."
    return ExactOnly.NO_QUESTION


def _is_last_the_asked(text: str, marks: Sequence[_Mark], questions: Sequence[int]) -> bool:
    """Whether the last of several labelled questions, which ends the text, is the one that is asked.

    The others are examples, or stand in a context before it. Not so where a question comes first and its context
    after it, for then the last one may be a line of that context.
    """
    first, last = questions[0], questions[-1]
    if any(_leads_to_section(text, marks, index) for index in questions[:-1]):
        return False
    sections = [index for index in range(last) if marks[index].kind == "section"]
    if sections and sections[0] < first:
        return True
    return not sections and all(marks[index].name == marks[last].name for index in questions)


def _leads_to_section(text: str, marks: Sequence[_Mark], question: int) -> bool:
    """Whether nothing stands between this question's line and a section."""
    line = _line_of(text, marks[question])
    if line is None or question + 1 == len(marks):
        return False
    following = marks[question + 1]
    between = text[line[1] : following.start]
    return following.kind == "section" and following.start >= line[1] and not between.strip()


def _line_of(text: str, label: _Mark) -> Span | None:
    """The one line a label is about: its own, or the next where the label stands alone.

    A second line could be the question's or an instruction's; nothing tells, so a label with two lines is unclear.
    """
    start = label.end
    end = _end_of_line(text, start)
    if not text[start:end].strip():
        start = end + 1
        end = _end_of_line(text, start)
    start = _skip_blanks(text, start, end)
    line = text[start:end].rstrip("* _\t\r")
    return (start, end) if line and not line.endswith(":") else None


def _holds_material(text: str, marks: Sequence[_Mark]) -> bool:
    """Whether more than a question stands in the text: too long, or with signs of structure."""
    if len(text) > MAX_CHARS or sum(1 for line in text.split("\n") if line.strip()) > MAX_LINES:
        return True
    if any(mark.kind in {"section", "reply"} for mark in marks) or sum(mark.kind == "speaker" for mark in marks) > 1:
        return True
    bare = text.strip()
    if "```" in text or "</" in text or (bare[0] in "{[" and bare[-1] in "}]"):
        return True
    return _LABEL.search(text) is not None or _tells(bare)


# Any words and a colon before more words, where a line or a sentence begins: `Conditions: labour is covered`.
_LABEL: Final = re.compile(r"(?:^|[.?!]\s)[ \t>]*[^\s:.?!][^\n:：.?!]{0,39}(?::[*_]{0,3}\s+|：\s*)\S", re.MULTILINE)
_SENTENCE: Final = re.compile(
    r"(?:(?<=[.!?…])|(?<=[.!?…][\"'”’»)*\]]))\s+(?<!\b(?:mr|ms|dr|st|vs|nr|no)\.\s)(?<!\b[a-z]\.[a-z]\.\s)"
    r"|(?<=[。！？])\s*|\n+",
    re.IGNORECASE,
)
_ASKING: Final = frozenset("?？؟;")
_PLEASANTRY: Final = re.compile(
    # What people say around a question. Four words at most, so that no fact hides behind a greeting.
    r"(?:hi|hello|hey|dear|good|thanks?|thx|cheers|regards|best|kind|please|help|sorry|hallo|guten|liebe[rs]?|danke|bitte"
    r"|bonjour|salut|merci|bonsoir|hola|buen[oa]s|gracias|ciao|grazie|olá|obrigad[oa])\b(?:\W+\w+){0,3}\W*",
    re.IGNORECASE,
)


_ASKER: Final = re.compile(
    # The asker speaks of himself: what happened to him belongs to the question, and is no fact handed over.
    r"\b(?:i|i['’]?(?:m|ve|d|ll)|my|me|ich|mein\w{0,2}|mir|mich|je|j['’]\w+|mon|mes|yo|mi|mis)\b",
    re.IGNORECASE,
)
_ASKER_STATEMENTS: Final = 3
"""Most statements in the first person; more are a story or a letter that the question is about."""


def _tells(text: str) -> bool:
    """Whether statements stand beside the question that may be what it is asked about.

    One short statement may (`The parcel is late. Where is it?`), and a few in the first person singular. Two others, a
    long one, or a paragraph of its own may be facts, and a question applied to other facts has another answer. Where
    nothing ends in a question mark, the last sentence is what is asked.
    """
    said = [one.strip() for one in _SENTENCE.split(text)]
    said = [one for one in said if one and not _PLEASANTRY.fullmatch(one)]
    stated = [one for one in said if not _ASKING.intersection(one[-3:])]
    if stated and len(stated) == len(said):
        said, stated = said[:-1], stated[:-1]
    foreign = [one for one in stated if not _ASKER.search(one)]
    if len(foreign) > 1 or len(stated) > _ASKER_STATEMENTS or any(len(one) > MAX_STATEMENT for one in foreign):
        return True
    return bool(foreign) and len([one for one in _PARAGRAPH.split(text) if not _PLEASANTRY.fullmatch(one.strip())]) > 1


_PARAGRAPH: Final = re.compile(r"\n[ \t]*\n")


def _short(text: str, span: Span) -> Span | ExactOnly:
    inside = text[span[0] : span[1]]
    return span if inside.strip() and len(inside) <= MAX_CHARS else ExactOnly.NO_QUESTION


def _end_of_line(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def _skip_blanks(text: str, start: int, end: int) -> int:
    while start < end and text[start] in " \t":
        start += 1
    return start
