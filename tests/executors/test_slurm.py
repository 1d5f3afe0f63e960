"""Studies as jobs of a real Slurm, whose nodes are on this machine."""

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import slurm_lab
from slow_study import wait_for

from study_helpers import call, command, tiny_run
from voxloss.config.schema import ExecutionConfig
from voxloss.study.execution.slurm import minutes_of, parameters_of, sbatch_options
from voxloss.utilities.errors import InputError

pytest.importorskip("submitit", reason="submitit is not installed (the extra slurm)")

# The workers count as processes of different machines, which only heartbeats tell to be alive.
ON_NODES = ["--execution.setup", '["export VOXLOSS_HOST=$SLURMD_NODENAME"]']
EXCLUSIVE = ["--execution.sbatch", '["--exclusive"]']  # one job per node
SLURM = ["--execution.executor", "slurm", "--execution.partition", "main"]


@pytest.fixture(scope="module")
def lab():
    if (reason := slurm_lab.why_not()) is not None:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="lab") as folder, slurm_lab.slurm_lab(Path(folder) / "slurm") as started:
        yield started


def job_states(lab) -> dict[str, str]:
    return {job: state for job, (state, _) in lab.jobs().items()}


@pytest.mark.executors
@pytest.mark.slow
def test_jobs_that_are_cancelled_preempted_or_lose_their_node_change_no_score(lab, study, expected):
    said = study.end(
        study.start(
            *SLURM, *ON_NODES, "--execution.jobs", 3, *EXCLUSIVE, "--detach",
            environment=lab.environment,
        )
    )  # fmt: skip
    assert "3 jobs submitted to Slurm.\n" in said
    # One job per node, each with a run.
    wait_for(lambda: len(study.at_work()) == 3, "three workers")
    jobs = {node: job for job, (state, node) in lab.jobs().items() if state == "RUNNING"}
    assert len(jobs) == 3 and {host for host, _, _ in study.at_work().values()} == set(jobs)
    cancelled, preempted, dead = jobs

    lab.call("scancel", jobs[cancelled])
    wait_for(lambda: jobs[cancelled] not in lab.jobs(), "the job to be cancelled")

    lab.call("sbatch", "--partition=urgent", f"--nodelist={preempted}", "--exclusive", "--output=/dev/null", "--wrap=:")
    wait_for(lambda: job_states(lab).get(jobs[preempted]) == "PENDING", "the job to be queued again")
    lab.start_now()

    assert dead in {host for host, _, _ in study.at_work().values()}
    lab.kill_node(dead)
    wait_for(lambda: job_states(lab).get(jobs[dead]) == "PENDING", "Slurm to miss the node")
    study.hurry()

    def finished() -> bool:
        lab.start_now()
        return study.ended() == 4 and not lab.jobs()

    wait_for(finished, "the study's end")
    study.run()  # nothing is left but to merge the scores
    assert study.scores() == expected
    assert study.takeovers() >= 1


@pytest.mark.executors
@pytest.mark.slow
def test_a_job_is_queued_again_at_its_time_limit_and_the_study_moves_to_this_machine(lab, study, expected):
    """The signal comes 40 to 70 s before the limit of two minutes."""
    study.end(
        study.start(
            *SLURM, "--execution.jobs", 1, "--execution.time", 2, *EXCLUSIVE, "--detach", environment=lab.environment
        )
    )
    wait_for(lambda: any(epoch >= 1 for _, _, epoch in study.at_work().values()), "the first epoch")
    (job,) = lab.jobs()
    wait_for(lambda: job_states(lab).get(job) == "PENDING", "the job to be queued again")
    assert "Restarts=1" in lab.call("scontrol", "show", "job", job)
    assert not study.at_work(), "the run was not released"
    assert {path.name for path in study.folder.glob(".execution/slurm/*.out")} == {f"{job}_0_log.out"}, "two tasks"
    assert study.takeovers() == 0

    lab.start_now()
    wait_for(study.at_work, "the job to go on")
    assert "running" in command("status", study.folder, "--once", env=lab.environment).stdout
    stopped = command("stop", study.folder, env=lab.environment)
    assert stopped.returncode == 0, stopped.stderr
    assert not lab.jobs() and not study.at_work()
    assert len(list(study.folder.glob("runs/*/*/.seed-*/attempt-*/checkpoint.pt"))) > 0

    study.run()
    assert study.scores() == expected


@pytest.mark.executors
@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("partition", "nightly", ["Invalid partition", "execution.partition"]),
        ("gres", "tpu:1", ["generic resource", "execution.gres"]),
        ("constraint", "a100", ["Invalid feature", "execution.constraint"]),
        ("gres", "gpu:4", ["node configuration", "execution.gres"]),
    ],
)
def test_what_slurm_refuses_gets_one_sentence_and_the_study_goes_on(
    lab, own_study, phantom, monkeypatch, option, value, words
):
    monkeypatch.setenv("SLURM_CONF", lab.environment["SLURM_CONF"])
    shutil.rmtree(own_study / "runs" / "dice")
    arguments = tiny_run(phantom, own_study, "--execution.executor", "slurm", f"--execution.{option}", value)
    refused = call(*arguments)
    assert refused.returncode == 2
    assert all(word in refused.stderr for word in words), refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert call(*tiny_run(phantom, own_study, "--execution.executor", "local")).returncode == 0


@pytest.mark.executors
@pytest.mark.slow
def test_a_study_whose_workers_cannot_start_says_why(lab, study):
    words = ["--execution.executor", "slurm", "--execution.python", "/nowhere/python"]
    process = study.start(*words, environment=lab.environment)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 2
    assert "All jobs have left Slurm" in errors and "_log.err" in errors and "/nowhere/python" in errors


@pytest.mark.executors
@pytest.mark.slow
def test_a_preempted_job_that_leaves_within_its_grace_time_is_queued_again(study, tmp_path_factory):
    """Slurm takes such a job for finished, and would not queue it again by itself."""
    if (reason := slurm_lab.why_not()) is not None:
        pytest.skip(reason)
    with (
        tempfile.TemporaryDirectory(prefix="lab") as folder,
        slurm_lab.slurm_lab(Path(folder) / "slurm", nodes=1, grace_s=60) as lab,
    ):
        study.end(study.start(*SLURM, "--execution.jobs", 1, "--detach", environment=lab.environment))
        wait_for(study.at_work, "a worker")
        (job,) = lab.jobs()
        lab.call("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=:")
        wait_for(lambda: job_states(lab).get(job) == "PENDING", "the job to be queued again")
        assert not study.at_work()
        assert command("stop", study.folder, env=lab.environment).returncode == 0
        assert not lab.jobs()


# Without a Slurm.


@pytest.fixture
def without_slurm(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("without_slurm")
def test_no_slurm_on_the_path_is_said_before_anything_is_written(phantom, tmp_path):
    done = call(*tiny_run(phantom, tmp_path / "study", *SLURM))
    assert done.returncode == 2
    assert "sbatch" in done.stderr and "PATH" in done.stderr and "--execution.executor local" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "study").exists()


def test_submitit_is_named_where_it_is_missing(phantom, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    done = call(*tiny_run(phantom, tmp_path / "study", *SLURM))
    assert done.returncode == 2 and 'pip install -c constraints.txt ".[slurm]"' in done.stderr
    assert not (tmp_path / "study").exists()


@pytest.mark.usefixtures("without_slurm")
def test_a_study_with_jobs_can_be_stopped_from_a_machine_without_slurm(own_study):
    note = own_study / ".execution" / "slurm-17.json"
    note.parent.mkdir(exist_ok=True)
    note.write_text(json.dumps({"jobs": 2, "request": "{}"}))
    assert call("stop", own_study).returncode == 0
    assert not note.exists()


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("1:30", 2), ("4:00:00", 240), ("2-12", 60 * 60), ("1-0:30", 1470), ("1-2:03:04", 1564), ("0", 1)],
)
def test_time_limits_have_slurms_forms(text, minutes):
    assert minutes_of(text) == minutes
    ExecutionConfig(time=text)


@pytest.mark.parametrize("text", ["", "4h", "1:2:3:4", "-5", "four", 14400])
def test_other_time_limits_are_refused(text):
    with pytest.raises(InputError, match=r"execution\.time"):
        ExecutionConfig(time=text)


def test_options_of_sbatch_are_read_as_people_write_them():
    lines = ("#SBATCH --mem=16G", "--qos long", "--exclusive", "--comment=a=b", "--mail-user=me@lab.org")
    ExecutionConfig(sbatch=lines)
    assert sbatch_options(lines) == {
        "mem": "16G", "qos": "long", "exclusive": True, "comment": "a=b", "mail-user": "me@lab.org",
    }  # fmt: skip
    with pytest.raises(InputError, match="long form"):
        ExecutionConfig(sbatch=("-n 4",))


def test_the_script_of_a_job_says_what_the_settings_say(tmp_path):
    submitit = pytest.importorskip("submitit")
    settings = ExecutionConfig(
        executor="slurm", partition="gpu", account="lab", gres="gpu:1", constraint="a100", time="1-0", threads=8,
        sbatch=("--mem=32G",), setup=("module load cuda",),
    )  # fmt: skip
    executor = submitit.SlurmExecutor(tmp_path, python="apptainer exec image.sif python")
    executor.update_parameters(**parameters_of("mine", settings, 12))
    executor.parameters["map_count"] = 20
    script = executor._make_submission_file_text(executor._submitit_command_str, "0")
    for line in (
        "--array=0-19%12", "--partition=gpu", "--account=lab", "--gres=gpu:1", "--constraint=a100", "--time=1-0",
        "--cpus-per-task=8", "--mem=32G", "--requeue", "--signal=USR2@120", "--job-name=voxloss-mine",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in script, script
    assert "\nmodule load cuda\n" in script and "--cpus-per-task=8 apptainer exec image.sif python" in script
    assert "wckey" not in script


@pytest.mark.executors
@pytest.mark.slow
def test_the_script_of_the_page_runs_a_study(lab, study, expected):
    """A script as people write it, with the names of this test in the place of the page's."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "slurm.md").read_text(encoding="utf-8")
    script = re.search(r"```bash\n(.*?)```", page, re.DOTALL)[1]
    commands = study.place / "bin"
    commands.mkdir()
    (commands / "voxloss").write_text(f'#!/bin/sh\nexec {sys.executable} -m voxloss "$@"\n')
    (commands / "voxloss").chmod(0o755)
    for old, new in {
        "--partition=gpu": "--partition=main",
        "--cpus-per-task=8": "--cpus-per-task=1",
        ".threads 8": ".threads 1",
        "--array=0-15%8": "--array=0-1%2",
        "source .venv/bin/activate": f"export PATH='{commands}':$PATH",
        "studies/mine": f"'{study.folder}'",
    }.items():
        assert old in script
        script = script.replace(old, new)
    (study.place / "mine.sbatch").write_text(script)
    study.run("--folds", 0)  # so that it exists
    (study.place / "slowly").touch()
    lab.call("sbatch", f"--chdir={study.place}", "mine.sbatch", cwd=study.place)
    wait_for(lambda: len(study.at_work()) == 2, "two runs at work")
    lab.call("scancel", "--signal=USR1", "--batch", next(iter(lab.jobs())))
    wait_for(lambda: "PENDING" in job_states(lab).values(), "the job to be queued again")
    study.hurry()

    def finished() -> bool:
        lab.start_now()
        return not lab.jobs()

    wait_for(finished, "the study's end")
    assert study.scores() == expected
