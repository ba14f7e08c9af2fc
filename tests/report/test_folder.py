from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedagent.errors import ConfigurationError
from fedagent.report.folder import begin, next_free, require_free


def test_runs_that_begin_at_the_same_moment_get_a_folder_each(tmp_path: Path) -> None:
    wanted = tmp_path / "2026-01-01" / "12-00-00"
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: next_free(wanted), range(8)))
    assert len(set(folders)) == 8
    assert {folder.name for folder in folders} == {
        "12-00-00",
        *(f"12-00-00-{n}" for n in range(2, 9)),
    }


def test_a_folder_that_was_made_for_the_run_is_its_own(tmp_path: Path) -> None:
    assert next_free(tmp_path) == tmp_path
    assert next_free(tmp_path) == tmp_path.with_name(f"{tmp_path.name}-2")


@pytest.mark.parametrize("file", ["metrics.jsonl", "summary.json"])
def test_a_made_up_name_passes_over_whatever_holds_a_run(tmp_path: Path, file: str) -> None:
    wanted = tmp_path / "run"
    wanted.mkdir()
    (wanted / file).touch()
    assert next_free(wanted) == tmp_path / "run-2"


@pytest.mark.parametrize("file", ["metrics.jsonl", "summary.json"])
def test_a_given_folder_that_holds_a_run_is_refused_unless_it_may_be_lost(
    tmp_path: Path, file: str
) -> None:
    (tmp_path / file).touch()
    for take in (require_free, begin):
        with pytest.raises(ConfigurationError, match=r"holds a run already.*overwrite=true"):
            take(tmp_path, overwrite=False)
    begin(tmp_path, overwrite=True)


def test_of_two_runs_that_were_given_one_folder_one_begins(tmp_path: Path) -> None:
    def attempt(_: int) -> bool:
        try:
            begin(tmp_path / "out", overwrite=False)
        except ConfigurationError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/nowhere"])
def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / where
    for take in (next_free, lambda path: require_free(path, overwrite=True)):
        with pytest.raises(ConfigurationError, match="cannot be written: ") as raised:
            take(folder)
        assert "\n" not in str(raised.value)
        assert "choose another folder" in str(raised.value)
