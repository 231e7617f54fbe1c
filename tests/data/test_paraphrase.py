from instructedit.data.paraphrase import question_of, rewordings, with_rewordings
from instructedit.records import EditExample, EditRequest, Probe


def test_rules_make_questions_and_possessives() -> None:
    made = rewordings("The name of the capital of Spain is", "Spain")
    assert "What is the name of the capital of Spain?" in made
    assert "Spain's capital is" in made
    assert len(set(made)) == len(made) and "The name of the capital of Spain is" not in made


def test_possessives_need_the_subject_in_its_place() -> None:
    assert not any("'s" in text for text in rewordings("The capital of Spain is"))
    assert not any("'s" in text for text in rewordings("The capital of Spain is", "France"))


def test_names_keep_their_capital_inside_a_frame() -> None:
    assert "It is well known that the capital of Spain is" in rewordings("The capital of Spain is")
    assert "It is well known that Lionel Messi plays for" in rewordings("Lionel Messi plays for")


def test_questions_are_framed_and_stay_questions() -> None:
    made = rewordings("Who wrote Emma?", "Emma")
    assert made and all("Who wrote Emma?" in text for text in made)
    assert question_of("Who wrote Emma?") is None


def test_only_examples_without_rephrases_get_some() -> None:
    request = EditRequest("The capital of Spain is", "Rome", id="a", subject="Spain")
    bare = with_rewordings(EditExample(request), 2)
    assert len(bare.of_kind("rephrase")) == 2
    assert bare == with_rewordings(EditExample(request), 2)
    own = EditExample(request, (Probe("rephrase", "Spain's capital is", "Rome"),))
    assert with_rewordings(own, 2) is own
    sentiment = EditExample(EditRequest("What about tea?", "Nice.", avoid=("Bad.",)))
    assert with_rewordings(sentiment) is sentiment


def test_an_instruction_goes_to_the_made_rephrases_too() -> None:
    example = EditExample(EditRequest("The capital of Spain is", "Rome", id="a", subject="Spain")).instructed("Do. ")
    assert {probe.instruction for probe in with_rewordings(example).probes} == {"Do. "}
