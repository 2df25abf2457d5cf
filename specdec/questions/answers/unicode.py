"""Unicode: characters that stand for TeX or for ASCII, so that one spelling is left. It knows no mathematics."""

import re
import unicodedata

_TEX = {
    "α": "\\alpha ", "β": "\\beta ", "γ": "\\gamma ", "δ": "\\delta ", "ε": "\\epsilon ", "ζ": "\\zeta ",
    "η": "\\eta ", "θ": "\\theta ", "ι": "\\iota ", "κ": "\\kappa ", "λ": "\\lambda ", "μ": "\\mu ", "ν": "\\nu ",
    "ξ": "\\xi ", "ο": "\\omicron ", "π": "\\pi ", "ρ": "\\rho ", "ς": "\\sigma ", "σ": "\\sigma ", "τ": "\\tau ",
    "υ": "\\upsilon ", "φ": "\\phi ", "χ": "\\chi ", "ψ": "\\psi ", "ω": "\\omega ",
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "‒": "-", "﹣": "-", "－": "-", "∕": "/", "⁄": "/", "÷": "\\div ",
    "×": "\\times ", "·": "\\cdot ", "∙": "\\cdot ", "⋅": "\\cdot ", "•": "\\cdot ", "±": "\\pm ", "∓": "\\mp ",
    "∞": "\\infty ", "∪": "\\cup ", "∈": "\\in ", "∅": "\\emptyset ", "∖": "\\setminus ", "≈": "\\approx ",
    "≤": "\\le ", "⩽": "\\le ", "≥": "\\ge ", "⩾": "\\ge ", "≠": "\\ne ", "∨": "\\lor ", "∧": "\\land ",
    "°": "\\degree ", "º": "\\degree ", "℃": "\\degree C", "℉": "\\degree F", "ϕ": "\\phi ", "…": "\\ldots ",
    "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℚ": "\\mathbb{Q}", "∠": "\\angle ", "△": "\\triangle ",
    "′": "'", "’": "'", "⟨": "\\langle ", "⟩": "\\rangle ", "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ",
    "⌉": "\\rceil ", "\u200b": "", "\u200c": "", "\u200d": "", "\u2060": "", "\ufeff": "", "\u00ad": "",
    "\u200e": "", "\u200f": "",
}  # fmt: skip
_ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|)")
_DEGREES = {"√": "", "∛": "[3]", "∜": "[4]"}
_RAISED = re.compile("[²³¹⁰ⁱ⁴-ⁿ]+")
_LOWERED = re.compile("[₀-₎ₐ-ₜ]+")


def as_tex(text: str) -> str:
    r"""`text` with its characters beyond ASCII as TeX where TeX has a word for them, else in their plain form.

    >>> as_tex("2√3 − ½π²"), as_tex("（７，x₁₂）")
    ('2\\sqrt{3} - \\frac{1}{2}\\pi ^{2}', '(7,x_{12})')
    """
    if text.isascii():
        return text
    text = _ROOT.sub(lambda found: f"\\sqrt{_DEGREES[found[1]]}" + (f"{{{found[2]}}}" if found[2] else " "), text)
    text = _RAISED.sub(lambda found: f"^{{{_plain(found[0])}}}", text)
    text = _LOWERED.sub(lambda found: f"_{{{_plain(found[0])}}}", text)
    return "".join(_one(character) for character in text)


def _one(character: str) -> str:
    if character.isascii():
        return character
    if character in _TEX:
        return _TEX[character]
    plain = _plain(character)
    if unicodedata.decomposition(character).startswith("<fraction>"):
        above, _, below = plain.partition("/")
        return f"\\frac{{{above}}}{{{below}}}" if below else plain
    return plain


def _plain(text: str) -> str:
    """Wide, raised and other compatible characters as what they are."""
    return "".join(_TEX.get(one, one) for one in unicodedata.normalize("NFKC", text))
