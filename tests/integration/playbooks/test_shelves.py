"""Folders of playbooks: read as they are now, whatever lies in them, and nothing beside them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from steward_server.playbooks import shelves as under_test
from steward_server.playbooks.document import MAX_BYTES
from steward_server.playbooks.faults import BadPlaybook
from steward_server.playbooks.files import OpenFile, PlaybookFolder, Stamp
from steward_server.playbooks.reading import read
from steward_server.playbooks.shelves import Origin, Shelves, Summary, UnsafePath

BODY = 'version: "1"\nsteps:\n  - {id: n, name: n, type: utility.sleep, parameters: {seconds: 1}}\n'


def playbook(name: str = "Nap", more: str = "") -> str:
    return f"name: {name}\n{more}{BODY}"


def running(path: str) -> str:
    """A playbook that runs another."""
    return (
        f'name: Outer\nversion: "1"\nsteps:\n'
        f"  - {{id: run, name: r, type: playbook.run, parameters: {{playbook: {path}}}}}\n"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "own"
    made.mkdir()
    return made


@pytest.fixture
def shelves(folder: Path, tmp_path: Path) -> Shelves:
    shipped = tmp_path / "shipped"
    (shipped / "gateway").mkdir(parents=True)
    (shipped / "gateway" / "check.yaml").write_text(playbook("Shipped"))
    return Shelves(
        [(Origin.USER, PlaybookFolder(folder)), (Origin.BUILT_IN, PlaybookFolder(shipped))]
    )


def listed(shelves: Shelves) -> dict[str, Summary]:
    return {each.path: each for each in shelves.listing().summaries}


def names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


def aged(file: Path) -> Path:
    """A file that was written a while ago, as nearly all are."""
    os.utime(file, (1_700_000_000, 1_700_000_000))
    time.sleep(0.11)  # the time of its last change is the system's alone
    return file


def test_a_folder_that_is_not_there_is_an_empty_one(tmp_path: Path) -> None:
    shelves = Shelves([(Origin.USER, PlaybookFolder(tmp_path / "none"))])
    assert shelves.listing().summaries == ()
    assert shelves.text("a.yaml") is None


def test_all_are_listed_by_path_with_what_they_say(shelves: Shelves, folder: Path) -> None:
    (folder / "web").mkdir()
    more = "description: It sleeps\ndomain: rest\ngroup: Idle\nverified: true\n"
    (folder / "web" / "b.yaml").write_text(playbook("B", more))
    (folder / "a.yml").write_text(playbook("A"))
    found = listed(shelves)
    assert [*found] == ["a.yml", "gateway/check.yaml", "web/b.yaml"]
    b = found["web/b.yaml"]
    assert (b.name, b.version, b.description, b.domain) == ("B", "1", "It sleeps", "rest")
    assert (b.group, b.verified, b.step_count, b.origin) == ("Idle", True, 1, Origin.USER)
    assert (found["a.yml"].domain, found["gateway/check.yaml"].domain) == ("", "gateway")


def test_ones_own_hides_what_ships_until_it_is_gone(shelves: Shelves, folder: Path) -> None:
    (folder / "gateway").mkdir()
    own = folder / "gateway" / "check.yaml"
    own.write_text(playbook("Mine"))
    assert listed(shelves)["gateway/check.yaml"].name == "Mine"
    own.unlink()
    assert listed(shelves)["gateway/check.yaml"].name == "Shipped"


def test_a_file_that_changes_is_read_anew(shelves: Shelves, folder: Path) -> None:
    file = folder / "a.yaml"
    file.write_text(playbook("One"))
    assert listed(shelves)["a.yaml"].name == "One"
    for name in ("Two", "Six", "Ten"):  # as long as each other, and within a tick of the clock
        file.write_text(playbook(name))
        assert listed(shelves)["a.yaml"].name == name
        found = shelves.find("a.yaml")
        assert found is not None
        assert found.name == name


def test_a_file_that_changes_within_a_tick_of_its_clock_is_read_anew(
    shelves: Shelves, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems there are that count whole seconds."""

    def coarse(state: os.stat_result) -> Stamp:
        return Stamp(state.st_dev, state.st_ino, state.st_size, *([state.st_mtime_ns // 10**9] * 2))

    monkeypatch.setattr(Stamp, "of", coarse)
    monkeypatch.setattr(under_test, "_FRESH_NS", 2 * 10**18)
    file = folder / "a.yaml"
    for name in ("One", "Two", "Six"):
        file.write_text(playbook(name))
        os.utime(file, (1_700_000_000, 1_700_000_000))
        assert listed(shelves)["a.yaml"].name == name


def test_a_file_that_is_replaced_by_an_older_one_is_read_anew(
    shelves: Shelves, folder: Path
) -> None:
    file = folder / "a.yaml"
    file.write_text(playbook("One"))
    aged(file)
    assert listed(shelves)["a.yaml"].name == "One"
    other = folder / "other"
    other.write_text(playbook("Two"))
    aged(other).replace(file)
    assert listed(shelves)["a.yaml"].name == "Two"


def test_what_does_not_change_is_read_and_parsed_once(
    shelves: Shelves, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []

    def counted(text: bytes) -> object:
        parsed.append(text)
        return read(text)

    monkeypatch.setattr(under_test, "read", counted)
    monkeypatch.setattr(under_test, "_READINGS", under_test.Readings())
    for name in "abc":
        (folder / f"{name}.yaml").write_text(playbook("Same"))
    aged(folder / "a.yaml")
    first = listed(shelves)
    assert len(parsed) == 2  # the same text three times, and what ships
    with monkeypatch.context() as patched:
        patched.setattr(OpenFile, "content", None)
        assert listed(shelves) == first
    assert shelves.find("b.yaml") is shelves.find("c.yaml")
    assert len(parsed) == 2


def test_a_thousand_files_are_listed_at_once_when_nothing_changed(
    shelves: Shelves, folder: Path
) -> None:
    for number in range(1_000):
        (folder / f"{number:04}.yaml").write_text(playbook())
    aged(folder / "0000.yaml")
    assert len(listed(shelves)) == 1_001
    began_s = time.process_time()
    assert len(listed(shelves)) == 1_001
    assert time.process_time() - began_s < 1.0


def test_a_list_ends_in_time_and_says_what_it_has_not_read(shelves: Shelves, folder: Path) -> None:
    (folder / "a.yaml").write_text(playbook())
    unread = shelves.listing(takes_s=-1).summaries
    assert [(each.path, each.name, each.pending) for each in unread] == [
        ("a.yaml", "a", True),
        ("gateway/check.yaml", "check", True),
    ]
    assert [each.pending for each in shelves.listing().summaries] == [False, False]


def test_more_files_than_may_be_are_left_out_and_that_is_told(
    shelves: Shelves, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steward_server.playbooks.files.MAX_FILES", 3)
    for number in range(5):
        (folder / f"{number}.yaml").write_text(playbook())
    listing = shelves.listing()
    assert listing.is_truncated
    assert len(listing.summaries) == 4  # and what ships
    assert not Shelves([]).listing().is_truncated


def test_a_folder_full_of_other_things_is_not_looked_through_to_its_end(
    shelves: Shelves, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steward_server.playbooks.files.MAX_ENTRIES", 10)
    for number in range(20):
        (folder / f"{number}.txt").touch()
    assert shelves.listing().is_truncated


def test_hidden_files_backups_and_other_kinds_are_left_out(shelves: Shelves, folder: Path) -> None:
    (folder / ".git").mkdir()
    left_out = (".git/a.yaml", ".hidden.yaml", "a.backup.yaml", "a.yaml~", "a.txt", "a.YAML")
    for name in left_out:
        (folder / name).write_text(playbook())
    (folder / "folder.yaml").mkdir()
    assert [*listed(shelves)] == ["gateway/check.yaml"]
    assert shelves.text(".git/a.yaml") is None
    assert shelves.text("a.backup.yaml") is None
    assert shelves.text("folder.yaml") is None


def test_names_that_nobody_can_spell_are_left_out(shelves: Shelves, folder: Path) -> None:
    (folder / "a%2fb.yaml").write_text(playbook())
    (folder / "a:b.yaml").write_text(playbook())
    (folder / os.fsdecode(b"\xff.yaml")).write_text(playbook())
    assert [*listed(shelves)] == ["gateway/check.yaml"]


def link_to_file(folder: Path, outside: Path) -> str:
    (folder / "a.yaml").symlink_to(outside / "secret.yaml")
    return "a.yaml"


def relative_link(folder: Path, outside: Path) -> str:
    (folder / "a.yaml").symlink_to(f"../{outside.name}/secret.yaml")
    return "a.yaml"


def link_to_folder(folder: Path, outside: Path) -> str:
    (folder / "a").symlink_to(outside)
    return "a/secret.yaml"


def chain_of_links(folder: Path, outside: Path) -> str:
    (folder / "inside").mkdir()
    (folder / "inside" / "b.yaml").symlink_to("../c.yaml")
    (folder / "a.yaml").symlink_to("inside/b.yaml")
    (folder / "c.yaml").symlink_to(outside / "secret.yaml")
    return "a.yaml"


@pytest.mark.parametrize("make", [link_to_file, relative_link, link_to_folder, chain_of_links])
def test_links_out_of_the_folder_are_not_followed(
    shelves: Shelves, folder: Path, tmp_path: Path, make: Callable[[Path, Path], str]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.yaml").write_text(playbook("Secret"))
    path = make(folder, outside)
    with pytest.raises(UnsafePath):
        shelves.text(path)
    assert shelves.find(path) is None
    assert "Secret" not in {each.name for each in listed(shelves).values()}


def test_links_that_stay_inside_are_followed(shelves: Shelves, folder: Path) -> None:
    """As a mounted config map has them: a hidden folder, a link to it, and links to its files."""
    (folder / "..2026_11_27").mkdir()
    (folder / "..2026_11_27" / "a.yaml").write_text(playbook("Mounted"))
    (folder / "..data").symlink_to("..2026_11_27")
    (folder / "a.yaml").symlink_to("..data/a.yaml")
    assert listed(shelves)["a.yaml"].name == "Mounted"
    assert len(listed(shelves)) == 2


def test_links_in_a_circle_are_nothing(shelves: Shelves, folder: Path) -> None:
    (folder / "a.yaml").symlink_to("b.yaml")
    (folder / "b.yaml").symlink_to("a.yaml")
    (folder / "loop").symlink_to(".")
    assert shelves.text("a.yaml") is None
    assert listed(shelves)["a.yaml"].error == "1:1: a link that leads nowhere"
    assert "loop/a.yaml" not in listed(shelves)


@pytest.mark.timeout(5)
def test_a_pipe_and_a_device_are_told_and_never_opened(shelves: Shelves, folder: Path) -> None:
    os.mkfifo(folder / "pipe.yaml")
    (folder / "zero.yaml").symlink_to("/dev/zero")
    found = listed(shelves)
    assert found["pipe.yaml"].error == "1:1: it is no regular file"
    assert found["zero.yaml"].error == "1:1: it leads out of the library"
    with pytest.raises(BadPlaybook, match="no regular file"):
        shelves.text("pipe.yaml")


def test_a_file_that_may_not_be_read_is_told(
    shelves: Shelves, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.yaml").write_text(playbook())
    really = os.open

    def refused(path: object, *more: object, **named: object) -> int:
        if path == "a.yaml":
            raise PermissionError(13, "Permission denied")
        return really(path, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refused)  # who runs the tests may read everything
    assert listed(shelves)["a.yaml"].error == "1:1: it cannot be read: Permission denied"


LAUGHS = "name: &a [x,x]\n" + "".join(f"b{n}: &b{n} [*a,*a]\n" for n in range(50))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"x" * (MAX_BYTES + 1), "at most 1048576 are read"),
        (b"name: \xff\n", "not UTF-8"),
        (b"", "empty"),
        (LAUGHS.encode(), "needs the key 'steps'"),
        (b"[" * 1_000, "32 deep"),
        (b"\x00\x01", "cannot stand here"),
    ],
)
def test_a_hostile_file_is_listed_with_its_fault(
    shelves: Shelves, folder: Path, content: bytes, told: str
) -> None:
    (folder / "a.yaml").write_bytes(content)
    found = listed(shelves)["a.yaml"]
    assert (found.name, found.version) == ("a", "")
    assert found.error_count >= 1
    assert told in found.error


def test_what_is_wrong_because_of_another_is_told_and_untold(
    shelves: Shelves, folder: Path
) -> None:
    (folder / "outer.yaml").write_text(running("inner.yaml"))
    assert "there is no playbook 'inner.yaml'" in listed(shelves)["outer.yaml"].error
    inner = folder / "inner.yaml"
    inner.write_text(playbook())
    assert listed(shelves)["outer.yaml"].error == ""
    inner.write_text(running("outer.yaml"))
    assert "in a circle" in listed(shelves)["outer.yaml"].error
    inner.write_text("name: broken\n")
    assert "'inner.yaml' cannot be used" in listed(shelves)["outer.yaml"].error


def test_a_file_is_written_whole_with_the_folders_around_it(folder: Path) -> None:
    own = PlaybookFolder(folder / "new")
    own.write("a/b/c.yaml", b"one", replace=False)
    assert (folder / "new" / "a" / "b" / "c.yaml").read_bytes() == b"one"
    with pytest.raises(FileExistsError):
        own.write("a/b/c.yaml", b"two", replace=False)
    own.write("a/b/c.yaml", b"three", replace=True)
    assert (folder / "new" / "a" / "b" / "c.yaml").read_bytes() == b"three"
    assert names(folder / "new" / "a" / "b") == ["c.yaml"]


def test_nothing_is_written_or_deleted_through_a_link(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.yaml").write_text("kept")
    (folder / "link").symlink_to(outside)
    (folder / "file.yaml").symlink_to(outside / "a.yaml")
    own = PlaybookFolder(folder)
    with pytest.raises(NotADirectoryError):
        own.write("link/b.yaml", b"x", replace=True)
    with pytest.raises(NotADirectoryError):
        own.delete("link/a.yaml")
    own.write("file.yaml", b"x", replace=True)
    assert not (folder / "file.yaml").is_symlink()
    assert [each.read_text() for each in outside.iterdir()] == ["kept"]


def test_a_write_that_fails_leaves_what_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = PlaybookFolder(folder)
    own.write("a.yaml", b"one", replace=False)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        own.write("a.yaml", b"two", replace=True)
    assert names(folder) == ["a.yaml"]
    assert (folder / "a.yaml").read_bytes() == b"one"
