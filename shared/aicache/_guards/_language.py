"""Is this English? Cheap, by script and by the commonest words, so that English lists never misfire elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aicache._guards._base import word_set

__all__ = ["FOREIGN_NEGATIONS", "looks_english"]

_ENGLISH: Final = word_set(
    """
    the a an is are was were be do does did have has had of to in on at for from with and or but not this that these
    what where who when why how which can could will would should i my me you your we our it its he she they if
    there please get need want about by as
    """
)

_FOREIGN: Final = (
    word_set(
        """
    der das und nicht ist ich mein meine wie wo warum kann kannst ein eine einen den dem zu für mit auf im von wer wann
    le les des une est pas je mon ma mes vous nous comment pourquoi où qui que quel quelle dans pour avec sur du au
    el los las es una mi cómo como por qué dónde cuál para con del quiero puedo
    il lo gli della dello che perché dove sono mio come di per
    o os uma meu minha não onde por quê porque eu posso em da
    het een ik mijn hoe waar waarom niet en van voor met kan
    jag inte och är hur det att som på
    jeg ikke og hvordan
    nie jak jest czy gdzie
    bir ve için nasıl
    """
    )
    - _ENGLISH
)

FOREIGN_NEGATIONS: Final = word_set(
    """
    nicht kein keine keinen nie niemals ohne pas jamais sans aucun aucune non senza mai nunca sin não nao sem niet geen
    nooit zonder inte aldrig utan ikke aldri uten не нет без никогда ні немає
    """
)
"""Words of other languages that turn a sentence round and do nothing else. English `no` is left out: `no` is
also Spanish, and a text without other English words says which one it is."""

_LAST_LATIN: Final = "\u024f"
"""The last letter of the Latin script in the Basic Multilingual Plane's first blocks."""


def looks_english(words: Sequence[str]) -> bool:
    """True unless the words are in another script or show more common words of other languages than English ones.

    Text without any telling word (`reset password`) counts as English when it is plain ASCII.
    """
    if _FOREIGN.isdisjoint(words) and all(map(str.isascii, words)):
        return True
    english = foreign = strange = 0
    for word in words:
        if word in _ENGLISH:
            english += 1
        elif word in _FOREIGN:
            foreign += 1
        elif not word.isascii():
            strange += 2 if word > _LAST_LATIN else 1
    if strange > english and strange * 2 > len(words):
        return False
    return english > foreign or (foreign == 0 and (english > 0 or strange == 0))
