from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

from steward_server.environments.sandbox import record
from steward_server.environments.sandbox.record import Record


def _record() -> Record:
    return Record(
        environment_id="env-1",
        cgroup="env-1",
        pid=os.getpid(),
        started_ticks=record.started_ticks(os.getpid()),
        boot_id=record.boot_id(),
        uid_base=1 << 30,
        image_root="/images/x",
        user=1000,
        group=1000,
        image="host",
        command=("sleep", "1"),
        env={"TOKEN": "secret"},
        ingress_ports=(80,),
    )


def test_a_record_is_read_as_it_was_written_and_by_root_alone(tmp_path: Path) -> None:
    _record().write(tmp_path)

    assert record.read(tmp_path) == _record()
    assert (tmp_path / "record.json").stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_process_is_known_by_its_number_its_beginning_and_the_run_of_the_host() -> None:
    found = _record().open()

    assert found is not None
    assert f"Pid:\t{os.getpid()}\n" in Path(f"/proc/self/fdinfo/{found}").read_text()
    os.close(found)
    assert replace(_record(), started_ticks=1).open() is None
    assert replace(_record(), boot_id="another").open() is None
    assert replace(_record(), pid=2**22).open() is None


def test_a_number_that_is_a_threads_by_now_is_no_machine() -> None:
    is_over = threading.Event()
    thread = threading.Thread(target=is_over.wait)
    thread.start()
    try:
        assert replace(_record(), pid=thread.native_id or 0).open() is None
    finally:
        is_over.set()
        thread.join()


def test_what_makes_no_sense_is_no_record(tmp_path: Path) -> None:
    assert record.read(tmp_path) is None
    for text in ("", "{", "[]", '{"pid": 1}'):
        (tmp_path / "record.json").write_text(text)
        assert record.read(tmp_path) is None
