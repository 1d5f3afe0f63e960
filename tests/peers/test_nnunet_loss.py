"""The trainers' losses beside those that nnU-Net's own trainer builds: labels, regions, ignored voxels, DDP."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing

import voxloss

pytest.importorskip("nnunetv2")

pytestmark = pytest.mark.peers
LABELS = {"background": 0, "a": 1, "b": 2}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
KINDS = {
    "labels": LABELS,
    "labels, ignore": LABELS | {"ignore": 3},
    "regions": REGIONS,
    "regions, ignore": REGIONS | {"ignore": 4},
}


NAMES_OF_MAPS = {
    "cc_dice_ce": ["regions"],
    "blob": ["regions"],
    "skeleton_recall": ["skeletons"],
    "boundary": ["distances"],
    "compound": ["regions", "distances", "skeletons"],
}


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    monkeypatch.delenv("VOXLOSS_PARAMETERS", raising=False)


def built(trainer, labels, folder, *, batch_dice=True, deep=True, is_ddp=False):
    """What `trainer` builds as its loss: of the real class, with as much of its state as that reads."""
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    made = object.__new__(trainer)
    order = [1, 2, 3] if any(isinstance(values, list) for values in labels.values()) else None
    made.label_manager = LabelManager(labels, order)
    made.configuration_manager = SimpleNamespace(
        batch_dice=batch_dice, spacing=(2.0, 1.0, 1.0), pool_op_kernel_sizes=[[1, 1, 1], *[[2] * 3] * 3]
    )
    made.is_ddp, made.enable_deep_supervision, made.device, made.local_rank = is_ddp, deep, torch.device("cpu"), 0
    made.preprocessed_dataset_folder_base, made.output_folder = str(folder / "plans"), str(folder / "output")
    made.print_to_log_file = lambda *_, **__: None
    return made._build_loss()  # nnU-Net's name of the method that its trainers override


def problem(labels, *, deep=True, seed=0, batch=2):
    """Logits and targets at the resolutions of nnU-Net's deep supervision, as its loaders give targets."""
    generator = torch.Generator().manual_seed(seed)
    regions = [values for name, values in labels.items() if name not in ("background", "ignore")]
    multi = any(isinstance(values, list) for values in regions)
    ignore, channels = labels.get("ignore"), len(regions) + (not multi)
    logits, targets = [], []
    for size in (8, 4, 2) if deep else (8,):
        shape = (batch, 1, size, size + 2, size)
        mask = torch.randint(
            0, (ignore or max(4 if multi else 3, 1)) + (ignore is not None), shape, generator=generator
        )
        if multi:
            given = [torch.isin(mask, torch.tensor(values)) for values in regions]
            mask = torch.cat([*given, mask == ignore] if ignore is not None else given, 1)
        targets.append(mask if multi else mask.to(torch.int16))
        logits.append(2 * torch.randn(batch, channels, *shape[2:], generator=generator))
    return logits, targets


def outcome(loss, logits, targets):
    leaves = [given.clone().requires_grad_() for given in logits]
    value = loss(leaves, targets) if len(leaves) > 1 else loss(leaves[0], targets[0])
    value.backward()
    return value.detach(), [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]


@pytest.mark.parametrize("deep", [True, False], ids=["deep", "single"])
@pytest.mark.parametrize("batch_dice", [True, False], ids=["batch Dice", "sample Dice"])
@pytest.mark.parametrize("kind", KINDS)
def test_dice_cross_entropy_is_nnunets_own(kind, batch_dice, deep, tmp_path, record_property):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from voxloss.nnunet.trainer import TRAINERS

    settings = {"batch_dice": batch_dice, "deep": deep}
    theirs = built(nnUNetTrainer, KINDS[kind], tmp_path, **settings)
    ours = built(TRAINERS["nnUNetTrainerVoxlossDiceCrossEntropy"], KINDS[kind], tmp_path, **settings)
    logits, targets = problem(KINDS[kind], deep=deep)
    value, gradients = outcome(theirs, logits, [target.clone() for target in targets])
    our_value, our_gradients = outcome(ours, logits, targets)
    worst = max((a - b).abs().max().item() for a, b in zip(gradients, our_gradients, strict=True))
    print(f"{kind}: value {abs(value - our_value).item():.1e}, gradient {worst:.1e}")
    assert abs(value - our_value) <= 1e-6
    assert worst <= 1e-6
    assert our_gradients[0].abs().max() > 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", voxloss.list_losses())
def test_every_loss_has_values_and_gradients(name, kind, tmp_path):
    from voxloss.nnunet.names import trainer_name
    from voxloss.nnunet.trainer import TRAINERS

    loss = built(TRAINERS[trainer_name(name)], KINDS[kind], tmp_path)
    logits, targets = problem(KINDS[kind])
    value, gradients = outcome(loss, logits, targets)
    assert value.isfinite() and all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0].count_nonzero() > 0 and gradients[2].count_nonzero() == 0  # nnU-Net leaves out the coarsest
    if "ignore" in kind:
        ignored = targets[0][:, -1:] if "regions" in kind else targets[0] == KINDS[kind]["ignore"]
        assert gradients[0][ignored.expand_as(gradients[0])].count_nonzero() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_compound_follows_the_epochs(kind, tmp_path, monkeypatch):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from voxloss.nnunet.trainer import TRAINERS

    schedule = "{shape: linear, start: 0, end: 1, epochs: 10}"
    monkeypatch.setenv("VOXLOSS_PARAMETERS", f"{{losses: [dice, boundary], weights: [1, {schedule}]}}")
    loss = built(TRAINERS["nnUNetTrainerVoxlossCompound"], KINDS[kind], tmp_path)
    logits, targets = problem(KINDS[kind])
    monkeypatch.setattr(nnUNetTrainer, "on_train_epoch_start", lambda self: None)
    values = []
    for epoch in (0, 5, 10):
        trainer = object.__new__(TRAINERS["nnUNetTrainerVoxlossCompound"])
        trainer.loss, trainer.current_epoch = loss, epoch
        trainer.on_train_epoch_start()
        values.append(loss(logits, targets).item())
    assert values[1] - values[0] == pytest.approx(values[2] - values[1], rel=1e-4) and values[0] != values[1]


@pytest.mark.parametrize("name", ["dice_topk", "topk"])
def test_top_k_is_nnunets(name, tmp_path):
    from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerTopkLoss import (
        nnUNetTrainerDiceTopK10Loss,
        nnUNetTrainerTopk10Loss,
    )

    from voxloss.nnunet.names import trainer_name
    from voxloss.nnunet.trainer import TRAINERS

    theirs = nnUNetTrainerDiceTopK10Loss if name == "dice_topk" else nnUNetTrainerTopk10Loss
    logits, targets = problem(LABELS)
    ours, expected = (
        outcome(built(trainer, LABELS, tmp_path / trainer.__name__, batch_dice=True), logits, targets)
        for trainer in (TRAINERS[trainer_name(name)], theirs)
    )
    torch.testing.assert_close(ours[0], expected[0], rtol=1e-6, atol=1e-6)
    for own, other in zip(ours[1][:2], expected[1][:2], strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES_OF_MAPS)
def test_maps_of_the_loader_are_those_that_the_loss_makes(name, kind, tmp_path, monkeypatch):
    """As further channels of the target, through nnU-Net's own transforms, at the resolutions of its outputs."""
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
    from batchgeneratorsv2.transforms.utils.random import RandomTransform
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from voxloss.nnunet.names import trainer_name
    from voxloss.nnunet.trainer import TRAINERS, AddMaps

    if name == "compound":
        monkeypatch.setenv("VOXLOSS_PARAMETERS", "{losses: [boundary, skeleton_recall, blob]}")
    loss = built(TRAINERS[trainer_name(name)], KINDS[kind], tmp_path, deep=False)
    logits, (target,) = problem(KINDS[kind], deep=False)
    with_maps = torch.stack([loss.maps.add(sample) for sample in target])
    assert with_maps.shape[1] > target.shape[1] == loss.maps.channels and with_maps.dtype == (
        torch.float32 if "distances" in NAMES_OF_MAPS[name] else torch.int32
    )
    found, expected = outcome(loss, logits, [with_maps]), outcome(loss, logits, [target])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    own, given = loss.maps.split(with_maps)
    assert own.equal(target.int()) and list(given) == NAMES_OF_MAPS[name]

    trainer = object.__new__(TRAINERS[trainer_name(name)])
    trainer._maps = loss.maps
    settings = ([8, 8, 8], (0, 0), [[1, 1, 1], [0.5] * 3], None, False)
    transforms = trainer.get_training_transforms(*settings).transforms
    before = nnUNetTrainer.get_training_transforms(*settings).transforms
    assert [type(part) for part in transforms[:-2]] == [type(part) for part in before[:-1]]
    assert isinstance(transforms[-2], AddMaps) and isinstance(transforms[-1], DownsampleSegForDSTransform)
    assert not any(isinstance(part, RandomTransform) for part in transforms[-2:])
    scales = ComposeTransforms(transforms[-2:])(image=None, segmentation=target[0])["segmentation"]
    assert scales[0].equal(with_maps[0]) and scales[1].equal(with_maps[0][:, 1::2, 1::2, 1::2])
    validation = trainer.get_validation_transforms([[1, 1, 1], [0.5] * 3]).transforms
    assert not any(isinstance(part, AddMaps) for part in validation)  # nnU-Net counts the channels of the target there
    whole = nnUNetTrainer.get_training_transforms(*settings[:2], None, None, False).transforms
    trainer._maps = None
    assert len(trainer.get_training_transforms(*settings[:2], None, None, False).transforms) == len(whole)


def test_the_inner_loss_is_that_of_the_functional_form(tmp_path):
    from voxloss.nnunet.trainer import TRAINERS

    loss = built(TRAINERS["nnUNetTrainerVoxlossMixedFocal"], LABELS, tmp_path, batch_dice=True)
    logits, targets = problem(LABELS)
    expected = [voxloss.functional.mixed_focal_loss(x, y, pool="batch") for x, y in zip(logits, targets, strict=True)]
    torch.testing.assert_close(loss(logits, targets), expected[0] * 2 / 3 + expected[1] / 3)


def test_parameters_of_the_file_and_of_the_environment(tmp_path, monkeypatch):
    from voxloss.nnunet.trainer import TRAINERS

    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "voxloss.yaml").write_text("focal: {gamma: 3, alpha: 0.5}\ndice: {smooth: 1}\n")
    loss = built(TRAINERS["nnUNetTrainerVoxlossFocal"], LABELS, tmp_path, deep=False)
    assert (loss.gamma, loss.alpha) == (3, 0.5)
    monkeypatch.setenv("VOXLOSS_PARAMETERS", "{gamma: 1.5}")
    loss = built(TRAINERS["nnUNetTrainerVoxlossFocal"], LABELS, tmp_path, deep=False)
    assert (loss.gamma, loss.alpha) == (1.5, 0.5)
    record = json.loads((tmp_path / "output" / "voxloss.json").read_text())
    assert (record["loss"], record["parameters"]) == ("focal", {"gamma": 1.5, "alpha": 0.5})
    (tmp_path / "output" / "checkpoint_latest.pth").touch()
    monkeypatch.setenv("VOXLOSS_PARAMETERS", "{gamma: 2}")
    with pytest.raises(ValueError, match=r"began with focal and the parameters .*1.5.* but now has"):
        built(TRAINERS["nnUNetTrainerVoxlossFocal"], LABELS, tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{gamma: -1}", "gamma must"),
        ("{gama: 1}", "no parameter 'gama'"),
        ("3", "VOXLOSS_PARAMETERS must be a mapping"),
        ("{a: [", "VOXLOSS_PARAMETERS is not readable as YAML"),
        ("{activation: sigmoid}", "activation is decided by the data set's labels"),
    ],
)
def test_wrong_parameters(given, message, tmp_path, monkeypatch):
    from voxloss.nnunet.trainer import TRAINERS

    monkeypatch.setenv("VOXLOSS_PARAMETERS", given)
    with pytest.raises(ValueError, match=message):
        built(TRAINERS["nnUNetTrainerVoxlossFocal"], LABELS, tmp_path)


def rank(number, port, folder, kind, answers):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from voxloss.nnunet.trainer import TRAINERS

    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.distributed.init_process_group("gloo", rank=number, world_size=2)
    logits, targets = problem(KINDS[kind], seed=number)
    for name, trainer in (("theirs", nnUNetTrainer), ("ours", TRAINERS["nnUNetTrainerVoxlossDiceCrossEntropy"])):
        loss = built(trainer, KINDS[kind], folder / str(number), is_ddp=True)
        value, gradients = outcome(loss, logits, targets)
        torch.distributed.all_reduce(value)
        answers[name, number] = (value.item() / 2, [gradient.numpy() for gradient in gradients])
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_two_processes_give_what_nnunets_do(kind, tmp_path):
    """Values averaged over the processes, as nnU-Net logs them, and each process's gradient."""
    from nnunetv2.run.run_training import find_free_network_port

    for number in range(2):
        (tmp_path / str(number)).mkdir()
    with torch.multiprocessing.Manager() as manager:
        answers = manager.dict()
        arguments = (str(find_free_network_port()), tmp_path, kind, answers)
        torch.multiprocessing.spawn(rank, arguments, nprocs=2)
        for number in range(2):
            (value, gradients), (our_value, our_gradients) = answers["theirs", number], answers["ours", number]
            assert abs(value - our_value) <= 1e-6
            for theirs, ours in zip(gradients, our_gradients, strict=True):
                assert abs(theirs - ours).max() <= 1e-6


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's own in the working directory."""
    (tmp_path / "mine_nnunet.py").write_text(
        "import torch, voxloss\n"
        "from torch import nn\n"
        "class Weighted(nn.Module):\n"
        "    def __init__(self, weight=1.0, ignore_index=-100):\n"
        "        super().__init__()\n"
        "        self.loss, self.weight = nn.CrossEntropyLoss(ignore_index=ignore_index), weight\n"
        "    def forward(self, logits, labels):\n"
        "        assert logits.dtype == torch.float32 and labels.ndim == logits.ndim - 1\n"
        "        return self.weight * self.loss(logits, labels)\n"
        "def plain(logits, labels):\n"
        "    return nn.functional.cross_entropy(logits, labels)\n"
        "class Ours(voxloss.DiceLoss):\n"
        '    "Ours."\n'
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_trainer_of_an_own_loss_is_found_by_its_import_path(mine, monkeypatch):
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    from voxloss.nnunet.names import trainer_name, trainers_folder

    name = trainer_name("mine_nnunet.Weighted")
    assert name == "nnUNetTrainerVoxloss_mine_nnunet.Weighted"
    trainer = recursive_find_python_class(str(trainers_folder()), name, None)
    assert trainer is not None and trainer.__name__ == name
    monkeypatch.setenv("VOXLOSS_PARAMETERS", "{weight: 2.0}")
    for kind in ("labels", "labels, ignore"):
        logits, targets = problem(KINDS[kind])
        loss = built(trainer, KINDS[kind], mine / kind.replace(" ", ""))
        ignore = KINDS[kind].get("ignore", -100)
        value = loss(logits, targets)
        assert value.isfinite()
        first = torch.nn.functional.cross_entropy(logits[0], targets[0][:, 0].long(), ignore_index=ignore)
        assert loss.loss(logits[0], targets[0]).item() == pytest.approx(2 * first.item())
        with torch.autocast("cpu", torch.bfloat16):
            assert loss.loss(logits[0].bfloat16(), targets[0]).dtype == torch.float32
    record = json.loads((mine / "labels" / "output" / "voxloss.json").read_text())
    assert (record["loss"], record["parameters"]) == ("mine_nnunet.Weighted", {"weight": 2.0})


def test_an_own_loss_that_cannot_do_what_the_data_need(mine):
    from voxloss.nnunet.trainer import own_trainer
    from voxloss.utilities.errors import InputError

    plain, ours = (own_trainer(f"nnUNetTrainerVoxloss_mine_nnunet.{name}") for name in ("plain", "Ours"))
    with pytest.raises(ValueError, match="cannot ignore voxels"):
        built(plain, KINDS["labels, ignore"], mine / "a")
    with pytest.raises(ValueError, match=r"cannot be trained on regions, which only subclasses of voxloss\.Loss take"):
        built(plain, KINDS["regions"], mine / "b")
    for kind in ("regions", "regions, ignore"):
        logits, targets = problem(KINDS[kind])
        assert built(ours, KINDS[kind], mine / kind.replace(" ", ""))(logits, targets).isfinite()
    with pytest.raises(InputError, match="has no 'Plain'"):
        own_trainer("nnUNetTrainerVoxloss_mine_nnunet.Plain")
    with pytest.raises(InputError, match="divides folders' names"):
        own_trainer("nnUNetTrainerVoxloss_mine__nnunet.Plain")
    with pytest.raises(AttributeError):
        own_trainer("nnUNetTrainerVoxlossNone")
