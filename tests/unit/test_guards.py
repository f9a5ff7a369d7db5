"""Each guard both ways, the language switch, and a corpus of pairs with the levels measured on it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from aicache._guards import Parser
from aicache.guards import (
    DEFAULT_GUARDS,
    ENGLISH_GUARDS,
    NEUTRAL_GUARDS,
    AccentGuard,
    AntonymGuard,
    CaseGuard,
    ClassGuard,
    Conflict,
    CurrencyGuard,
    DirectionGuard,
    Guard,
    IdentifierGuard,
    MoodGuard,
    NameGuard,
    NegationGuard,
    NumberGuard,
    OperatorGuard,
    Parsed,
    PrefixGuard,
    RoleGuard,
    ScopeGuard,
    SwapGuard,
    first_conflict,
    parse,
)

PAIRS = [json.loads(line) for line in (Path(__file__).parent / "guard_pairs.jsonl").read_text("utf-8").splitlines()]


def conflict(guard: Guard, a: str, b: str) -> Conflict | None:
    return guard.conflict(parse(a), parse(b))


CONFLICTS: list[tuple[Guard, str, str]] = [
    (AntonymGuard(), "turn on two-factor login", "turn two-factor login off"),
    (AntonymGuard(), "How do I sign up?", "How do I sign in?"),
    (AntonymGuard(), "check in online", "checking out online"),
    (NumberGuard(), "sales in 2023", "sales in 2024"),
    (NumberGuard(), "send 100 dollars", "send 1000 dollars"),
    (NumberGuard(), "a table for two people", "a table for three people"),
    (NumberGuard(), "my second order", "my third order"),
    (NumberGuard(), "5 kg of rice", "5 lb of rice"),
    (NumberGuard(), "5kg of rice", "5g of rice"),
    (NumberGuard(), "1.5 litres", "15 litres"),
    (NumberGuard(), "meet at 5 pm", "meet at 5 am"),
    (NumberGuard(), "meet at 5:30", "meet at 5:45"),
    (NumberGuard(), "from 3 to 5", "from 5 to 3"),
    (NumberGuard(), "windows 10 support", "windows support"),
    (NumberGuard(), "20% off", "20 off"),
    (NumberGuard(), "wie viel kosten 5 Liter", "wie viel kosten 6 Liter"),
    (NumberGuard(), "有3个苹果", "有5个苹果"),
    (IdentifierGuard(), "read utf8", "read utf16"),
    (IdentifierGuard(), "run main.py", "run test.py"),
    (IdentifierGuard(), "upgrade to v1.2.3", "upgrade to v1.2.4"),
    (IdentifierGuard(), "what does max_tokens do", "what does min_tokens do"),
    (IdentifierGuard(), "mail a@example.org", "mail b@example.org"),
    (IdentifierGuard(), "learn C++", "learn C#"),
    (IdentifierGuard(), "on 2024-01-05", "on 2024-01-06"),
    (IdentifierGuard(), "pass --force", "pass --quiet"),
    (IdentifierGuard(), "the H1B visa", "the L1B visa"),
    (OperatorGuard(), "what does a == b do", "what does a = b do"),
    (OperatorGuard(), "is x < y", "is x > y"),
    (OperatorGuard(), "x + 3 = 7", "x * 3 = 7"),
    (OperatorGuard(), "what is 5 - 3", "what is 5 + 3"),
    (OperatorGuard(), "what is 5 plus 3", "what is 5 minus 3"),
    (CurrencyGuard(), "price in $", "price in €"),
    (CurrencyGuard(), "prix en € ?", "prix en $ ?"),
    (CurrencyGuard(), "change to dollars", "change to euros"),
    (NameGuard(), "flights to Oslo", "flights to Bergen"),
    (NameGuard(), "who founded Apple", "who founded it"),
    (NameGuard(), "ask Maria Smith", "ask Maria Jones"),
    (NameGuard(), "où est Marie", "où est Paul"),
    (NameGuard(), "is the NASA site down", "is the ESA site down"),
    (SwapGuard(), "flights from paris to london", "flights from london to paris"),
    (SwapGuard(), "did Google buy YouTube", "did YouTube buy Google"),
    (SwapGuard(), "why is tea better than coffee", "how is coffee better than tea"),
    (SwapGuard(), "war of cats and dogs, can cats win", "war of cats and dogs, can dogs win"),
    (SwapGuard(), "hund beißt mann", "mann beißt hund"),
    (NegationGuard(), "is it safe", "is it not safe"),
    (NegationGuard(), "tea with sugar", "tea without sugar"),
    (NegationGuard(), "why can I log in", "why can't I log in"),
    (NegationGuard(), "works on phones but not tablets", "works not on phones but tablets"),
    (NegationGuard(), "is it legal", "is it illegal"),
    (NegationGuard(), "ist das sicher", "ist das nicht sicher"),
    (NegationGuard(), "est-ce que je peux payer", "est-ce que je ne peux pas payer"),
    (AntonymGuard(), "should I buy shares", "should I sell shares"),
    (AntonymGuard(), "enabling 2FA", "disabling 2FA"),
    (AntonymGuard(), "eat before the test", "eat after the test"),
    (AntonymGuard(), "imported goods", "exported goods"),
    (AntonymGuard(), "pros and cons of tea", "cons of tea"),
    (AntonymGuard(), "arguments for it", "arguments against it"),
    (ClassGuard(), "open on monday", "open on friday"),
    (ClassGuard(), "flights on monday", "flights"),
    (ClassGuard(), "in may 5", "in march 5"),
    (ClassGuard(), "a gift for my mother", "a gift for my father"),
    (ClassGuard(), "a shirt in blue", "a shirt in green"),
    (ClassGuard(), "say hello in french", "say hello in german"),
    (ClassGuard(), "what is my name", "what is your name"),
    (ClassGuard(), "when did he die", "where did he die"),
    (ClassGuard(), "how many are there", "how long are they"),
    (ClassGuard(), "the weather today", "the weather tomorrow"),
    (ClassGuard(), "events this week", "events next week"),
    (ClassGuard(), "convert miles", "convert kilometers"),
    (DirectionGuard(), "fly from paris to london", "tickets to paris from london"),
    (DirectionGuard(), "convert miles to km", "how do I turn km into miles"),
    (DirectionGuard(), "a visa for Japan as a German", "a visa for Germany as a Japanese"),
    (DirectionGuard(), "transfer money to china", "transfer money from china"),
    (PrefixGuard(), "connect the printer", "disconnect the printer"),
    (PrefixGuard(), "advice for smokers", "advice for nonsmokers"),
    (PrefixGuard(), "a painful treatment", "a painless treatment"),
    (PrefixGuard(), "unlink my phone", "link my phone"),
    (CaseGuard(), "what does ls -r do", "what does ls -R do"),
    (CaseGuard(), "grep -v", "grep -V"),
    (CaseGuard(), "convert between Mb and MB", "convert between MB and MB"),
    (CaseGuard(), "how long do 5 mw last", "how long do 5 MW last"),
    (CaseGuard(), "files of 5 MB", "files of 5 Mb"),
    (CaseGuard(), "how do I use it", "how do I use IT"),
    (CaseGuard(), "HOW DO I USE IT", "how do I use IT"),
    (CaseGuard(), "who", "WHO"),
    (CaseGuard(), "What does who say?", "What does WHO say?"),
    (CaseGuard(), "AIDS for children", "Aids for children"),
    (CaseGuard(), "cost of aids", "cost of AIDS"),
    (CaseGuard(), "contact us", "contact US"),
    (CaseGuard(), "how do I say it in polish", "how do I say it in Polish"),
    (CaseGuard(), "Where can I find polish?", "Where can I find Polish?"),
    (CaseGuard(), "where is turkey", "where is Turkey"),
    (CaseGuard(), "the value of x", "the value of X"),
    (CaseGuard(), "wait 5m", "wait 5M"),
    (CaseGuard(), "count 'abba' in it", "count 'ABBA' in it"),
    (CaseGuard(), "what is `List`", "what is `list`"),
    (CaseGuard(), "set max_size", "set MAX_SIZE"),
    (CaseGuard(), "haben sie am Montag Zeit und Ruhe", "haben Sie am Montag Zeit und Ruhe"),
    (CaseGuard(), "What does obj.getValue() return?", "What does obj.getvalue() return?"),
    (CaseGuard(), "why is getValue slow", "why is getvalue slow"),
    (CaseGuard(), "how do I run ./Build", "how do I run ./build"),
    (CaseGuard(), "cd src/Utils", "cd src/utils"),
    (CaseGuard(), "delete C:\\Temp", "delete C:\\temp"),
    (CaseGuard(), "Why is Main.java not found?", "Why is main.java not found?"),
    (CaseGuard(), "if x is None", "if x is none"),
    (CaseGuard(), "Why does my function return None?", "Why does my function return none?"),
    (CaseGuard(), "What is NaN in JavaScript?", "What is nan in JavaScript?"),
    (CaseGuard(), "import List from typing", "import list from typing"),
    (CaseGuard(), "what is $HOME", "what is $home"),
    (CaseGuard(), "what does \\d+ match", "what does \\D+ match"),
    (CaseGuard(), "what does [A-Z]+ match", "what does [a-z]+ match"),
    (CaseGuard(), "SELECT id FROM Users", "SELECT id FROM users"),
    (CaseGuard(), "use <Button> here", "use <button> here"),
    (CaseGuard(), "what is std::Vector", "what is std::vector"),
    (CaseGuard(), "is key == Null here", "is key == null here"),
    (CaseGuard(), "open https://a.org/Foo", "open https://a.org/foo"),
    (CaseGuard(), "wie schreibe ich getValue", "wie schreibe ich getvalue"),
    (NumberGuard(), "warm at -10 degrees", "warm at 10 degrees"),
    (IdentifierGuard(), "take vitamin c", "take vitamin d"),
    (IdentifierGuard(), "the results of group A", "the results of group B"),
    (DirectionGuard(), "will it arrive by friday", "will it arrive after friday"),
    (ScopeGuard(), "delete all my messages", "delete some of my messages"),
    (ScopeGuard(), "why do most people agree", "why do some people agree"),
    (ScopeGuard(), "a set with at least 2 elements", "a set with exactly 2 elements"),
    (ScopeGuard(), "fares for people over 65", "fares for people of 65"),
    (ScopeGuard(), "is it always free", "is it usually free"),
    (ScopeGuard(), "can only admins remove users", "can admins remove users"),
    (ScopeGuard(), "can only the owner remove users", "can the owner only remove users"),
    (ScopeGuard(), "do I need a passport and a visa", "do I need a passport or a visa"),
    (MoodGuard(), "When did the sale start?", "When will the sale start?"),
    (MoodGuard(), "Did I have to pay?", "Do I have to pay?"),
    (MoodGuard(), "Can I eat before it?", "Should I eat before it?"),
    (MoodGuard(), "Am I allowed to tip?", "Am I required to tip?"),
    (RoleGuard(), "can I cancel my booking with the airline", "can the airline cancel my booking"),
    (RoleGuard(), "two coupons on one order", "one coupon on two orders"),
    (RoleGuard(), "was Anna invited by Tom", "did Anna invite Tom"),
    (RoleGuard(), "hide it from people I follow", "hide it from people who follow me"),
    (SwapGuard(), "it passes in CI but fails on my laptop", "it passes on my laptop but fails in CI"),
    (DirectionGuard(), "take cash out of Turkey", "take cash into Turkey"),
    (PrefixGuard(), "an overactive thyroid", "an underactive thyroid"),
    (MoodGuard(), "an order I already placed", "an order I am about to place"),
    (AccentGuard(), "wie kann ich drucken", "wie kann ich drücken"),
    (AccentGuard(), "aimer pêcher", "aimer pécher"),
    (AccentGuard(), "el papa vive en Roma", "el papá vive en Roma"),
    (AccentGuard(), "cuántos años tiene", "cuántos anos tiene"),
    (AccentGuard(), "el papa y el papá", "el papá y el papa"),
    (AccentGuard(), "how to write a resume", "how to write a résumé"),
]

AGREEMENTS: list[tuple[Guard, str, str]] = [
    (NumberGuard(), "send 1,000 dollars", "send 1000 dollars"),
    (NumberGuard(), "1.50 litres", "1,5 litres"),
    (NumberGuard(), "twenty five percent", "25%"),
    (NumberGuard(), "two hundred and ten", "210"),
    (NumberGuard(), "2 million users", "2,000,000 users"),
    (NumberGuard(), "a 10k run", "a 10,000 run"),
    (NumberGuard(), "5kg of rice", "5 kilograms of rice"),
    (NumberGuard(), "$100", "100 dollars"),
    (NumberGuard(), "pay 100", "pay $100"),
    (NumberGuard(), "march 1st", "march 1"),
    (NumberGuard(), "at 5:00 pm", "at 5 pm"),
    (NumberGuard(), "which one is best", "which is best"),
    (NumberGuard(), "between 5-10 people", "between 5 and 10 people"),
    (IdentifierGuard(), "read utf-8", "read utf8"),
    (IdentifierGuard(), "learn JavaScript", "learn javascript"),
    (IdentifierGuard(), "it failed.Can you help", "it failed. can you help"),
    (IdentifierGuard(), "my iPhones", "my iphone"),
    (OperatorGuard(), "what is 2 plus 2", "what is 2 + 2"),
    (OperatorGuard(), "a well-known and/or old - very old - song", "a well known and or old very old song"),
    (OperatorGuard(), "*really* important", "really important"),
    (CurrencyGuard(), "pay 5 euros", "pay €5"),
    (NameGuard(), "is Oslo big", "is oslo big"),
    (NameGuard(), "when will Donald Trump speak", "when will Trump speak"),
    (NameGuard(), "how do I reset it", "How do I reset it"),
    (NameGuard(), "How To Reset My Password", "How to reset my password"),
    (NameGuard(), "HOW DO I RESET MY PASSWORD", "how do i reset my password"),
    (NameGuard(), "it failed. Please help", "it failed. can you help"),
    (NameGuard(), "emails of Hilary Clinton", "emails of Hillary Clinton"),
    (SwapGuard(), "compare tea and coffee", "compare coffee and tea"),
    (SwapGuard(), "tea vs coffee", "coffee vs tea"),
    (SwapGuard(), "the difference between tea and coffee", "the difference between coffee and tea"),
    (SwapGuard(), "what is the price", "the price is what"),
    (SwapGuard(), "flights from paris to london", "flights to london from paris"),
    (NegationGuard(), "I can't log in", "I cannot log in"),
    (NegationGuard(), "I was unable to pay", "I was not able to pay"),
    (NegationGuard(), "why didn't it work", "why did it not work"),
    (NegationGuard(), "is it safe or not?", "is it safe?"),
    (NegationGuard(), "I don't know how to reset it", "how to reset it"),
    (NegationGuard(), "the rate was wrong", "the rate was not correct"),
    (AntonymGuard(), "enable 2FA", "activate 2FA"),
    (AntonymGuard(), "turn off the alarm", "switch the alarm off"),
    (AntonymGuard(), "Where do I sign up for the newsletter?", "how to sign up for the newsletter"),
    (AntonymGuard(), "buy or sell shares", "sell or buy shares"),
    (ClassGuard(), "a gift for mom", "a gift for my mother"),
    (ClassGuard(), "is it raining today", "is it raining"),
    (ClassGuard(), "how do you raise your score", "how do I raise my score"),
    (ClassGuard(), "it fails when I pay, why", "why does it fail"),
    (ClassGuard(), "visa for the United States", "visa for the US"),
    (ClassGuard(), "how much time does it take", "how long does it take"),
    (DirectionGuard(), "fly from paris to london", "fly to london from paris"),
    (DirectionGuard(), "the distance from paris to london", "the distance from london to paris"),
    (PrefixGuard(), "was I told", "I was informed"),
    (PrefixGuard(), "link and unlink", "unlink and link"),
    (CaseGuard(), "how do i reset my PIN", "How do I reset my pin"),
    (CaseGuard(), "is Oslo big", "is oslo big"),
    (CaseGuard(), "It is late", "it is late"),
    (CaseGuard(), "Polish the table", "polish the table"),
    (CaseGuard(), "HOW DO I POLISH IT", "how do i polish it"),
    (CaseGuard(), "How To Polish A Wooden Table", "how to polish a wooden table"),
    (CaseGuard(), "I do NOT want it", "I do not want it"),
    (CaseGuard(), "my Card was Stolen", "my card was stolen"),
    (CaseGuard(), "use it in IT", "use it in IT please"),
    (CaseGuard(), "a T-shirt", "a t-shirt"),
    (CaseGuard(), "may I", "May i"),
    (CaseGuard(), "a file of 10 mb", "a file of 10 MB"),
    (CaseGuard(), "wie lange hat die werkstatt offen", "Wie lange hat die Werkstatt offen"),
    (CaseGuard(), "my iPhone and eBay on macOS", "my iphone and ebay on macos"),
    (CaseGuard(), "learn JavaScript with Node.js", "learn javascript with node.js"),
    (CaseGuard(), "mail Me@a.org or see Example.com", "mail me@a.org or see example.com"),
    (CaseGuard(), "None of my functions work", "none of my functions work"),
    (CaseGuard(), "What is None in Python?", "what is none in python?"),
    (CaseGuard(), "what is NULL in SQL", "what is null in SQL"),
    (CaseGuard(), "What is a Set of plates?", "What is a set of plates?"),
    (CaseGuard(), "it failed.Please help", "it failed.please help"),
    (CaseGuard(), "I BOUGHT IT FROM YOUR SHOP", "I bought it from your shop"),
    (CaseGuard(), "item(s) lost and/or broken", "Item(s) lost And/Or broken"),
    (NumberGuard(), "from 5 -10 people", "from 5-10 people"),
    (IdentifierGuard(), "which vitamin is in milk", "vitamin c is in milk"),
    (DirectionGuard(), "how do I do it in the app", "how do I do it with the app"),
    (ScopeGuard(), "is it for all users", "is it for every user"),
    (ScopeGuard(), "what are some good hotels", "what are all good hotels"),
    (ScopeGuard(), "how long does it usually last", "how long does it last"),
    (ScopeGuard(), "phones under 500", "phones below 500"),
    (ScopeGuard(), "not only today", "today"),
    (ScopeGuard(), "between tea and milk", "between tea or milk"),
    (MoodGuard(), "Can I pay later?", "Is it possible to pay later?"),
    (MoodGuard(), "How do I pay?", "How can I pay?"),
    (MoodGuard(), "Why did it fail?", "Why does it fail?"),
    (MoodGuard(), "Do I need a visa?", "Will I need a visa?"),
    (RoleGuard(), "can I cancel it", "can you cancel it"),
    (RoleGuard(), "how do I install numpy", "how can numpy be installed"),
    (RoleGuard(), "two coupons on one order", "on one order two coupons"),
    (RoleGuard(), "was Anna invited by Tom", "did Tom invite Anna"),
    (RoleGuard(), "why was I charged a fee", "why did you charge me a fee"),
    (RoleGuard(), "can I get a refund", "can you get me a refund"),
    (SwapGuard(), "it passes here but fails in CI", "it fails in CI but passes here"),
    (SwapGuard(), "how was school in Rome during the war", "how was school during the war in Rome"),
    (PrefixGuard(), "an overview of it", "an interview about it"),
    (NameGuard(), "is it OK to pay", "is it okay to pay"),
    (AccentGuard(), "Über uns", "über uns"),
    (AccentGuard(), "cafe\u0301 creme", "caf\u00e9 creme"),
    (AccentGuard(), "où est «la gare» ?", "Où est la gare?"),
]


@pytest.mark.parametrize(("guard", "a", "b"), CONFLICTS, ids=lambda value: getattr(value, "name", value))
def test_a_guard_vetoes_its_kind_of_difference_in_either_order(guard: Guard, a: str, b: str) -> None:
    found = conflict(guard, a, b)
    assert found is not None
    assert found.guard == guard.name
    assert conflict(guard, b, a) is not None


@pytest.mark.parametrize(("guard", "a", "b"), AGREEMENTS, ids=lambda value: getattr(value, "name", value))
def test_a_guard_is_silent_where_its_kind_of_difference_is_only_wording(guard: Guard, a: str, b: str) -> None:
    assert conflict(guard, a, b) is None
    assert conflict(guard, b, a) is None


def test_every_default_guard_has_a_name_of_its_own_a_docstring_with_examples_and_both_kinds_of_tests() -> None:
    names = [guard.name for guard in DEFAULT_GUARDS]
    assert len(set(names)) == len(names)
    for guard in DEFAULT_GUARDS:
        assert "Conflict: `" in (type(guard).__doc__ or "")
        assert "No conflict:" in (type(guard).__doc__ or "")
        assert any(case[0] == guard for case in CONFLICTS)
        assert any(case[0] == guard for case in AGREEMENTS)


def test_a_conflict_quotes_the_differing_words_and_nothing_else_of_the_prompts() -> None:
    found = first_conflict("my secret project needs 5 kg", "my secret project needs 6 kg")
    assert found == Conflict("number", "5 kg", "6 kg")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("wie kann ich die Karte im App Store kaufen", "wie kann ich die Karte im App Store bestellen"),
        ("où puis-je acheter le billet pour le train", "où puis-je prendre le billet pour le train"),
        ("las personas no son ni rich ni poor", "las personas no son ni rich"),
        ("как открыть счет", "как закрыть счет"),
        ("es only für mich und nicht für alle", "es ist für mich und nicht für some"),
        ("il va à la gare avec y o e", "il va à la gare avec d l m"),
        ("wie will er das machen und wer", "wie did er das machen und wer"),
    ],
)
def test_english_word_lists_are_silent_in_other_languages(a: str, b: str) -> None:
    left, right = parse(a), parse(b)
    assert not left.english
    assert all(guard.conflict(left, right) is None for guard in ENGLISH_GUARDS)


@pytest.mark.parametrize("text", ["reset password", "How do I do this?", "order 66", "naïve café question for you", ""])
def test_text_without_foreign_words_counts_as_english(text: str) -> None:
    assert parse(text).english


def test_equal_texts_parse_equal_and_white_space_does_not_count() -> None:
    assert parse("  is it\tsafe? ") == parse("is it safe?")


def test_a_long_chunk_without_blanks_is_one_identifier_and_takes_linear_time() -> None:
    chunk = "a1." * 100_000
    assert parse(f"what is {chunk}x").identifiers == {f"{chunk}x"}


def test_long_texts_with_the_same_words_in_another_order_are_compared_in_bounded_time() -> None:
    words = ["alpha", "beta"] * 5_000
    assert SwapGuard().conflict(parse(" ".join(words)), parse(" ".join(reversed(words)))) is None


@pytest.mark.parametrize(
    "piece", ["aB", "a.b/", "x=", "\\\\", "a::b", "[a-", "<a", "./", "$a", "a_", "-1", "a(", "only 1 "]
)
def test_a_long_text_of_code_is_parsed_in_linear_time(piece: str) -> None:
    # Work that grows with the square would take minutes here.
    text = piece * (100_000 // len(piece))
    assert CaseGuard().conflict(parse(text), parse(f"{text} now")) is None


def test_a_parser_keeps_the_last_texts_and_parses_each_once() -> None:
    parser = Parser(size=2)
    first = parser("one")
    assert parser("one") is first
    parser("two"), parser("three")
    assert parser("one") is not first
    assert parser("one") == first


def test_anyone_can_write_a_guard() -> None:
    class Greeting:
        name = "greeting"

        def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
            return Conflict(self.name, "", "") if ("hello" in a.bag) != ("hello" in b.bag) else None

    guard: Guard = Greeting()
    assert first_conflict("hello there", "there") is None
    assert first_conflict("hello there", "there", [*DEFAULT_GUARDS, guard]) == Conflict("greeting", "", "")


def test_the_neutral_and_the_english_guards_are_all_of_the_default_ones() -> None:
    assert (*NEUTRAL_GUARDS, *ENGLISH_GUARDS) == DEFAULT_GUARDS


# The corpus: two thirds were written while the guards were, a third after they had been frozen (docs/correctness.md).
# The levels of that third are what was measured then, less some slack; `benchmarks/pairs.py` adds the scores.


def share(frozen: str, *, same: bool) -> float:
    pairs = [pair for pair in PAIRS if pair["frozen"] == frozen and pair["same"] is same]
    return sum(first_conflict(pair["text_a"], pair["text_b"]) is not None for pair in pairs) / len(pairs)


@pytest.mark.parametrize("same", [False, True])
def test_the_corpus_has_two_hundred_pairs_of_a_kind_in_every_domain_and_a_third_from_after_the_freeze(
    *, same: bool
) -> None:
    pairs = [pair for pair in PAIRS if pair["same"] is same]
    domains = Counter(pair["domain"] for pair in pairs)
    assert domains.keys() == {"support", "coding", "travel", "finance", "medicine", "maths", "shopping"}
    assert min(domains.values()) >= 20
    assert len(pairs) >= 200
    assert 3 * sum(pair["frozen"] == "after" for pair in pairs) >= len(pairs)


def test_no_pair_of_the_corpus_is_there_twice() -> None:
    assert len({frozenset((pair["text_a"], pair["text_b"])) for pair in PAIRS}) == len(PAIRS)


def test_guards_alone_veto_most_adversarial_pairs_they_were_written_with() -> None:
    assert share("before", same=False) >= 0.80


def test_guards_alone_veto_many_adversarial_pairs_written_after_they_were_frozen() -> None:
    assert share("after", same=False) >= 0.40


@pytest.mark.parametrize("frozen", ["before", "after"])
def test_guards_keep_nearly_all_paraphrases(frozen: str) -> None:
    assert share(frozen, same=True) <= 0.03
