"""The questions that can be clicked again."""

from gsemsplat_ros.live.question_history import HISTORY, QuestionHistory


def test_the_newest_stands_first_and_each_once():
    history = QuestionHistory()
    for number, text in enumerate(('chair', 'door', 'chair')):
        history = history.with_question(text, typed=False, now=float(number))
    assert history.texts == ('chair', 'door')
    for number in range(20):
        history = history.with_question(f'thing {number}', typed=False, now=0.0)
    assert len(history.texts) == HISTORY and history.texts[0] == 'thing 19'


def test_a_typed_word_takes_the_place_of_its_beginning_if_it_comes_soon():
    begun = QuestionHistory(('table',)).with_question('do', typed=True, now=1.0)
    assert begun.with_question('door', typed=True, now=2.0).texts == ('door', 'table')
    assert begun.with_question('door', typed=True, now=9.0).texts == ('door', 'do', 'table')
    assert begun.with_question('door', typed=False, now=2.0).texts == ('door', 'do', 'table')
    assert begun.with_question('lamp', typed=True, now=2.0).texts == ('lamp', 'do', 'table')
    chosen = QuestionHistory().with_question('do', typed=False, now=1.0)
    assert chosen.with_question('door', typed=True, now=1.5).texts == ('door', 'do')
