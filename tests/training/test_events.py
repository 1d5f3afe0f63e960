"""TensorBoard's own reader finds in the events what history.csv says, also after a kill and a resumption."""

import pytest

from voxloss.training.events import Events, scalars

ROW = {
    "train_loss": 1.5, "validation_loss": 1.25, "validation_dice": 0.5, "learning_rate": 3e-4, "seconds": 2.0,
    "waiting": 0.125, "gradient_shares": "focal=0.2500 focal_tversky=0.7500",
}  # fmt: skip


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), purge_orphaned_data=True)
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}


def test_what_is_written_is_read(tmp_path):
    events = Events(tmp_path, 0)
    for epoch in (1, 2, 3):
        events.write(ROW | {"epoch": epoch, "train_loss": 1.5 / epoch})
        assert read(tmp_path)["loss/train"][-1] == (epoch, pytest.approx(1.5 / epoch))  # while the run goes on
    seen = read(tmp_path)
    assert seen["gradient_share/focal_tversky"] == [(1, 0.75), (2, 0.75), (3, 0.75)]
    assert set(seen) == {tag for tag, _ in scalars(ROW)}


def test_a_lost_class_and_the_share_of_its_patches_are_curves(tmp_path):
    events = Events(tmp_path, 0)
    for epoch, lost in ((1, {}), (2, {"tumour [1]": False}), (3, {"tumour [1]": True})):
        row = ROW | {"epoch": epoch, "patches_with_class": '{"kidney": 0.9, "tumour [1]": 0.25}'}
        events.write(row, lost)
    seen = read(tmp_path)
    assert seen["class_lost/tumour [1]"] == [(2, 0.0), (3, 1.0)]
    assert seen["patches_with_class/tumour [1]"] == [(epoch, 0.25) for epoch in (1, 2, 3)]


def test_a_resumed_run_continues_its_curves(tmp_path, monkeypatch):
    first = Events(tmp_path, 0)
    for epoch in (1, 2, 3):
        first.write(ROW | {"epoch": epoch})
    with first.path.open("ab") as file:
        file.write(b"\x18\x00\x00")  # killed in the middle of a record
    monkeypatch.setattr("os.getpid", lambda: 99_999_999)
    second = Events(tmp_path, 2)  # the checkpoint of epoch 3 was not reached
    for epoch in (3, 4):
        second.write(ROW | {"epoch": epoch, "train_loss": 0.5})
    assert read(tmp_path)["loss/train"] == [(1, 1.5), (2, 1.5), (3, 0.5), (4, 0.5)]


def test_what_a_process_writes_after_another_has_taken_over_is_not_seen(tmp_path, monkeypatch):
    lost = Events(tmp_path, 0)
    for epoch in (1, 2):
        lost.write(ROW | {"epoch": epoch})
    monkeypatch.setattr("os.getpid", lambda: 99_999_999)
    owner = Events(tmp_path, 1)
    for epoch in (2, 3):
        owner.write(ROW | {"epoch": epoch, "train_loss": 0.5})
    for epoch in (3, 4):
        lost.write(ROW | {"epoch": epoch})
    assert read(tmp_path)["loss/train"][-2:] == [(2, 0.5), (3, 0.5)]


def test_training_goes_on_where_events_cannot_be_written(tmp_path):
    (tmp_path / "events").write_text("a file")
    events = Events(tmp_path / "events" / "dice", 0)
    events.write(ROW | {"epoch": 1})
    (tmp_path / "events").unlink()
    events.write(ROW | {"epoch": 2})  # what was kept back is written now
    assert [step for step, _ in read(tmp_path / "events" / "dice")["loss/train"]] == [1, 2]
