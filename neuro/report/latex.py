"""Rows as a LaTeX table, in plain ASCII: it needs the package booktabs and nothing else."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from neuro.report.row import Row
from neuro.report.sheet import LEGEND, Cell, sheet

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\char34{}", "`": r"{}`{}", "'": r"'{}", "-": r"-{}", "[": "{[}", "]": "{]}", "*": "{*}",
}  # fmt: skip
"""Signs of the language, those that join others into one (two hyphens become a dash), and those that a line break or a
rule before them would take for its argument."""

_SIGNS = {
    "–": r"\textendash{}", "—": r"\textemdash{}", "…": r"\ldots{}", "§": r"\S{}", "†": r"\dag{}", "‘": r"`{}",
    "’": r"'{}", "“": r"``{}", "”": r"''{}", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}",
    "ł": r"\l{}", "Ł": r"\L{}",
}  # fmt: skip

_MATHS = {
    "µ": r"\mu", "±": r"\pm", "×": r"\times", "·": r"\cdot", "÷": r"\div", "≤": r"\leq", "≥": r"\geq", "≈": r"\approx",
    "≠": r"\neq", "∞": r"\infty", "→": r"\rightarrow", "←": r"\leftarrow", "⊗": r"\otimes", "⊕": r"\oplus",
    "√": r"\surd", "−": "-", "°": r"^{\circ}", "∈": r"\in", "∑": r"\sum", "∂": r"\partial", "ℏ": r"\hbar",
    "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ε": r"\varepsilon", "ζ": r"\zeta", "η": r"\eta",
    "θ": r"\theta", "ι": r"\iota", "κ": r"\kappa", "λ": r"\lambda", "μ": r"\mu", "ν": r"\nu", "ξ": r"\xi",
    "π": r"\pi", "ρ": r"\rho", "σ": r"\sigma", "τ": r"\tau", "υ": r"\upsilon", "φ": r"\varphi", "χ": r"\chi",
    "ψ": r"\psi", "ω": r"\omega", "Γ": r"\Gamma", "Δ": r"\Delta", "Θ": r"\Theta", "Λ": r"\Lambda", "Ξ": r"\Xi",
    "Π": r"\Pi", "Σ": r"\Sigma", "Φ": r"\Phi", "Ψ": r"\Psi", "Ω": r"\Omega", "⟨": r"\langle", "⟩": r"\rangle",
}  # fmt: skip

_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_ACCENTS = {
    "\u0300": r"\`", "\u0301": r"\'", "\u0302": r"\^", "\u0303": r"\~", "\u0304": r"\=", "\u0306": r"\u",
    "\u0307": r"\.", "\u0308": r"\"", "\u030a": r"\r", "\u030b": r"\H", "\u030c": r"\v", "\u0327": r"\c",
}  # fmt: skip


def to_latex(rows: Sequence[Row]) -> str:
    """A booktabs tabular with its notes below, in ASCII. Provenance and notes are footnotes with superscript numbers.

    Needs \\usepackage{booktabs}; compiles with LaTeX, pdfLaTeX, XeLaTeX and LuaLaTeX. Every text is escaped; a sign
    that plain LaTeX cannot set stands as its code point, such as U+4E2D, rather than vanish.
    """
    content = sheet(rows)
    heads = [_stacked(cell) for cell in content.headings]
    lines = [
        "% needs \\usepackage{booktabs}; wide: made for a landscape page",
        "{\\footnotesize\\setlength{\\tabcolsep}{3pt}",
        "\\begin{tabular}{l" + "r" * len(content.columns) + "}",
        "\\toprule",
        " & ".join(heads) + r" \\",
    ]
    for family, group in content.groups:
        lines.append("\\midrule")
        if family:
            lines.append(f"\\multicolumn{{{len(heads)}}}{{l}}{{\\textit{{{escaped(family)}}}}} \\\\")
        lines += [" & ".join(_marked(cell) for cell in cells) + r" \\" for cells in group]
    lines += ["\\bottomrule", "\\end{tabular}", "", "\\medskip\\noindent", escaped(LEGEND)]
    for number, note in enumerate(content.footnotes, start=1):
        lines += ["", f"\\noindent\\textsuperscript{{{number}}}\\,{escaped(note)}"]
    return "\n".join([*lines, "\\par}", ""])


def escaped(text: str) -> str:
    """`text` as LaTeX sets it sign by sign, in ASCII."""
    return "".join(map(_sign, text))


def _sign(sign: str) -> str:
    if sign in _SPECIAL or sign in _SIGNS:
        return _SPECIAL.get(sign) or _SIGNS[sign]
    if sign.isascii():
        return sign
    if sign in _MATHS:
        return f"\\ensuremath{{{_MATHS[sign]}}}"
    if sign in _RAISED:
        return f"\\textsuperscript{{{_RAISED[sign]}}}"
    if sign in _LOWERED:
        return f"\\ensuremath{{_{{{_LOWERED[sign]}}}}}"
    letter, *marks = list(unicodedata.normalize("NFD", sign))
    if letter.isascii() and letter.isalpha() and len(marks) == 1 and marks[0] in _ACCENTS:
        stem = {"i": r"\i", "j": r"\j"}.get(letter, letter)
        return f"{{{_ACCENTS[marks[0]]}{{{stem}}}}}"
    return f"\\texttt{{U+{ord(sign):04X}}}"


def _marked(cell: Cell) -> str:
    marks = f"\\textsuperscript{{{','.join(map(str, cell.marks))}}}" if cell.marks else ""
    return escaped(cell.text) + marks + (f" {{\\scriptsize ({escaped(cell.range)})}}" if cell.range else "")


def _stacked(cell: Cell) -> str:
    """A heading of several lines, one above the other."""
    parts = [escaped(part) for part in cell.text.split("\n") if part]
    marks = f"\\textsuperscript{{{','.join(map(str, cell.marks))}}}" if cell.marks else ""
    if len(parts) == 1:
        return parts[0] + marks
    return "\\begin{tabular}[b]{@{}r@{}}" + r" \\ ".join(parts) + marks + "\\end{tabular}"
