"""The command line itself: what it imports, prints and exits with, whatever the command."""

import io
import os
import platform
import re
import subprocess
import sys

import pytest
import torch
from rich.console import Console

import voxloss
from study_helpers import command, tiny_run
from voxloss.commands import check, losses, main, run
from voxloss.commands.display.preparation import preparation_bar, working
from voxloss.commands.main import run_command
from voxloss.data.phantom.write import write_phantom
from voxloss.study import plan
from voxloss.utilities.errors import InputError

COMMANDS = [
    "demo", "quick", "run", "race", "plan", "config", "status", "stop", "retire", "report", "view", "predict", "losses",
    "import", "nnunet-trainers", "evidence", "check", "advise", "completion",
]  # fmt: skip
EXIT_STATUSES = {
    "0": "success",
    "1": "`check` or `plan` found problems",
    "2": "wrong input, a missing package or a failed run",
    "130": "interrupted",
}


def exit_status(arguments: list[str]) -> int:
    try:
        return run_command(arguments)
    except SystemExit as end:
        return end.code


def test_help_lists_every_command_and_the_exit_statuses(capsys):
    assert exit_status(["--help"]) == 0
    text = capsys.readouterr().out
    assert re.findall(r"^    ([a-z-]+)", text, re.MULTILINE) == COMMANDS
    for status, meaning in EXIT_STATUSES.items():
        assert re.search(rf"^  {status} +{re.escape(meaning)}", text, re.MULTILINE)
        assert f"{status} {meaning}" in " ".join(main.__doc__.split())


@pytest.mark.parametrize("arguments", [[name] for name in COMMANDS] + [["import", "nnunet"], ["import", "csv"]])
def test_help_of_each_command(capsys, arguments):
    assert exit_status([*arguments, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: voxloss {' '.join(arguments)} ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stats", "x"], "'stats' is not a command; did you mean 'status'?"),
        (["xyz"], "'xyz' is not a command; see `voxloss --help`"),
        (["/"], "'/' is not a command; did you mean `voxloss quick /`?"),
        (["import", "nnUnet"], "'nnUnet' is not a source; did you mean 'nnunet'?"),
        (["completion", "fish"], "argument SHELL: takes bash or zsh; received 'fish'"),
        (["check", "x", "--layout", "foldr"], "there is no layout 'foldr'"),
        (["run", "folder", "/"], "unknown argument /; did you mean `--data /`?"),
        (["run", "folder", "here"], "unknown argument here; see `voxloss run --help`"),
        (["run", "folder", "--losess", "dice"], "unknown argument --losess; did you mean '--losses'?"),
        (["run", "folder", "--epochs", "3"], "unknown argument --epochs; did you mean '--training.epochs'?"),
        (["run", "folder", "--trainin.epochs", "3"], "did you mean '--training.epochs'?"),
        (["run", "folder", "--training.epochs", "3", "4"], "unknown argument 4;"),
        (["run", "folder", "--data", ".", "--losses", "dise"], "unknown loss 'dise' (did you mean 'dice'?)"),
        (["plan", "folder", "--data", ".", "--losses", "dise"], "unknown loss 'dise' (did you mean 'dice'?)"),
        (["quick", ".", "--losses", "dise"], "unknown loss 'dise' (did you mean 'dice'?)"),
        (["run", "kits20"], "did you mean 'kits19'?"),
        (["run", "/"], "name it with --data, as in `voxloss run folder --data /`"),
        (["quick", "--data", "/"], "the data are named without --data: `voxloss quick DATA`"),
        (["check", "/", "--data=/"], "the data are named without --data: `voxloss check DATA`"),
        (["status"], "the following arguments are required: STUDY; see `voxloss status --help`"),
        (["status", "x", "--twice", "3"], "unknown argument --twice; see `voxloss status --help`"),
        (["status", "x", "y"], "unknown argument y;"),
        (["report", "x", "--viewer", "3"], "unknown argument --viewer"),  # options are not abbreviated
        (["report", "x", "--viewer-cases", "-1"], "--viewer-cases must be 0 or more; received -1"),
        (["view", "x", "--port", "y"], "argument --port: takes a whole number; received 'y'"),
        (["import", "csv", "t", "--study", "s", "--bar"], "unknown argument --bar; see `voxloss import csv --help`"),
        (["config", "--training.epochs=3"], "needs a preset or a YAML file before the options"),
        (["config", "demo", "--training.epoch", "3"], "training has no key 'epoch'; its keys are epochs, iterations"),
        (["config", "demo", "--training.epoch", "3"], "did you mean 'epochs'?"),
        (["config", "demo", "--comparison.primary_metric", "dise"], "must be one of dice, precision, recall, nsd"),
        (["config", "demo", "--network.norm", "instnce"], "takes batch or instance; received instnce; did you mean"),
        (["config", "demo", "--preparation.spacing_mm", "medan"], "received medan; did you mean 'median'?"),
        (["status", "/usr/locl"], "argument STUDY: /usr/locl does not exist; did you mean '/usr/local'?"),
        (["quick", "/usr/locl"], "argument DATA: /usr/locl does not exist; did you mean '/usr/local'?"),
        (["plan", "folder", "--data", "/usr/locl"], "argument --data: /usr/locl does not exist; did you mean"),
        (["check", "x", "--config", "demo", "--layout", "folder"], "give either --config or --layout"),
        (["run", "demo", "--folds", "a"], "--folds takes whole numbers separated by commas; received 'a'"),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_status_2(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert exit_status(arguments) == 2
    out, error = capsys.readouterr()
    assert not out and error.startswith("voxloss: ") and message in error
    assert error.endswith((".\n", "?\n")) and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_a_command_the_help_is_shown(capsys):
    assert exit_status([]) == 0
    without = capsys.readouterr().out
    assert exit_status(["--help"]) == 0
    assert capsys.readouterr().out == without


def test_the_version_names_the_packages_and_the_device(capsys):
    assert exit_status(["--version"]) == 0
    lines = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["voxloss"] == voxloss.__version__ and lines["torch"] == torch.__version__
    assert lines["python"] == platform.python_version() and lines["device"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_options(capsys, shell):
    pytest.importorskip("shtab")
    assert exit_status(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "nnunet-trainers" in script and "--viewer-cases" in script


def test_completion_without_its_package_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert exit_status(["completion", "bash"]) == 2
    assert 'pip install -c constraints.txt ".[completion]"' in capsys.readouterr().err


def test_a_network_in_the_working_directory_is_found_and_hides_nothing(capsys, monkeypatch, tmp_path):
    (tmp_path / "json.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(losses, "losses", lambda _: 0)
    assert exit_status(["losses"]) == 0
    assert sys.path[-1] == str(tmp_path) and sys.path[0] != str(tmp_path)


class Raises:
    """A command's action that raises one error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, arguments):
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (InputError("scores.csv is\nno table."), 2, "voxloss: scores.csv is no table.\n"),
        (
            ModuleNotFoundError("No module named 'rich'", name="rich.console"), 2,
            "voxloss: this command needs the package 'rich'; install it with: "
            'pip install -c constraints.txt ".[bench]" (in a checkout of voxloss).\n',
        ),
        (PermissionError(13, "Permission denied", "/data"), 2, "voxloss: /data: Permission denied.\n"),
        (OSError("no space"), 2, "voxloss: no space.\n"),
        (KeyboardInterrupt(), 130, "Stopped. Run the same command to resume.\n"),
    ],
)  # fmt: skip
def test_what_a_command_raises(capsys, monkeypatch, error, status, message):
    monkeypatch.setattr(run, "run", Raises(error))
    assert exit_status(["run", "demo"]) == status
    assert capsys.readouterr().err == message


def test_only_a_study_is_said_to_be_resumed(capsys, monkeypatch):
    monkeypatch.setattr(check, "check", Raises(KeyboardInterrupt()))
    assert exit_status(["check", "data"]) == 130
    assert capsys.readouterr().err == "Stopped.\n"


@pytest.mark.parametrize("error", [ModuleNotFoundError(name="voxloss.nothing"), KeyError("ours")])
def test_our_own_mistakes_keep_their_traceback(monkeypatch, error):
    monkeypatch.setattr(run, "run", Raises(error))
    with pytest.raises(type(error)):
        run_command(["run", "demo"])


def test_check_exits_with_1_on_problems(capsys, tmp_path):
    write_phantom(tmp_path / "data", cases=2, seed=0, setting="small")
    assert exit_status(["check", str(tmp_path / "data")]) == 0
    (tmp_path / "data" / "case_00001" / "imaging.nii.gz").write_bytes(b"no image")
    assert exit_status(["check", str(tmp_path / "data")]) == 1
    assert "case_00001" in capsys.readouterr().out


@pytest.mark.slow
def test_plan_exits_with_1_where_memory_is_short(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "available_memory", lambda *_: 1)
    # The peak of this process may be that of an earlier test.
    monkeypatch.setattr(plan, "peak_memory", iter(range(10**9, 10**12, 10**9)).__next__)
    write_phantom(tmp_path / "data", cases=4, seed=0, setting="small")
    arguments = tiny_run(tmp_path / "data", tmp_path, report=True)[1:]
    place = arguments.index("--study")
    assert exit_status(list(map(str, ["plan", *arguments[:place], *arguments[place + 2 :]]))) == 1
    assert "not enough memory: " in capsys.readouterr().out


def test_the_parsers_import_nothing_heavy():
    """`voxloss --help` answers at once: the standard library and the commands' own files suffice."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "from voxloss.commands.main import run_command\n"
        "try: run_command(['--help'])\n"
        "except SystemExit: pass\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - sys.stdlib_module_names), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert result.stdout.startswith("usage: ") and result.stderr.split() == ["voxloss"]


@pytest.mark.slow
def test_a_closed_pipe_prints_nothing():
    code = "from voxloss.commands.main import main; main(['losses'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()  # before the command prints
    assert process.wait(600) == 1
    assert process.stderr.read() == ""


def test_python_dash_m_is_the_command():
    result = command("config")
    assert (result.returncode, result.stderr) == (0, "") and "kits19" in result.stdout.split()


def test_the_old_place_of_main_warns():
    code = "import voxloss.cli, voxloss.commands.main as new; assert voxloss.cli.main is new.main"
    result = subprocess.run(
        [sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    assert "DeprecationWarning: voxloss.cli was renamed to voxloss.commands.main" in result.stderr


def test_bars_are_for_terminals_only(tmp_path):
    """FORCE_COLOR, which notebooks set, colours what is printed and does not fill a file with moving bars."""
    write_phantom(tmp_path / "data", cases=2, seed=0, setting="small")
    result = command("check", tmp_path / "data", env=os.environ | {"FORCE_COLOR": "1"})
    assert result.returncode == 0 and "ready to run" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_being_done_is_said_once(terminal, capsys):
    """By a spinner or a bar on a terminal, elsewhere by a line on stderr; stdout is for results."""
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    with working(Console(file=stream), "reading the headers") as say:
        say("simulating studies")
    with preparation_bar(Console(file=stream)) as bar:
        bar(0, 2, "preparing")
        bar(1, 2, "prepared a")
        bar(2, 2, "prepared b")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == ("" if terminal else "reading the headers\nsimulating studies\npreparing: 2 cases\n")
    assert ("simulating" in stream.getvalue()) <= terminal
