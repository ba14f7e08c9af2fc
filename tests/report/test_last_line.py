import json

import pytest

from fedagent.report.last_line import json_at_end


def told(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_summary_that_was_written_inside_is_told(tmp_path, capsys):
    with json_at_end(tmp_path, is_asked=True):
        (tmp_path / "summary.json").write_text('{\n  "final_value": null\n}')
    assert told(capsys) == [{"output_dir": str(tmp_path), "final_value": None}]


def test_an_error_is_not_swallowed_and_the_line_comes_all_the_same(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt), json_at_end(tmp_path, is_asked=True):
        raise KeyboardInterrupt
    assert told(capsys) == [{"output_dir": str(tmp_path)}]


def test_the_summary_of_an_earlier_run_is_not_this_run_s(tmp_path, capsys):
    (tmp_path / "summary.json").write_text('{"final_value": 0.9}')
    with json_at_end(tmp_path, is_asked=True):
        pass
    assert told(capsys) == [{"output_dir": str(tmp_path)}]


def test_nothing_is_printed_unasked(tmp_path, capsys):
    with json_at_end(tmp_path, is_asked=False):
        pass
    assert told(capsys) == []
