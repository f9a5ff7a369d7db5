"""What holds for every pair of texts and every list of candidates."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from aicache._guards import DEFAULT_GUARDS, parse
from aicache._match import Accept, Reject, StaticMatcher, Verdict
from aicache._model import Answer, CacheKey, Candidate, Entry, MissReason, Partition

VOCABULARY = """
    how do I the my a not can't never buy sell from to Paris London paris london red blue Monday friday before after
    and or between vs than 1 2 two twenty five hundred 1,000 5kg $100 50% utf8 main.py == ++ i++ v1.2.3 card pay first
    this next week usd euros wie ist nicht das U.S. US United States mother . ?
    it IT It Polish polish x X -r -R Mb MB mw MW "a" "A" año ano But without unpaid paid C++ C#
    only all some most every always usually at least exactly over under did will should can must need have been by by
    until -10 vitamin C D order orders getValue getvalue ./Build ./build None none $HOME $home \\d \\D a.b A.b f(x) F(x)
    but if me we us follow charged out of overpaid underpaid already about OK
    SELECT FROM Users users List list = [A-Z] [a-z] <Tag> <tag>
"""
WORDS = st.sampled_from(VOCABULARY.split())
SENTENCES = st.lists(WORDS, max_size=12).map(" ".join)
TEXTS = st.one_of(SENTENCES, st.text(max_size=60))
PARTITION = Partition(b"p", b"n", b"t", b"m")


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, str]:
    """Two texts, often a few words apart, for that is what an embedder finds near."""
    words = draw(st.lists(WORDS, min_size=1, max_size=10))
    other = list(words)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(other) - 1)))
        other[at : at + draw(st.integers(0, 1))] = draw(st.lists(WORDS, max_size=2))
    return " ".join(words), " ".join(draw(st.permutations(other)) if draw(st.booleans()) else other)


@settings(deadline=None, max_examples=300)
@given(TEXTS)
def test_no_text_conflicts_with_itself(text: str) -> None:
    first, second = parse(text), parse(f"  {text}\n")
    assert first == second
    assert [guard.conflict(first, second) for guard in DEFAULT_GUARDS] == [None] * len(DEFAULT_GUARDS)


@settings(deadline=None, max_examples=500)
@given(st.one_of(pairs(), st.tuples(TEXTS, TEXTS)))
def test_every_guard_is_symmetric(texts: tuple[str, str]) -> None:
    a, b = parse(texts[0]), parse(texts[1])
    for guard in DEFAULT_GUARDS:
        assert (guard.conflict(a, b) is None) == (guard.conflict(b, a) is None), guard.name


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_two_whole_numbers_conflict_exactly_when_they_differ_however_they_are_grouped(a: int, b: int) -> None:
    left, right = parse(f"pay {a} now"), parse(f"pay {b:,} now")
    assert (DEFAULT_GUARDS[0].conflict(left, right) is None) == (a == b)


ENTRIES = st.builds(
    lambda query, answer: Entry(CacheKey(PARTITION, query.encode("utf-8", "replace")), query, Answer(b"", answer), 0.0),
    TEXTS,
    st.sampled_from([b"a", b"b", b"c"]),
)
CANDIDATES = st.lists(
    st.builds(Candidate, ENTRIES, st.one_of(st.floats(-1, 1), st.sampled_from([0.9, 0.95, 0.97, 0.99, 1.0]))),
    max_size=6,
).map(lambda found: sorted(found, key=lambda candidate: -candidate.score))
MATCHERS = st.builds(StaticMatcher, st.sampled_from([0.5, 0.9, 0.97, 1.0]), st.sampled_from([0.0, 0.05, 0.1]))


@settings(deadline=None, max_examples=300)
@given(MATCHERS, TEXTS, CANDIDATES)
def test_decide_follows_from_explain(matcher: StaticMatcher, text: str, candidates: list[Candidate]) -> None:
    judgements = matcher.explain(text, candidates)
    assert len(judgements) == len(candidates)
    deciding = next((one for one in judgements if one.verdict is not Verdict.GUARDED), None)
    decision = matcher.decide(text, candidates)
    if deciding is not None and deciding.verdict in {Verdict.IDENTICAL, Verdict.CLEAR}:
        assert decision == Accept(deciding.candidate)
    else:
        assert isinstance(decision, Reject)
        if not candidates:
            assert decision.reason is MissReason.ABSENT
        elif deciding is not None and deciding.verdict is Verdict.AMBIGUOUS:
            assert decision.reason is MissReason.AMBIGUOUS
        else:
            assert decision.reason.value == judgements[0].verdict.value


@settings(deadline=None, max_examples=300)
@given(MATCHERS, TEXTS, CANDIDATES)
def test_what_is_accepted_is_identical_or_near_and_free_of_conflicts(
    matcher: StaticMatcher, text: str, candidates: list[Candidate]
) -> None:
    decision = matcher.decide(text, candidates)
    if isinstance(decision, Accept):
        accepted = decision.candidate
        a, b = parse(text), parse(accepted.entry.query)
        near = accepted.score >= matcher.threshold - 1e-6
        clean = all(guard.conflict(a, b) is None for guard in DEFAULT_GUARDS)
        assert a.text == b.text or (near and clean)


@settings(deadline=None, max_examples=200)
@given(TEXTS, CANDIDATES, st.sampled_from([0.5, 0.9]), st.sampled_from([0.0, 0.05]))
def test_a_higher_threshold_or_margin_never_turns_a_miss_into_a_hit(
    text: str, candidates: list[Candidate], threshold: float, margin: float
) -> None:
    if isinstance(StaticMatcher(threshold, margin).decide(text, candidates), Reject):
        assert isinstance(StaticMatcher(threshold + 0.07, margin).decide(text, candidates), Reject)
        assert isinstance(StaticMatcher(threshold, margin + 0.05).decide(text, candidates), Reject)
