"""Compile tables as a paper would take them."""

import shutil
import subprocess

import pytest


def _there() -> bool:
    if shutil.which("pdflatex") is None or shutil.which("kpsewhich") is None:
        return False
    found = subprocess.run(["kpsewhich", "booktabs.sty", "xcolor.sty"], capture_output=True, text=True, check=False)
    return len(found.stdout.splitlines()) == 2


needs_latex = pytest.mark.skipif(not _there(), reason="no pdflatex with booktabs and xcolor on this machine")


def compile_latex(body, folder):
    head = "\\documentclass{article}\\usepackage{booktabs}\\usepackage[table]{xcolor}\\begin{document}\n"
    (folder / "a.tex").write_text(head + body + "\\end{document}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stdout[-2000:]
