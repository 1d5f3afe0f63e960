"""A table (Markdown) and a plot (SVG) of the rows that losses.py measured.

python benchmarks/losses_report.py benchmarks/results/losses-cpu.csv --output docs/benchmarks
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

# Okabe and Ito's colours, told apart with every kind of colour vision.
OURS, OTHERS, FLOOR = "#0072B2", "#999999", "#D55E00"
REPLAYED = "forward+backward, replayed"  # from a CUDA graph: the time of the device alone


def summary(rows: pd.DataFrame) -> str:
    """Time of our losses over that of cross entropy, and their memory: one line per loss, company and threads."""
    own = rows[rows["implementation"].map(ours)]
    replayed = own[own["pass"] == REPLAYED]
    both = pd.concat([own[own["pass"] == "forward+backward"], replayed.assign(company="in turn, replayed")])
    classes = list(dict.fromkeys(both["classes"]))
    lines = ["## × cross entropy", ""]
    lines += [f"| loss | measured | threads | {' | '.join(f'{c} classes' for c in classes)} | most memory / logits |"]
    lines += ["|---|---|---|" + "---|" * (len(classes) + 1)]
    for (threads, company, name), group in both.groupby(["threads", "company", "implementation"], sort=False):
        ratio = group.set_index("classes")["ratio_to_cross_entropy"]
        shown = " | ".join(f"{ratio[c]:.2f}" if c in ratio else "not measured" for c in classes)
        most = group["peak_extra_over_logits"].max()
        lines.append(f"| {name.removeprefix('voxloss ')} | {company} | {threads} | {shown} | {most:.2f} |")
    return "\n".join([*lines, "", "## All losses in turn", "", ""])


def table(rows: pd.DataFrame) -> str:
    """One table per device, type, number of classes and number of threads: forward and backward, fastest first."""
    lines = []
    both = rows[(rows["pass"] == "forward+backward") & (rows["company"] == "in turn")]
    for (device, dtype, threads, classes), group in both.groupby(["device", "dtype", "threads", "classes"], sort=False):
        first = group.iloc[0]
        lines += [f"### {classes} classes, {dtype}, {first['shape']}, threads: {threads}", ""]
        lines += [f"{device}, torch {first['torch']}, {first['date']}.", ""]
        lines += [
            "| loss | version | median ms (10 %, 90 %) | × cross entropy | forward alone, ms | extra memory / logits |"
        ]
        same = (rows["dtype"] == dtype) & (rows["classes"] == classes) & (rows["device"] == device)
        same &= (rows["threads"] == threads) & (rows["company"] == "in turn")
        replays = rows[same & (rows["pass"] == REPLAYED)].set_index("implementation")["ms_p50"]
        lines += ["|---|---|---|---|---|---|"]
        if len(replays):
            lines[-2:] = [f"{lines[-2]} replayed, ms |", f"{lines[-1]}---|"]
        for _, row in group.sort_values("ms_p50").iterrows():
            forward = rows[same & (rows["implementation"] == row["implementation"]) & (rows["pass"] == "forward")]
            name = f"**{row['implementation']}**" if ours(row["implementation"]) else row["implementation"]
            lines.append(
                f"| {name} | {row['version']} | {row['ms_p50']:.1f} ({row['ms_p10']:.1f}, {row['ms_p90']:.1f}) "
                f"| {row['ratio_to_cross_entropy']:.2f} | {forward['ms_p50'].iloc[0]:.1f} "
                f"| {row['peak_extra_over_logits']:.2f} |"
                + (f" {replays[row['implementation']]:.2f} |" if len(replays) else "")
            )
        lines += ["", f"Floor (logits and labels read twice, gradient written once): {first['floor_ms']:.1f} ms.", ""]
    return "\n".join(lines)


def plot(rows: pd.DataFrame, path: Path) -> None:
    """Time against memory as bars, a row of panels per number of classes; the losses in turn, on fewest threads."""
    both = rows[(rows["pass"] == "forward+backward") & (rows["company"] == "in turn")]
    both = both[both["threads"] == both["threads"].min()]
    groups = list(both.groupby(["dtype", "classes"], sort=False))
    figure, axes = plt.subplots(len(groups), 2, figsize=(10, 2.4 * len(groups)), squeeze=False, sharey="row")
    for (time_axis, memory_axis), ((dtype, classes), group) in zip(axes, groups, strict=True):
        group = group.sort_values("ms_p50", ascending=False)
        colours = [OURS if ours(name) else OTHERS for name in group["implementation"]]
        for axis, values, label in (
            (time_axis, group["ratio_to_cross_entropy"], "forward + backward, × torch's cross entropy"),
            (memory_axis, group["peak_extra_over_logits"], "peak memory beyond the inputs, × the logits"),
        ):
            bars = axis.barh(group["implementation"], values, color=colours)
            axis.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
            axis.margins(x=0.12)
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=8)
            axis.set_xlabel(label, fontsize=8)
        floor = group["floor_ms"].iloc[0] / group.loc[group["ratio_to_cross_entropy"] == 1, "ms_p50"].iloc[0]
        time_axis.axvline(floor, color=FLOOR, linewidth=1, label="traffic floor")
        time_axis.legend(fontsize=7, frameon=False, loc="upper right")
        time_axis.set_title(f"{classes} classes, {dtype}", fontsize=9, loc="left")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def ours(name: str) -> bool:
    """Whether an implementation is one of this package."""
    return name.startswith("voxloss ")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", type=Path, nargs="+", help="CSV files of losses.py")
    parser.add_argument("--output", type=Path, required=True, help="folder of the table and the plots")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    parts = []
    for path in arguments.rows:
        rows = pd.read_csv(path)
        plot(rows, arguments.output / f"{path.stem}.svg")
        parts.append(f"![Time and memory of the losses]({path.stem}.svg)\n\n{summary(rows)}{table(rows)}")
    (arguments.output / "losses.md").write_text(INTRODUCTION + "\n".join(parts), encoding="utf-8")


INTRODUCTION = """# Time and memory of the losses

Measured by `benchmarks/losses.py` on the same tensors, the losses taking turns in shuffled order; the rows are in
`benchmarks/results/`. × cross entropy is the median over the rounds of a loss's time over that of torch's cross entropy
in the same round. Extra memory is the peak beyond the inputs, the gradient included.

About half of the time of torch's cross entropy, and of every loss that creates large tensors, is spent waiting for new
memory, unless what another loss has freed is used again. So the losses are measured twice: "alone" in a process of our
losses and torch's cross entropy, and "in turn" in one where the losses of other libraries run too. With one thread the
times are processor time; with more threads they are wall time, which varies much on a shared machine. Our losses were
compiled from C, as they are wherever there is a C compiler.

On a GPU times are wall times of one call, in which the CPU starts some hundred small kernels; in a training the GPU is
busy with the network meanwhile. "Replayed" is the same from a CUDA graph: the time of the device alone. The GPU was an
H200 in a virtual machine with slow processors. The aim, 1.5 times the traffic floor, is not reached: with 105 classes
it is 2.3 times, with 3 classes 5 times, of which the formula after the pass is a large part.

"""

if __name__ == "__main__":
    main()
