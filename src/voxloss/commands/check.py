"""`voxloss check`: the problems of a data set, and how rare its structures are."""

import argparse
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from voxloss.commands.shared import Parsers, add_command, existing_path
from voxloss.utilities.errors import InputError

if TYPE_CHECKING:
    from voxloss.config.schema import StudyConfig
    from voxloss.data.check.findings import Report, Severity
    from voxloss.data.check.inspection import Patch
    from voxloss.data.dataset import Dataset
    from voxloss.study.create import Progress


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss check`."""
    summary = "check a data set for problems, and measure how rare its structures are"
    parser = add_command(parsers, "check", check, summary, overrides=True)
    parser.add_argument(
        "data", type=existing_path, metavar="DATA", help="folder of the data, or its table or data list"
    )
    parser.add_argument("--layout", metavar="NAME", help="data.layout (default: the one that is recognised)")
    parser.add_argument("--config", help="read layout, options, excluded cases, patch, spacing and folds from here")
    parser.add_argument("--patients", type=Path, metavar="CSV", help="table with the columns case and patient")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write the report there as a page and as JSON")


def check(arguments: argparse.Namespace) -> int:
    """Run `voxloss check` and return its exit status."""
    # NumPy, rich, jsonargparse
    from dataclasses import replace

    from rich.console import Console

    from voxloss.commands.display.preparation import preparation_bar
    from voxloss.config.files import load_config
    from voxloss.data.check.check import format_report
    from voxloss.data.layouts import first_of

    if arguments.config is not None and arguments.layout is not None:
        raise InputError("--config sets the layout; give either --config or --layout.")
    config = load_config(arguments.config, arguments.overrides) if arguments.config or arguments.overrides else None
    if config is not None and arguments.layout is not None:
        config = replace(config, data=replace(config.data, layout=arguments.layout))
    unpaired: list[tuple[str, str]] = []
    with preparation_bar(Console(stderr=True)) as bar:
        report = check_data(arguments.data, config, arguments.layout or "auto", arguments.patients, bar, unpaired)
    print(format_report(report))
    if arguments.output is not None:
        from voxloss.report.page.check import write_check  # pandas

        print(f"Page: {write_check(report, arguments.output)}")
    if unpaired:  # `run` refuses the folder itself, so this is wrong input, whatever else was found
        raise InputError(first_of(unpaired))
    return 0 if report.ok else 1


def check_data(
    root: Path,
    config: "StudyConfig | None",
    layout: str,
    patients: Path | None,
    progress: "Progress",
    unpaired: list[tuple[str, str]],
) -> "Report":
    """Check a data set as a study with this configuration would judge it, or (None) as it is on disk.

    Cases whose files do not belong together by their names are errors of the report, and are added to `unpaired` as
    (case id, sentence); what else is wrong with the data is reported beside them.

    Raises:
        InputError: The folder or the table of patients is not what it should be.
    """
    # NumPy, nibabel, torch
    from dataclasses import replace

    from voxloss.config.schema import StudyConfig
    from voxloss.data.check.check import Finding, check
    from voxloss.data.layouts import load_dataset
    from voxloss.data.patients import by_patient, read_patients
    from voxloss.study.settle import assigned_folds, configured_dataset, known_patients, mixed_orders

    known = read_patients(patients) if patients is not None else {}
    extra: list[Finding] = []
    fewer_folds = None

    def on_fault(case_id: str, sentence: str) -> None:
        unpaired.append((case_id, sentence))
        extra.append(Finding("error", case_id, sentence))

    if config is None:
        config, dataset = StudyConfig(), load_dataset(layout, root, on_fault=on_fault)
        # Nobody asked for a study yet, whose folds may be fewer; but the data's own folds will be those.
        severity: Severity = "note" if dataset.own_folds is None else "error"
    else:
        config = replace(config, data=replace(config.data, root=str(root)))
        dataset, severity = configured_dataset(config, on_fault), "error"
        if (mixed := mixed_orders(config, dataset)) is not None:
            extra.append(Finding("error", "", mixed))
    kept_together = known_patients(config, dataset)
    known = known or kept_together
    folds: list[list[str]] = []
    try:
        if not unpaired:  # else cases are lacking that the folds may name
            folds = assigned_folds(config, dataset, kept_together)
    except InputError as error:
        extra.append(Finding(severity, "", str(error)))
        if severity == "note":
            fewer_folds = len(by_patient([case.case_id for case in dataset.cases], kept_together))
    return check(
        dataset,
        workers=os.cpu_count() or 1,
        progress=lambda finished, of: progress(finished, of, "reading"),
        patch=_patch_of_study(config, dataset),
        patients=known,
        folds=folds,
        extra=extra,
        fewer_folds=fewer_folds,
    )


def _patch_of_study(config: "StudyConfig", dataset: "Dataset") -> "Patch":
    """The patch that a study would draw, by the headers that can be read; the usual one if there are none."""
    from dataclasses import replace

    from voxloss.config.axes import with_three_axes
    from voxloss.data.check.inspection import Patch, usual_patch
    from voxloss.data.grid import turned_geometry
    from voxloss.data.prepare.resample import resampled_shape
    from voxloss.study.settle import preparation_of, settle_patch_size, settle_spacing

    config = with_three_axes(config, dataset.flat_axis)
    cases, geometries = [], []
    for case in dataset.cases:
        with suppress(InputError):  # the check names the fault
            if case.images:
                geometries.append(turned_geometry(case, dataset))
                cases.append(case)
    if not cases:
        return usual_patch(dataset.flat_axis)
    preparation = settle_spacing(config.preparation, replace(dataset, cases=tuple(cases)))
    spacing = preparation_of(preparation).spacing_mm
    shapes = [resampled_shape(one.shape, one.spacing_mm, spacing) for one in geometries]
    try:
        size = settle_patch_size(config, shapes, dataset.flat_axis).size
    except InputError:  # the device that is configured is another machine's
        size = usual_patch(dataset.flat_axis).size
    return Patch(size, spacing)
