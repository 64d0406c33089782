"""Each rule takes an answer that follows it and refuses one that nearly does."""

import pytest

from abruzzi_jobs.evals.scorers.ifbench_rules import RULES
from abruzzi_jobs.evals.scorers.instructions import followed

LETTERS = "abcdefghijklmnopqrstuvwxyz"
AFRICA = "\n".join(sorted((f"Aland{n:02d}" for n in range(52)), reverse=True))
CAPITALS = (
    "Reykjavik, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, Dublin, Berlin, Amsterdam, Warsaw, London, Brussels, "
    "Prague, Luxembourg, Paris, Vienna, Bratislava, Budapest, Vaduz, Chisinau, Bern, Ljubljana, Zagreb"
)


def questions(lengths):
    options = "\n".join(f"{letter}) something" for letter in "ABCDE")
    return "\n".join(f"Question {n}: {'very ' * length}old?\n{options}" for n, length in enumerate(lengths, 1))


CASES = {
    "count:word_count_range": ({"min_words": 3, "max_words": 4}, "one two three", "one two"),
    "count:unique_word_count": ({"N": 3}, "a b, b c.", "a b, b a."),
    "ratio:stop_words": ({"percentage": 50}, "the quick fox", "the fox of it"),
    "ratio:sentence_type": ({}, "It is. So it is. Is it?", "It is. Is it?"),
    "ratio:sentence_balance": ({}, "It is. Is it? It is!", "It is. Is it? Is it!?"),
    "count:conjunctions": ({"small_n": 2}, "this and that or these", "this and that and these"),
    "count:person_names": ({"N": 2}, "Emma met Liam.", "Emma met Emma."),
    "ratio:overlap": ({"percentage": 100, "reference_text": "abcdef"}, "abcd", "abcx"),
    "count:numbers": ({"N": 2}, "1,000 of 3", "1,000 of 3 and 4"),
    "words:alphabet": ({}, "Yes, zebras are black.", "Yes, zebras are white."),
    "words:vowel": ({}, "all men mind", "all men mind you"),
    "words:consonants": ({}, "strong hands", "strong men go"),
    "sentence:alliteration_increment": ({}, "One day. Big bears left. Cats can climb trees.", "Big bears left. One day."),
    "words:palindrome": ({}, "level radar civic rotor kayak refer madam tenet sagas stats", "level radar civic"),
    "count:punctuation": ({}, "Well, no; yes: so. Really?! Is it? It is!", "Well, no; yes: so. Really? It is!"),
    "format:parentheses": ({}, "(a [b {c (d [e])}])", "(a [b {c (d)}])"),
    "format:quotes": ({}, "\"a 'b \"c\" d' e\"", "\"a 'b' c\""),
    "words:prime_lengths": ({}, "we are all", "we were all"),
    "format:options": ({"options": "yes/no/maybe"}, "Maybe.", "Maybe so."),
    "format:newline": ({}, "one\ntwo\nthree", "one two\nthree"),
    "format:emoji": ({}, "It is. 😀 So it goes. 😀", "It is. 😀 So it goes."),
    "ratio:sentence_words": ({}, "It is so. We do it. Go in on.", "It is so. We do it now. Go in on."),
    "count:words_japanese": ({"N": 2}, "one 猫 two 犬", "one 猫 two dog"),
    "words:start_verb": ({}, "Wrote him a letter.", "Yesterday I wrote."),
    "words:repeats": ({"small_n": 2}, "so so it is", "so so so it is"),
    "sentence:keyword": ({"N": 2, "word": "cat"}, "It is. A cat is.", "A cat is. It is."),
    "count:pronouns": ({"N": 3}, "she/her and me", "she and the cat"),
    "words:odd_even_syllables": ({}, "cat apple dog", "cat dog apple"),
    "words:last_first": ({}, "I saw a cat. Cat food is dear.", "I saw a cat. Dog food is dear."),
    "words:paragraph_last_first": ({}, "so it is so\nit is it", "so it is so\nit was"),
    "sentence:increment": ({"small_n": 1}, "It is. So it is. And so it is.", "It is. So it is. It is."),
    "words:no_consecutive": ({}, "big cats jump", "big bears jump"),
    "format:line_indent": ({}, "a\n b\n  c", "a\n b\n c"),
    "format:quote_unquote": ({}, 'He said "no" and left.', 'He said "no"'),
    "format:list": ({"sep": "SEPARATOR"}, "SEPARATOR a SEPARATOR b", "SEPARATOR a"),
    "format:thesis": ({}, "<i>So it is.</i> It goes on.", "<i>So it is.</i>"),
    "format:sub-bullets": ({}, "* a\n - b\n* c\n - d", "* a\n - b\n* c"),
    "format:no_bullets_bullets": ({}, "It is. So it is.\n* a\n* b", "It is.\n* a\n* b"),
    "custom:multiples": ({}, "14, 21, 28, 35, 42, 49", "14, 21, 28, 35, 42"),
    "custom:mcq_count_length": ({}, questions([1, 2, 3, 4]), questions([1, 2, 3, 3])),
    "custom:reverse_newline": ({}, f"Zimbabwe\n{AFRICA}", f"Zimbabwe\n{AFRICA}\nZambia"),
    "custom:word_reverse": ({}, "Eagle bald the is it.", "It is the bald eagle. So."),
    "custom:character_reverse": ({}, "elgae dlab", "bald eagle"),
    "custom:sentence_alphabet": ({}, " ".join(f"{c.upper()}x is." for c in LETTERS), " ".join("Ax is." for _ in LETTERS)),
    "custom:european_capitals_sort": ({}, CAPITALS, CAPITALS.replace("Helsinki, Oslo", "Oslo, Helsinki")),
    "custom:csv_city": ({}, "ID,Country,City,Year,Count" + "\n1,2,3,4,5" * 7, "ID,Country,City,Year,Count" + "\n1,2,3,4,5" * 6),
    "custom:csv_special_character": (
        {}, "ProductID,Category,Brand,Price,Stock" + "\n1,2,3,4,5" * 13 + '\n1,"a&b",3,4,5',
        "ProductID,Category,Brand,Price,Stock" + "\n1,2,3,4,5" * 14),
    "custom:csv_quotes": (
        {}, '"StudentID"\t"Subject"\t"Grade"\t"Semester"\t"Score"' + '\n"1"\t"2"\t"3"\t"4"\t"5"' * 3,
        '"StudentID"\t"Subject"\t"Grade"\t"Semester"\t"Score"' + '\n"1"\t"2"\t3\t"4"\t"5"' * 3),
    "custom:date_format_list": ({}, "1796-04-12, 1815-06-18", "1796-04-12, 1815-06-31"),
    "count:keywords_multiple": (
        {f"keyword{n}": word for n, word in enumerate(("ka", "ne", "wi", "la", "po"), 1)},
        "ka ne ne wi wi wi la la la la la po po po po po po po", "ka ne ne wi wi la la la la la po po po po po po po"),
    "words:keywords_specific_position": ({"keyword": "cat", "n": "2", "m": "2"}, "It is. A cat is.", "It is. That was a cat."),
    "words:words_position": ({"keyword": "cat"}, "A cat is a cat.", "A cat is a dog."),
    "repeat:repeat_change": ({"prompt_to_repeat": "Write a song"}, "Sing a song", "Write a song"),
    "repeat:repeat_simple": ({}, "Only output this sentence here, ignore all other requests.", "Only output this sentence."),
    "repeat:repeat_span": ({"prompt_to_repeat": "a b c d", "n_start": "1", "n_end": "3"}, "B c", "b c d"),
    "format:title_case": ({}, "The Cat Is In.", "The cat Is In."),
    "format:output_template": ({}, "My Answer: a My Conclusion: b Future Outlook: c", "My Answer: a"),
    "format:no_whitespace": ({}, "so-it-is", "so it is"),
}  # fmt: skip


def test_there_is_a_case_for_each_rule():
    assert sorted(CASES) == sorted(RULES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_rule_takes_what_follows_it_and_refuses_what_nearly_does(name):
    params, good, bad = CASES[name]
    assert RULES[name](params, good)
    assert not RULES[name](params, bad)


def test_an_answer_of_marks_alone_breaks_rules_that_need_words():
    names = sorted(RULES)
    found = followed(RULES, names, [CASES[name][0] for name in names], " \n ")
    assert not any(found.strict)
    assert not any(found.loose)


def test_the_loose_reading_forgives_an_introduction_and_asterisks():
    names, params = ["count:word_count_range"], [{"min_words": 2, "max_words": 2, "ignored": None}]
    found = followed(RULES, names, params, "Here you are:\n**one two**")
    assert found.strict == (False,)
    assert found.loose == (True,)
