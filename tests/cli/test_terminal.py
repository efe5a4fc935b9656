from __future__ import annotations

import re


def plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def test_log_is_a_coloured_table(photos):
    code, shown = photos.terminal("log", "photos")
    assert code == 0
    assert "\x1b[" in shown
    heading, newer, older = plain(shown).rstrip().splitlines()
    assert heading.split() == ["#", "COMMIT", "DATE", "AUTHOR", "SUBJECT"]
    assert newer.rstrip().endswith("(main) second")
    assert older.rstrip().endswith("(dev, tag: v1) first")


def test_ls_long_rounds_sizes_and_colours_names(photos):
    _, shown = photos.terminal("ls", "-l", "photos/main")
    text = plain(shown)
    assert re.search(r"drwx.* 10\.0 KiB .* sub/", text)
    assert re.search(r"-rwxr-xr-x +\S+:\S+ +10 B +2020-09-13 14:26 +run\.sh", text)
    assert "link -> a.txt" in text


def test_ls_is_laid_out_in_columns(photos):
    _, shown = photos.terminal("ls", "photos/main")
    assert len(plain(shown).strip().splitlines()) == 1
    assert '"odd \\377\\tname\\n"' in plain(shown)


def test_color_never_keeps_tables_without_colours(photos):
    _, shown = photos.terminal("--color", "never", "log", "photos")
    assert "\x1b[3" not in shown
    assert "SUBJECT" in shown


def test_color_always_makes_tables_in_a_pipe(photos):
    out = photos.ok("log", "photos", "--color", "always").out
    assert "\x1b[" in out
    assert "SUBJECT" in out


def test_json_stays_json_on_a_terminal(photos):
    _, shown = photos.terminal("ls", "photos/main", "--json")
    assert shown.startswith("[\n")
    assert "\x1b[" not in shown


def test_import_shows_progress_on_a_terminal_only(photos):
    big = photos.folder / "big"
    big.mkdir()
    for number in range(300):
        (big / str(number)).write_bytes(bytes([number % 251]) * 200_000)
    code, shown = photos.terminal("import", "big", "photos:big", columns=140)
    assert code == 0
    assert "importing photos/main" in shown
    assert "files" in shown
    summary = shown.rstrip().splitlines()[-1]
    # The line of progress is erased before the summary is written in its place.
    assert re.sub(r".*\x1b\[2K", "", summary).startswith("photos/main ")
    assert "300 files" in summary


def test_show_diff_stats_and_branch_have_tables(photos):
    for arguments in (["show", "photos"], ["diff", "photos"], ["stats"], ["branch", "photos"],
                      ["tag", "photos"], ["repo", "list"], ["ls", "-l", "photos"],
                      ["diff", "photos", "--stat"], ["diff", "photos", "--name-status"],
                      ["log", "photos", "--oneline"], ["ls", "-l"], ["ls"], ["ls", "photos"],
                      ["show", "photos:a.txt"]):  # fmt: skip
        code, shown = photos.terminal(*arguments)
        assert code == 0, arguments
        assert "\t" not in plain(shown), arguments


def test_messages_cannot_bring_escapes_to_the_terminal(photos):
    photos.ok("import", "source/sub", "photos:x", "-m", "evil \x1b[2J\nbody \x1b]0;title\x07")
    for arguments in (["log", "photos"], ["show", "photos"], ["log", "photos", "--oneline"]):
        _, shown = photos.terminal(*arguments)
        assert "\x1b[2J" not in shown
        assert "\x1b]0" not in shown
        assert "\\033[2J" in plain(shown)
