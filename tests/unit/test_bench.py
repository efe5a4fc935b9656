"""The parts of scripts/bench that measure nothing: data sets, figures, results, the page."""

import hashlib
import random
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.bench import programs, steady
from scripts.bench.datasets import SMALL, DataSets, edit_mixed, make_mixed, make_tree
from scripts.bench.edits import LARGEST, SMALLEST, Edit, Kind, apply_edits, plan_edits
from scripts.bench.figures import Better, Target, alternated, judge, speed_ratio, summarise
from scripts.bench.plots import achievement
from scripts.bench.render import number, render
from scripts.bench.results import merge, without_folder
from scripts.bench.rows import BY_KEY, GROUPS, ROWS
from scripts.bench.text import Text
from scripts.bench.tracing import parse_stacks, parse_strace, short_name

TINY = replace(SMALL, small_files=150, large_mib=2, tree_entries=1500)
MORE, LESS = Better.MORE, Better.LESS


def digest_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class TestDataSets:
    def test_text_is_the_same_each_time_and_of_the_size_asked_for(self):
        assert Text(5)(10_000) == Text(5)(10_000)
        assert Text(5)(10_000) != Text(6)(10_000)
        assert [len(Text(1)(size)) for size in (0, 1, 17, 4096)] == [0, 1, 17, 4096]

    def test_a_set_is_the_same_each_time(self, tmp_path):
        for name in ("one", "two"):
            make_mixed(tmp_path / name, TINY)
        found = digest_of(tmp_path / "one")
        assert found == digest_of(tmp_path / "two")
        assert len(found) == 150 + 2
        sizes = [path.stat().st_size for path in (tmp_path / "one" / "small").rglob("*.txt")]
        assert min(sizes) >= 1000
        assert max(sizes) <= 20_000

    def test_a_tree_has_as_many_files_as_asked_for_each_of_its_own_content(self, tmp_path):
        make_tree(tmp_path, 1500)
        assert len(set(digest_of(tmp_path).values())) == 1500

    def test_a_complete_set_is_used_again_and_a_half_one_is_made_again(self, tmp_path):
        said: list[str] = []
        sets = DataSets(tmp_path, TINY, said.append)
        folder = sets.mixed()
        (folder / "mine").touch()
        assert sets.mixed() == folder
        assert len(said) == 1
        assert (folder / "mine").exists()
        (folder.parent / "mixed.complete").unlink()
        sets.mixed()
        assert len(said) == 2
        assert not (folder / "mine").exists()


class TestRemoving:
    def test_a_folder_goes_with_what_is_in_it(self, tmp_path):
        (tmp_path / "a" / "b").mkdir(parents=True)
        programs.remove(tmp_path / "a")
        assert not (tmp_path / "a").exists()
        programs.remove(tmp_path / "a")

    def test_not_with_what_is_mounted_in_it(self, tmp_path, monkeypatch):
        (tmp_path / "a" / "b").mkdir(parents=True)
        monkeypatch.setattr(programs, "mounts_below", lambda folder: [folder / "b"])
        with pytest.raises(programs.ProgramError, match="mounted"):
            programs.remove(tmp_path / "a")
        assert (tmp_path / "a" / "b").exists()

    def test_mounts_below_a_folder_are_found(self):
        assert Path("/proc") in programs.mounts_below(Path("/"))
        assert programs.mounts_below(Path("/nowhere")) == []


class TestVersionTwo:
    def test_one_percent_of_the_bytes_in_edits_of_4_to_64_kib_of_all_kinds(self):
        sizes = {f"f{number}": 10_000 for number in range(2000)} | {"large": 200 << 20}
        edits = plan_edits(sizes, 0.01, random.Random(1))
        total = sum(sizes.values())
        assert total * 0.01 <= sum(edit.size for edit in edits) < total * 0.01 + LARGEST
        assert all(SMALLEST <= edit.size <= LARGEST for edit in edits)
        assert {edit.kind for edit in edits} == set(Kind)
        assert {edit.path == "large" for edit in edits} == {True, False}
        assert plan_edits(sizes, 0.01, random.Random(1)) == edits

    def test_edits_of_a_file_do_not_overlap_and_overwrites_stay_inside(self):
        edits = plan_edits({"a": 1 << 20}, 0.5, random.Random(2))
        assert len(edits) > 5
        ends = 0
        for edit in sorted(edits, key=lambda edit: edit.offset):
            assert edit.offset >= ends
            ends = edit.offset + (edit.size if edit.kind is Kind.OVERWRITE else 0)
            assert ends <= 1 << 20
            assert edit.kind is not Kind.APPEND or edit.offset == 1 << 20

    def test_edits_are_made_where_they_say(self, tmp_path):
        (tmp_path / "old").write_bytes(b"0123456789")
        edits = [
            Edit("old", Kind.APPEND, 10, 2),
            Edit("old", Kind.OVERWRITE, 6, 3),
            Edit("old", Kind.INSERT, 2, 4),
        ]
        apply_edits(tmp_path / "old", tmp_path / "new", edits, lambda size: b"x" * size)
        assert (tmp_path / "new").read_bytes() == b"01xxxx2345xxx9xx"

    def test_the_new_bytes_are_one_percent_and_the_rest_is_shared(self, tmp_path):
        make_mixed(tmp_path / "v1", TINY)
        edits = edit_mixed(tmp_path / "v1", tmp_path / "v2")
        before, after = digest_of(tmp_path / "v1"), digest_of(tmp_path / "v2")
        assert before.keys() == after.keys()
        changed = {path for path in before if before[path] != after[path]}
        assert changed == {edit.path for edit in edits}
        sizes = [sum((tmp_path / v / path).stat().st_size for path in before) for v in ("v1", "v2")]
        inserted = sum(edit.size for edit in edits if edit.kind is not Kind.OVERWRITE)
        assert sizes[1] == sizes[0] + inserted
        same = (set(before) - changed).pop()
        assert (tmp_path / "v1" / same).samefile(tmp_path / "v2" / same)


class TestFigures:
    def test_a_summary_is_the_median_and_the_ends(self):
        found = summarise([3.0, 1.0, 10.0])
        assert (found.median, found.low, found.high, found.count) == (3, 1, 10, 3)

    def test_over_one_is_better_whatever_the_unit(self):
        assert speed_ratio(200, 100, MORE) == 2
        assert speed_ratio(2, 6, LESS) == 3

    @pytest.mark.parametrize(
        ("target", "better", "samples", "ratio", "reached"),
        [
            (Target("a", 2, ("p",)), MORE, {"a": [40], "p": [20]}, 2, True),
            (Target("a", 2, ("p",)), MORE, {"a": [39], "p": [20]}, 1.95, False),
            (Target("a", 2, ("p",)), LESS, {"a": [10], "p": [30]}, 3, True),
            # Beside several: the best of them.
            (Target("a", 1, ("p", "q")), MORE, {"a": [15], "p": [10], "q": [20]}, 0.75, False),
            (Target("a", 1, ("p", "q")), LESS, {"a": [15], "p": [10], "q": [20]}, 2 / 3, False),
            (Target("a", 0.5, ("p", "q"), "at most"), LESS, {"a": [4], "p": [10], "q": [9]}, 4 / 9,
             True),
            (Target("a", 0.5, ("p",), "at most"), LESS, {"a": [6], "p": [10]}, 0.6, False),
            (Target("a", 6000, kind="absolute"), MORE, {"a": [6500]}, 6500, True),
            (Target("a", 200, kind="absolute"), LESS, {"a": [250]}, 250, False),
            # The median counts, not the best.
            (Target("a", 2, ("p",)), MORE, {"a": [90, 10, 15], "p": [10]}, 1.5, False),
            (Target("a", 2, ("p",)), MORE, {"a": [90]}, None, None),
            (Target("a", 2, ("p",)), MORE, {"p": [90]}, None, None),
        ],
    )  # fmt: skip
    def test_targets(self, target, better, samples, ratio, reached):
        found = judge(target, samples, better)
        assert found.ratio == (None if ratio is None else pytest.approx(ratio))
        assert found.reached is reached
        value = achievement(found, better)
        assert (value is None) is (reached is None)
        assert value is None or (value >= 1) is reached

    def test_the_order_of_contenders_alternates(self):
        assert [alternated("abc", number) for number in range(3)] == [
            ["a", "b", "c"], ["c", "b", "a"], ["a", "b", "c"],
        ]  # fmt: skip

    def test_rows_are_named_once_and_belong_to_a_group(self):
        assert len(BY_KEY) == len(ROWS)
        assert {row.group for row in ROWS} == set(GROUPS)


def results(key: str, run: str, samples: dict[str, list[float]]):
    about = {
        "date": "2026-11-24 04:00 UTC", "commit": "0123456789ab", "command": "scripts/bench/run",
        "rounds": 1, "machine": {"cores": "2"}, "versions": {"borg": "1.2"},
        "left_out": {"dvc": "not installed"},
    }  # fmt: skip
    return {
        "rows": {key: {"run": run, "samples": samples}},
        "profiles": {},
        "runs": {run: about},
    }


class TestPage:
    def test_a_run_replaces_its_rows_only_and_forgets_runs_that_nothing_is_of(self):
        first = merge(
            results("walk.cold", "one", {"ext4": [1.0]}),
            results("walk.warm", "two", {"ext4": [2.0]}),
        )
        found = merge(first, results("walk.cold", "three", {"ext4": [3.0]}))
        assert found["rows"]["walk.cold"]["samples"] == {"ext4": [3.0]}
        assert found["rows"]["walk.warm"]["samples"] == {"ext4": [2.0]}
        assert set(found["runs"]) == {"two", "three"}

    def test_the_page_has_medians_spreads_ratios_and_what_is_missed(self):
        samples = {
            "versionfs branch": [7000.0, 8000.0, 9000.0],
            "squashfuse_ll": [1000.0],
            "borg": [4000.0],
        }
        page = render(results("walk.cold", "one", samples), {"walk": "Why it is so."}, [])
        assert "| versionfs branch | 8,000 | 7,000 – 9,000 | 3 |  |" in page
        assert "| borg | 4,000 | 4,000 – 4,000 | 1 | 2.00 × |" in page
        assert "| squashfuse_ll | ≥ 7 × | 8.00 × | yes |" in page
        assert "| borg | ≥ 3 × | 2.00 × | **no** |" in page
        assert "not measured" in page
        assert "Why it is so." in page
        assert "commit 0123456789ab" in page
        assert "Left out: dvc (not installed)" in page

    def test_a_profile_is_a_few_tables(self):
        found = results("walk.cold", "one", {"ext4": [1.0]})
        found["profiles"] = {
            "walk": {
                "run": "one",
                "passes": [
                    {
                        "title": "cold walk",
                        "summary": "fast.",
                        "requests": [["readdirplus", 12, "0.1"]],
                        "calls": [["writev", 24, "0.2", "0.010"]],
                        "functions": [["lookup (a.py)", "50.0%", "3.1"]],
                    }
                ],
            }
        }
        page = render(found, {}, [])
        for line in (
            "**cold walk**: fast.",
            "| readdirplus | 12 | 0.1 |",
            "| writev | 24 | 0.2 | 0.010 |",
            "| lookup (a.py) | 50.0% | 3.1 |",
        ):
            assert line in page

    @pytest.mark.parametrize(
        ("value", "text"),
        [(0.01234, "0.0123"), (1.5, "1.5"), (123.4, "123"), (12_345.6, "12,350"), (1000, "1,000")],
    )
    def test_figures_have_few_digits(self, value, text):
        assert number(value) == text

    @pytest.mark.parametrize(
        "arguments",
        [["walk", "--folder", "/a", "--rounds", "3"], ["walk", "--folder=/a", "--rounds", "3"]],
    )
    def test_a_command_line_is_kept_without_folders(self, arguments):
        assert without_folder(arguments) == ["walk", "--rounds", "3"]


class TestTracing:
    def test_the_table_of_strace_is_read(self):
        text = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000300           3       100           writev
 40.00    0.000200           1       200         5 read
------ ----------- ----------- --------- --------- ----------------
100.00    0.000500           1       300         5 total
"""
        found = parse_strace(text)
        assert [(each.name, each.calls, each.seconds) for each in found] == [
            ("writev", 100, 0.0003),
            ("read", 200, 0.0002),
        ]

    def test_stacks_are_counted_by_the_innermost_function(self):
        text = "main (a.py);walk (b.py) 3\nmain (a.py) 1\nother (c.py);walk (b.py) 2\n"
        text += "main (a.py);Condition.wait (threading.py) 50\n"
        assert parse_stacks(text) == (6, [("walk (b.py)", 5), ("main (a.py)", 1)])

    @pytest.mark.parametrize(
        ("frame", "name"),
        [
            (
                "read (/somewhere/versionfs/fuse/operations.py)",
                "read (versionfs/fuse/operations.py)",
            ),
            (
                "run (/x/lib/python3.11/site-packages/trio/_core/_run.py)",
                "run (trio/_core/_run.py)",
            ),
            ("run (trio/_core/_run.py)", "run (trio/_core/_run.py)"),
            ("loads (/a/lib/python3.11/json/decoder.py)", "loads (json/decoder.py)"),
            ("walk", "walk"),
        ],
    )
    def test_names_have_no_folders_of_this_machine(self, frame, name):
        assert short_name(frame) == name


def test_memory_is_steady_while_it_is_measured(tmp_path, monkeypatch):
    running, idle = tmp_path / "kdamonds/0/state", tmp_path / "kdamonds/1/state"
    for path, state in ((running, "on\n"), (idle, "off\n")):
        path.parent.mkdir(parents=True)
        path.write_text(state)
    reporting = tmp_path / "page_reporting_order"
    reporting.write_text("9\n")
    monkeypatch.setattr(steady, "_RECLAIM", str(tmp_path))
    monkeypatch.setattr(steady, "_REPORTING", reporting)
    monkeypatch.setattr(steady, "_WANTED", 1 << 20)
    paths = (running, idle, reporting)
    manager = steady.steady_memory()
    manager.__enter__()
    meanwhile = [path.read_text().strip() for path in paths]
    manager.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert meanwhile == ["off", "off", "11"]
    assert [path.read_text() for path in paths] == ["on\n", "off\n", "9\n"]
