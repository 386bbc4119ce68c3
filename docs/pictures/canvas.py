"""Draws boxes, networks, arrows and embeddings as SVG, in the colours of light and dark pages."""

from typing import Any

THEMES = {
    "light": {
        "text": "#1f2937", "faint": "#64748b", "line": "#94a3b8", "panel": "#f1f5f9", "cell": "#e2e8f0",
        "student": "#bfdbfe", "teacher": "#fde68a", "positive": "#16a34a", "rank2": "#86efac", "on_positive": "#ffffff",
        "images": ("#2563eb", "#ea580c", "#7c3aed", "#0f766e"), "old": "#64748b",
    },
    "dark": {
        "text": "#e5e7eb", "faint": "#9ca3af", "line": "#6b7280", "panel": "#1f2937", "cell": "#374151",
        "student": "#1e40af", "teacher": "#92400e", "positive": "#22c55e", "rank2": "#166534", "on_positive": "#052e16",
        "images": ("#60a5fa", "#fb923c", "#c4b5fd", "#5eead4"), "old": "#9ca3af",
    },
}  # fmt: skip
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
WIDTH = 960
COLUMNS = {  # left and right edge
    "augmentation": (8, 174),
    "encoder": (182, 322),
    "extraction": (330, 520),
    "similarity": (528, 766),
    "loss": (774, 952),
}


class Canvas:
    """An SVG picture in the colours of a theme."""

    def __init__(self, theme: str, height: float, title: str) -> None:
        self.c = THEMES[theme]
        self.height = height
        self.title = title
        self.parts: list[str] = []

    def text(self, x: float, y: float, text: str, size: float = 13, color: str = "text", **how: Any) -> None:
        font = MONO if how.get("mono") else FONT
        weight = ' font-weight="600"' if how.get("bold") else ""
        anchor = how.get("anchor", "middle")
        text = text.replace("&", "&amp;").replace("<", "&lt;")
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-family="{font}" font-size="{size:g}" fill="{self.c[color]}" '
            f'text-anchor="{anchor}"{weight}>{text}</text>'
        )

    def box(self, x: float, y: float, w: float, h: float, fill: str, radius: float = 4, dashed: bool = False) -> None:
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{radius:g}" fill="{self.c[fill]}" '
            f'stroke="{self.c["line"]}"{dash}/>'
        )

    def cell(self, x: float, y: float, side: float, fill: str) -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" rx="2" fill="{self.c[fill]}"/>'
        )

    def ring(self, x: float, y: float, side: float) -> None:
        """Draw an empty cell."""
        self.parts.append(
            f'<rect x="{x + 0.5:g}" y="{y + 0.5:g}" width="{side - 1:g}" height="{side - 1:g}" rx="2" fill="none" '
            f'stroke="{self.c["cell"]}"/>'
        )

    def dot(self, x: float, y: float, r: float, fill: str) -> None:
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{r:g}" fill="{self.c[fill]}"/>')

    def funnel(self, x: float, y: float, w: float, h: float, fill: str, dashed: bool = False) -> None:
        """Draw a network as a shape that narrows from left to right."""
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        points = f"{x:g},{y - h / 2:g} {x + w:g},{y - h / 4:g} {x + w:g},{y + h / 4:g} {x:g},{y + h / 2:g}"
        self.parts.append(f'<polygon points="{points}" fill="{self.c[fill]}" stroke="{self.c["line"]}"{dash}/>')

    def arrow(self, x0: float, y0: float, x1: float, y1: float, dashed: bool = False) -> None:
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<line x1="{x0:g}" y1="{y0:g}" x2="{x1:g}" y2="{y1:g}" stroke="{self.c["line"]}" stroke-width="1.5" '
            f'marker-end="url(#tip)"{dash}/>'
        )

    def glyph(self, image: int, x: float, y: float, r: float = 7, kind: str = "student") -> None:
        """Draw an embedding of an image: filled from the student, hollow from the teacher, gray from earlier images."""
        color = self.c["old"] if kind == "old" else self.c["images"][image % 4]
        look = f'fill="{color}"' if kind == "student" else f'fill="none" stroke="{color}" stroke-width="1.8"'
        if image % 4 == 0:
            shape = f'<circle cx="{x:g}" cy="{y:g}" r="{r:g}" {look}/>'
        elif image % 4 == 1:
            side = 1.8 * r
            shape = f'<rect x="{x - side / 2:g}" y="{y - side / 2:g}" width="{side:g}" height="{side:g}" {look}/>'
        elif image % 4 == 2:
            points = f"{x:g},{y - 1.1 * r:g} {x + 1.1 * r:g},{y + 0.9 * r:g} {x - 1.1 * r:g},{y + 0.9 * r:g}"
            shape = f'<polygon points="{points}" {look}/>'
        else:
            points = f"{x:g},{y - 1.2 * r:g} {x + 1.2 * r:g},{y:g} {x:g},{y + 1.2 * r:g} {x - 1.2 * r:g},{y:g}"
            shape = f'<polygon points="{points}" {look}/>'
        self.parts.append(shape)

    def save(self, name: str) -> str:
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height:g}" role="img">\n'
            f"<title>{self.title}</title>\n"
            f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{self.c["line"]}"/></marker></defs>\n{body}\n</svg>\n'
        )
