"""Damaged bytes through every parser: some of the cases of tests/fuzz.py, of a seed that its recorded runs did not use."""

import pytest

from tests import fuzz

CASES, SECONDS = 100, 600.0


@pytest.mark.slow
@pytest.mark.parametrize("target", sorted(fuzz.TARGETS))
def test_no_damage_breaks_a_law(target: str) -> None:
    assert fuzz.run(target, seed=2, first=0, seconds=SECONDS, max_cases=CASES) == CASES


def test_a_case_is_a_function_of_its_number() -> None:
    corpus = [b"some bytes of a corpus", b"and some more"]
    cases = [fuzz.case_of(3, "wat", number, corpus)[0] for number in range(50)]
    assert cases == [fuzz.case_of(3, "wat", number, corpus)[0] for number in range(50)]
    assert len(set(cases)) > 25


def test_a_broken_law_is_told_with_its_case(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(case: bytes, chance: object) -> None:
        raise IndexError("out of the array")

    monkeypatch.setitem(fuzz.TARGETS, "wordnet", broken)
    with pytest.raises(IndexError, match="out of the array"):
        fuzz.run("wordnet", seed=0, first=4, seconds=60, max_cases=3)
    assert capsys.readouterr().err.startswith("fuzz  wordnet: --seed 0 --first 4, ")
