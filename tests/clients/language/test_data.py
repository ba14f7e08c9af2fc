import pytest

from clients.language.alphabet import CHARACTERS, UNKNOWN, Characters
from clients.language.data import cut, load, public_plays
from fedagent.errors import ConfigurationError, DataUnavailableError


def test_the_roles_of_38_plays_are_there():
    roles = load()
    assert len(roles) == len({(role.play, role.name) for role in roles}) == 453
    assert len({role.play for role in roles}) == 38
    assert sum(len(role.text) for role in roles) == 3_646_620
    assert len(load(min_characters=1)) == 1426
    assert {c for role in load(min_characters=1) for c in role.text} < set(CHARACTERS) - {UNKNOWN}


def test_a_name_in_two_plays_is_two_roles():
    plays = {role.play for role in load(min_characters=1) if role.name == "Messenger"}
    assert len(plays) > 10


def test_a_role_says_what_stands_under_its_name_and_no_stage_direction():
    beatrice = next(role for role in load() if role.name == "BEATRICE")
    assert beatrice.play == "much-ado-about-nothing"
    assert beatrice.text.startswith(
        "I pray you, is Signior Mountanto returned from the\nwars or no?\n"
    )
    said = "\n".join(role.text for role in load())
    assert "Exeunt" not in said
    assert "**" not in said
    assert "##" not in said


def test_a_folder_of_texts_is_one_node_per_file(tmp_path):
    (tmp_path / "b.txt").write_text("zweiter Mensch " * 20, "utf-8")
    (tmp_path / "a.txt").write_text("erster Mensch " * 20, "utf-8")
    (tmp_path / "short.txt").write_text("too short", "utf-8")
    assert [role.name for role in load(str(tmp_path), 100)] == ["a", "b"]


def test_a_folder_without_texts_is_named(tmp_path):
    with pytest.raises(DataUnavailableError, match=f"{tmp_path / 'none'} has no text of 100"):
        load(str(tmp_path / "none"), 100)


def test_a_text_is_cut_in_its_order():
    text = "".join(map(str, range(10)))
    assert cut(text, (None, 0.1, 0.2)) == ("0123456", "7", "89")


def test_public_plays_come_from_everywhere_and_leave_some():
    roles = load()
    chosen = public_plays(roles, 8)
    assert len(chosen) == 8
    assert sum(role.play not in chosen for role in roles) == 370
    assert public_plays(roles, 0) == set()
    with pytest.raises(ConfigurationError, match="set at most 37"):
        public_plays(roles, 38)


def test_what_is_not_in_the_list_is_unknown_and_the_rest_comes_back():
    alphabet = Characters()
    assert alphabet.decode(alphabet.encode("To be — or\nnot?").tolist()) == "To be — or\nnot?"
    assert alphabet.decode(alphabet.encode("naïve").tolist()) == f"na{UNKNOWN}ve"
    assert int(alphabet.encode("".join(CHARACTERS)).max()) == alphabet.size - 1
