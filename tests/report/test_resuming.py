"""What a run was begun with is what it goes on with."""

import pytest

from fedagent.errors import ConfigurationError
from fedagent.report.resuming import (
    remember_words,
    require_same_words,
    with_earlier_words,
    words_to_resume,
)

WORDS = "strategy=fedasync seed=3 stopping.max_updates=50 'output_dir=/old place' overwrite=true"


@pytest.fixture
def folder(tmp_path):
    remember_words(tmp_path, WORDS)
    return tmp_path


def test_the_words_are_those_of_the_start_in_the_folder_that_is_named(folder):
    place = [f"output_dir='{folder}'", f"resume='{folder}'"]
    expected = ["strategy=fedasync", "seed=3", "stopping.max_updates=50", *place]
    assert words_to_resume(folder, []) == expected
    assert with_earlier_words([f"resume={folder}"]) == expected


def test_the_end_the_workers_and_who_watches_may_change(folder):
    words = words_to_resume(folder, ["stopping.max_updates=90", "runtime=inline", "display=false"])
    assert "stopping.max_updates=90" in words
    assert "stopping.max_updates=50" not in words
    assert {"runtime=inline", "display=false", "seed=3"} <= set(words)


def test_what_was_said_at_the_start_may_be_said_again(folder):
    assert words_to_resume(folder, ["seed=3"]).count("seed=3") == 1


@pytest.mark.parametrize(
    "change",
    ["seed=4", "strategy=fedbuff", "+strategy.alpha=1", "buffer_size=2", "-m", "--cfg=job"],
)
def test_what_would_make_another_run_of_it_is_refused_by_name(folder, change):
    with pytest.raises(ConfigurationError, match=f"^{change.replace('+', '.')} cannot change"):
        with_earlier_words([f"resume={folder}", change])


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"holds no run that can go on.*overrides\.txt"):
        with_earlier_words([f"resume={tmp_path}"])


def test_without_resume_nothing_changes():
    assert with_earlier_words(["seed=4", "-m"]) == ["seed=4", "-m"]
    assert with_earlier_words(["resume=null", "seed=4"]) == ["resume=null", "seed=4"]


def test_a_run_of_flowers_must_have_all_words_since_its_nodes_read_them(folder):
    words = "strategy=fedasync seed=3 stopping.max_updates=90"
    require_same_words(folder, f"{words} resume={folder}")
    require_same_words(folder, f"{words} output_dir={folder} resume={folder}")
    with pytest.raises(ConfigurationError, match=r"overrides=\"strategy=fedasync seed=3 stopping"):
        require_same_words(folder, f"resume={folder}")
    with pytest.raises(ConfigurationError, match=r"^seed=4 cannot change"):
        require_same_words(folder, f"strategy=fedasync seed=4 resume={folder}")
