"""Networks by import path: what they are given, what they return, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import CASES, CPU, SMALL, history

import voxloss
from voxloss.config.files import load_config
from voxloss.config.networks import NetworkConfig
from voxloss.training.batches import TrainingJob
from voxloss.training.checkpoint import load_state
from voxloss.training.networks import check_network, make_network, outputs
from voxloss.training.predict import predict_probabilities
from voxloss.training.train import train
from voxloss.utilities.errors import InputError

CLASSES = ("background", "ball", "core")
SEGRESNET = [
    "--network.name", "monai.networks.nets.SegResNet",
    "--network.arguments", "{init_filters: 8, blocks_down: [1, 1], blocks_up: [1]}",
]  # fmt: skip
DYNUNET = [
    "--network.name", "monai.networks.nets.DynUNet",
    "--network.arguments",
    "{kernel_size: [3, 3, 3], strides: [1, 2, 2], upsample_kernel_size: [2, 2], filters: [4, 8, 8], "
    "deep_supervision: true, deep_supr_num: 1}",
]  # fmt: skip


def config(*overrides: str):
    return load_config(None, [*SMALL, *overrides])


def network_and_size(*overrides: str):
    chosen = config(*overrides)
    return chosen.network, chosen.patches.size


def run(folder: Path, *overrides: str) -> TrainingJob:
    folder.mkdir(parents=True, exist_ok=True)
    return TrainingJob(folder, config(*overrides), "mixed_focal", {}, 0, 0, CASES[:3], CASES[3:], CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [SEGRESNET, DYNUNET], ids=["SegResNet", "DynUNet"])
def test_networks_of_monai_train_and_resume(tmp_path, chosen):
    check_network(*network_and_size(*chosen), 1, 3)
    whole = train(run(tmp_path / "whole", *chosen, "--training.epochs", "4"), CPU)
    assert type(whole).__name__ == chosen[1].split(".")[-1]
    losses = [row["train_loss"] for row in history(tmp_path / "whole")]
    assert losses[-1] < losses[0]

    def stop_at_second_epoch() -> bool:
        return (tmp_path / "part" / "checkpoint.pt").exists()

    with pytest.raises(voxloss.training.train.InterruptedRunError):
        train(run(tmp_path / "part", *chosen, "--training.epochs", "4"), CPU, stop_at_second_epoch)
    resumed = train(run(tmp_path / "part", *chosen, "--training.epochs", "4"), CPU)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    assert load_state(tmp_path / "part" / "checkpoint.pt")["channels"] == 1


def test_several_outputs_are_all_supervised(tmp_path):
    network = make_network(*network_and_size(*DYNUNET), 1, 3).train()
    image, labels = torch.randn(1, 1, 8, 16, 16), torch.zeros(1, 8, 16, 16, dtype=torch.long)
    logits = outputs(network(image))
    assert [tuple(x.shape) for x in logits] == [(1, 3, 8, 16, 16)] * 2
    loss = voxloss.get_loss("mixed_focal")
    expected = (2 * loss(logits[0], labels) + loss(logits[1], labels)) / 3
    torch.testing.assert_close(voxloss.DeepSupervision(loss)(logits, labels), expected)
    assert [tuple(x.shape) for x in outputs(network.eval()(image))] == [(1, 3, 8, 16, 16)]
    assert outputs([1, 2]) == [1, 2]


@pytest.mark.parametrize(
    ("overrides", "channels", "words"),
    [
        (["--network.name", "monai.networks.nets.SegRezNet"], 1, "SegRezNet cannot be imported.*mean 'SegResNet'"),
        (["--network.name", "unet4d"], 1, "must be unet or an import path .* 'unet4d' cannot be imported"),
        (["--network.name", "no_such_package.Net"], None, "there is no module 'no_such_package'"),
        (["--network.name", "torch.float32"], 1, "torch.float32 is a dtype, which cannot be called to build a network"),
        (["--network.name", "collections.OrderedDict"], 1, "returns a OrderedDict, not a torch.nn.Module"),
        (["--network.name", "monai.networks.nets.SegResNet", "--network.arguments", "{filters: 4}"], 1,
         "cannot be built with these arguments: .*unexpected keyword argument 'filters'"),
        (["--network.name", "torch.nn.ReLU"], 1, r"returns \(1, 1, 8, 16, 16\) for a patch .*\(1, 3, 8, 16, 16\)"),
        ([*SEGRESNET[:2], "--network.arguments", "{in_channels: 2, init_filters: 8}"], 1,
         "does not take patches of 1 x 8 x 16 x 16"),
    ],
)  # fmt: skip
def test_what_is_refused(overrides, channels, words):
    with pytest.raises(InputError, match=words):
        check_network(*network_and_size(*overrides), channels, 3)


def test_arguments_belong_to_other_networks():
    with pytest.raises(InputError, match=r"network\.arguments must be empty for unet"):
        config("--network.arguments", "{filters: 4}")


def test_the_u_nets_earlier_name_is_understood():
    assert config("--network.name", "unet3d").network == config().network


def test_trying_a_network_leaves_the_generator_alone():
    before = torch.random.get_rng_state()
    check_network(*network_and_size(*SEGRESNET), 1, 3)
    assert torch.equal(torch.random.get_rng_state(), before)


SLICES = ["--patches.size", "[1,16,16]"]
PLANAR = {
    "unet": [],
    "SegResNet": SEGRESNET,
    "DynUNet": [
        *DYNUNET[:3],
        "{kernel_size: [3, 3, 3], strides: [1, 2, 2], upsample_kernel_size: [2, 2], filters: [4, 8, 8], "
        "norm_name: instance, deep_supervision: true, deep_supr_num: 1}",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("chosen", PLANAR.values(), ids=PLANAR)
def test_patches_of_one_slice_train_a_2d_network(tmp_path, chosen):
    check_network(*network_and_size(*chosen, *SLICES), 1, 3)
    network = train(run(tmp_path, *chosen, *SLICES, "--augmentation.probability", "0.5"), CPU)
    assert {parameter.ndim for parameter in network.parameters() if parameter.ndim > 1} == {4}
    losses = [row["train_loss"] for row in history(tmp_path)]
    assert losses[-1] < losses[0]
    volume = np.random.default_rng(0).normal(size=(1, 5, 20, 18)).astype(np.float32)
    probabilities = predict_probabilities(network, volume, config(*SLICES))
    assert probabilities.shape == (3, 5, 20, 18)
    single = predict_probabilities(network, volume[:, 2:3], config(*SLICES))
    np.testing.assert_allclose(probabilities[:, 2:3], single, atol=1e-5)


def test_all_outputs_of_a_2d_network_are_supervised():
    network = make_network(*network_and_size(*PLANAR["DynUNet"], *SLICES), 1, 3).train()
    logits = outputs(network(torch.randn(2, 1, 1, 16, 16)))
    assert [tuple(x.shape) for x in logits] == [(2, 3, 1, 16, 16)] * 2
    assert not torch.equal(*logits)


def test_a_2d_network_along_the_last_axis_sees_the_other_two():
    size = config(*SEGRESNET, "--patches.size", "[16,16,1]")
    check_network(size.network, size.patches.size, 1, 3)
    network = make_network(size.network, size.patches.size, 1, 3).eval()
    image = torch.randn(2, 1, 16, 16, 1)
    torch.testing.assert_close(outputs(network(image))[0][..., 0], network.network(image[..., 0]))


def test_a_network_of_monai_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"SegResNet needs MONAI, which is not installed: pip install"):
        check_network(NetworkConfig("monai.networks.nets.SegResNet"), None, None, 2)
