"""A ledger: each job once, whenever it was stopped, however many are at work, and not by what does not matter."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from pullback.errors import InputError, Interrupted
from pullback.records.ledger import DONE, FAILED, LEDGER, RUNNING, STOPPED, Job, JobRecord, Ledger, read_ledger
from pullback.workflows.status import status


def job(folder: Path, name: str, about: object = 1) -> Job:
    (folder / "in").mkdir(exist_ok=True, parents=True)
    path = folder / "in" / name
    if not path.exists():
        path.write_text(f"bytes of {name}")
    return Job(name, about, (path,), (f"{name}.out",))


def upper(folder: Path, calls: list[str]):
    def make(job: Job) -> dict[str, str]:
        calls.append(job.name)
        text = job.inputs[0].read_text().upper() + str(job.about)
        (folder / job.outputs[0]).write_text(text)
        return {"text": text}

    return make


def run(folder: Path, jobs: list[Job], workers: int = 1) -> tuple[list[str], list[dict[str, str]]]:
    calls: list[str] = []
    found = list(Ledger(folder).map(jobs, upper(folder, calls), workers))
    assert [now for _, _, now in found] == [each.name in calls for each in jobs]
    return calls, [result for _, result, _ in found]


def test_each_job_is_done_once_and_answers_the_same(tmp_path):
    jobs = [job(tmp_path, name) for name in "abc"]
    calls, results = run(tmp_path, jobs)
    assert (calls, run(tmp_path, jobs)) == (list("abc"), ([], results))
    assert [r["text"] for r in results] == [f"BYTES OF {n}1".replace(n, n.upper()) for n in "abc"]


def test_what_a_result_depends_on_has_it_done_again_and_nothing_else(tmp_path):
    jobs = [job(tmp_path, name) for name in "abcd"]
    run(tmp_path, jobs)
    jobs[0].inputs[0].write_text("other bytes")
    (tmp_path / jobs[1].outputs[0]).unlink()
    jobs[2] = job(tmp_path, "c", about=2)
    os.utime(jobs[3].inputs[0], (1, 1))
    assert run(tmp_path, jobs)[0] == ["a", "b", "c"]
    shutil.move(tmp_path, tmp_path.with_name("moved"))
    moved = tmp_path.with_name("moved")
    jobs = [job(moved, name, 2 if name == "c" else 1) for name in "abcd"]
    assert run(moved, jobs)[0] == [], "elsewhere it is the same work"


def test_bytes_are_read_again_only_where_size_or_time_changed(tmp_path, monkeypatch):
    one, read = job(tmp_path, "a"), Path.read_bytes
    run(tmp_path, [one])
    seen: list[str] = []
    monkeypatch.setattr(Path, "read_bytes", lambda path: seen.append(path.name) or read(path))
    assert Ledger(tmp_path).known(one) is not None
    assert "a" not in seen
    os.utime(one.inputs[0], (5, 5))
    assert Ledger(tmp_path).known(one) is not None, "the same bytes"
    assert "a" in seen


@pytest.mark.parametrize("cut", range(0, 900, 37))
def test_killed_at_any_byte_of_the_record_it_goes_on_to_the_same_end(tmp_path, cut):
    jobs = [job(tmp_path, name) for name in "ab"]
    _, results = run(tmp_path, jobs)
    stored = (tmp_path / LEDGER).read_bytes()
    (tmp_path / LEDGER).write_bytes(stored[:cut])
    assert run(tmp_path, jobs)[1] == results
    assert {name: entry.status for name, entry in read_ledger(tmp_path).items()} == {"a": DONE, "b": DONE}


def test_a_failure_is_told_and_tried_again(tmp_path):
    jobs = [job(tmp_path, name) for name in "ab"]

    def broken(one: Job) -> None:
        if one.name == "b":
            raise InputError("b: no good; mend it")

    jobs = [Job(one.name, one.about, one.inputs) for one in jobs]
    with pytest.raises(InputError, match="no good"):
        list(Ledger(tmp_path).map(jobs, broken))
    assert [(line.name, line.status, line.error) for line in status(tmp_path)] == [
        ("a", DONE, ""),
        ("b", FAILED, "b: no good; mend it"),
    ]
    again: list[str] = []
    list(Ledger(tmp_path).map(jobs, lambda one: again.append(one.name)))
    assert again == ["b"]


def test_several_are_at_work_at_once_and_each_once(tmp_path):
    jobs, both = [job(tmp_path, name) for name in "abcdef"], threading.Barrier(2, timeout=10)
    calls: list[str] = []

    def meet(one: Job) -> str:
        both.wait()
        calls.append(one.name)
        (tmp_path / one.outputs[0]).touch()
        return one.name

    found = list(Ledger(tmp_path).map(jobs, meet, workers=2))
    assert [result for _, result, _ in found] == list("abcdef"), "told in order"
    assert sorted(calls) == list("abcdef")
    assert run(tmp_path, jobs)[0] == []


@pytest.mark.parametrize("workers", [1, 3])
def test_asked_to_stop_no_further_job_begins(tmp_path, workers):
    jobs, calls = [job(tmp_path, name) for name in "abcdefgh"], []
    with pytest.raises(Interrupted):
        list(Ledger(tmp_path).map(jobs, upper(tmp_path, calls), workers, lambda: len(calls) >= 2))
    assert 2 <= len(calls) < 2 + workers
    assert sorted([*calls, *run(tmp_path, jobs)[0]]) == list("abcdefgh")


def test_what_a_kill_left_running_is_told_as_stopped(tmp_path):
    ledger = Ledger(tmp_path)
    ledger._write("a", JobRecord("key", None, RUNNING))
    assert [line.status for line in status(tmp_path)] == [STOPPED]


@pytest.mark.parametrize("line", ["no json", "[]", '{"job": "a"}', '{"job": "a", "seen": {}, "more": 1}'])
def test_a_damaged_record_is_refused_by_file_and_line(tmp_path, line):
    run(tmp_path, [job(tmp_path, "a")])
    with (tmp_path / LEDGER).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=r"ledger\.jsonl: line 3 .*delete that line"):
        Ledger(tmp_path)
    lines = (tmp_path / LEDGER).read_text().splitlines()
    (tmp_path / LEDGER).write_text("\n".join(lines[:2]) + "\n")
    assert run(tmp_path, [job(tmp_path, "a")])[0] == []


def test_other_versions_are_told_and_stay_done(tmp_path):
    one = job(tmp_path, "a")
    run(tmp_path, [one])
    lines = [json.loads(line) | {"version": "0.0.1"} for line in (tmp_path / LEDGER).read_text().splitlines()]
    (tmp_path / LEDGER).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(tmp_path, [one])[0] == []


def test_nothing_recorded_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no work is recorded there"):
        status(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        status(tmp_path / "none")
