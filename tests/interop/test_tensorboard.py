"""TensorBoard's event file of a run, read by other hands: the checksums by google-crc32c, the protobuf by the few lines below."""

import json
import signal
import struct
import subprocess

import google_crc32c
from test_training import command, corpus, wait_for  # noqa: F401  (corpus: a fixture)


def masked(data):
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(path):
    """TFRecords: length, checksum of it, data, checksum of it."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        assert struct.unpack_from("<I", data, at + 8)[0] == masked(data[at : at + 8])
        found.append(data[at + 12 : at + 12 + length])
        assert struct.unpack_from("<I", data, at + 12 + length)[0] == masked(found[-1])
        at += length + 16
    assert at == len(data)
    return found


def varint(data, at):
    value, shift = 0, 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at


def fields(data):
    """(number, value) of a protobuf message: integers, bytes, doubles and floats."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 1:
            value, at = struct.unpack_from("<d", data, at)[0], at + 8
        elif key & 7 == 5:
            value, at = struct.unpack_from("<f", data, at)[0], at + 4
        else:
            assert key & 7 == 2, "a wire type that event.proto does not have"
            length, at = varint(data, at)
            value, at = data[at : at + length], at + length
        yield key >> 3, value


def scalars(run):
    """[(step, wall time, {tag: value})] of the one event file of a run."""
    (path,) = (run / "tensorboard").glob("events.out.tfevents.*")
    events = [dict(fields(record)) for record in records(path)]
    assert events[0][3] == b"brain.Event:2"
    found = []
    for event in events[1:]:
        values = [dict(fields(value)) for number, value in fields(event[5]) if number == 1]
        found.append((event[2], event[1], {value[1].decode(): value[2] for value in values}))
    return found


def logged(run):
    return [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]


def test_the_event_file_says_what_the_log_says(binary, corpus, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    subprocess.run(command(binary, corpus, run, "--set", "data.holdout=0.2", "--set", "validate.every=8"), check=True, stdout=subprocess.PIPE)
    log, events = logged(run), scalars(run)
    assert len(log) == len(events)
    assert {line.get("event") for line in log} == {None, "validate"}
    for line, (step, wall, tags) in zip(log, events):
        room = line.get("event", "train")
        assert step == line["step"] + (12 if line["stage"] == 2 else 0)
        assert wall == line["time"]
        wanted = {f"{room}/{k}": v for k, v in line.items() if isinstance(v, (int, float)) and k not in ("stage", "step", "time")}
        assert tags.keys() == wanted.keys() and f"{room}/loss" in tags
        assert all(abs(tags[k] - v) <= 1e-6 * abs(v) for k, v in wanted.items())


def test_a_killed_and_resumed_run_has_every_step_once(binary, corpus, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    for _ in range(3):
        process = subprocess.Popen(command(binary, corpus, run, "--resume"), stdout=subprocess.DEVNULL)
        log = run / "train.jsonl"
        steps = len(log.read_text().splitlines()) if log.exists() else 0
        while process.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < steps + 5):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        (path,) = (run / "tensorboard").glob("events.out.tfevents.*")
        path.write_bytes(path.read_bytes() + b"\x18\0\0\0half a record")  # as a kill may leave it
    subprocess.run(command(binary, corpus, run, "--resume"), check=True, stdout=subprocess.DEVNULL)
    assert [step for step, _, _ in scalars(run)] == list(range(1, 37))
    walls = [wall for _, wall, _ in scalars(run)]
    assert walls == sorted(walls)


def test_it_can_be_switched_off(binary, corpus, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    off = ("--set", "train.tensorboard=false", "--set", "stage1.steps=1", "--set", "stage2.steps=0")
    subprocess.run(command(binary, corpus, run, *off), check=True, stdout=subprocess.DEVNULL)
    assert not (run / "tensorboard").exists()
    assert "tensorboard = false" in (run / "config.resolved.toml").read_text()
