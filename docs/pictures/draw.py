"""Draws the diagrams of the site: the five aspects, the teacher with its queue, and a picture of each method.

    python docs/pictures/draw.py

Each picture is written twice, for light and for dark pages. The matrices are the real relations: the script gives three
images to each method's extraction and draws the contrasts that come out.
"""

import inspect
from pathlib import Path
from typing import Any

import torch
from canvas import COLUMNS, THEMES, Canvas
from described import PICTURES, Picture, Side
from torch import Tensor

from ssl_modules import methods

HERE = Path(__file__).parent


def relation_of(picture: Picture) -> Tensor:
    """The relation of the first contrast that the method's extraction makes."""
    default = defaults(picture.name)["extraction"]
    extraction = type(default)(**{**default.arguments, **picture.extraction})
    extraction.build([channels for channels, *_ in picture.maps], sizes=(32,) * len(picture.views))
    if picture.queue is not None:
        extraction.ids.copy_(torch.tensor(picture.queue))

    def embed() -> Any:
        return extraction.heads(tuple(torch.rand(picture.images, *shape) for shape in picture.maps))

    student = [embed() for _ in extraction.student_views(len(picture.views))]
    teacher = [embed().detach() for _ in extraction.teacher_views(len(picture.views))]
    ids = torch.tensor(picture.ids) if picture.ids else torch.arange(picture.images)[:, None]
    return extraction(student, teacher or None, ids, torch.Generator().manual_seed(0))[0].relation[:]


def defaults(name: str) -> dict[str, Any]:
    signature = inspect.signature(getattr(methods, name))
    return {parameter.name: parameter.default for parameter in signature.parameters.values()}


def head(canvas: Canvas, below: dict[str, str]) -> None:
    """The names of the five aspects, and what stands in for each."""
    for number, (aspect, (left, right)) in enumerate(COLUMNS.items(), start=1):
        canvas.box(left, 4, right - left, canvas.height - 8, "panel", radius=8)
        canvas.text((left + right) / 2, 28, f"{number} {aspect}", 14, bold=True)
        canvas.text((left + right) / 2, 47, below[aspect], 12.5, "faint", mono=True)


def matrix(canvas: Canvas, relation: Tensor, sides: tuple[Side, Side], middle: float, soft: str) -> None:
    """The relation of anchors, one a row, and candidates, one a column."""
    rows, columns = relation.shape
    left, right = COLUMNS["similarity"]
    side = min(26, (right - left - 44) / columns, 168 / rows)
    r = min(7, 0.33 * side)
    x0 = (left + right) / 2 - columns * side / 2 + 10
    y0 = middle - rows * side / 2 + 8
    for j in range(columns):
        canvas.glyph(sides[1].images[j], x0 + (j + 0.5) * side, y0 - 11, r, sides[1].kinds[j])
    for i in range(rows):
        y = y0 + i * side
        canvas.glyph(sides[0].images[i], x0 - 13, y + side / 2, r, sides[0].kinds[i])
        for j in range(columns):
            x, rank = x0 + j * side, relation[i, j].item()
            if rank < 0:
                canvas.ring(x + 1, y + 1, side - 2)
                continue
            canvas.cell(x + 1, y + 1, side - 2, {0: "cell", 1: "positive"}.get(rank, "rank2"))
            if rank == 0 and soft:
                canvas.dot(x + side / 2, y + side / 2, side * (0.1, 0.28, 0.17, 0.08)[(i + 2 * j) % 4], "positive")
            if rank > 1:
                canvas.text(x + side / 2, y + side / 2 + 4, str(rank), 11)
    canvas.text(x0 - 30, y0 + rows * side / 2, "anchors", 11, "faint", anchor="end") if x0 - 80 > left else None
    canvas.text(x0 + columns * side / 2, y0 - 24, "candidates", 11, "faint")


def legend(canvas: Canvas, relation: Tensor, picture: Picture, top: float) -> None:
    left, _ = COLUMNS["loss"]
    ranked = (relation > 1).any().item()
    entries = [("positive", "rank 1" if ranked else "positive")]
    entries += [("rank2", "rank 2")] if ranked else []
    entries += [("cell", "negative")] if (relation == 0).any() else []
    entries += [("ring", "ignored")] if (relation < 0).any() else []
    for i, (fill, name) in enumerate(entries):
        y = top + 22 * i
        if fill == "ring":
            canvas.ring(left + 16, y - 11, 14)
        else:
            canvas.cell(left + 16, y - 11, 14, fill)
        canvas.text(left + 38, y, name, 12, anchor="start")
    y = top + 22 * len(entries)
    if picture.soft:
        canvas.dot(left + 23, y - 4, 5, "positive")
        canvas.text(left + 38, y, picture.soft, 12, anchor="start")
        y += 22
    if picture.gray:
        canvas.glyph(3, left + 23, y - 4, 6, "old")
        canvas.text(left + 38, y, picture.gray, 12, anchor="start")


def method(picture: Picture, theme: str) -> str:
    """The picture of a method."""
    relation = relation_of(picture)
    given = defaults(picture.name)
    height = 300 if len(picture.views) < 3 else 340
    canvas = Canvas(theme, height, f"The five aspects of {picture.name}")
    below = {name: type(given[name]).__name__ for name in ("extraction", "similarity", "loss")}
    below |= {name: f'"{given[name]}"' for name in ("augmentation", "encoder")}
    head(canvas, below)
    top, bottom = 66, height - 16
    middle = (top + bottom) / 2
    count = len(picture.views)
    gap = min(100, (bottom - top) / count)
    ys = [middle + (i - (count - 1) / 2) * gap for i in range(count)]
    left = COLUMNS["augmentation"][0]
    canvas.box(left + 14, middle - 22, 44, 44, "cell")
    canvas.glyph(0, left + 36, middle, 13)
    canvas.text(left + 36, middle + 38, "image", 11.5, "faint")
    networks(canvas, picture, ys, gap)
    for y, word in zip(ys, picture.views, strict=True):
        canvas.arrow(left + 62, middle + (y - middle) * 0.15, left + 96, y)
        side = min(44, gap - 20)
        view(canvas, left + 122, y, side, CROPS[ys.index(y)], picture.patches)
        canvas.text(left + 122, y + side / 2 + 14, word, 11.5, "faint")
    matrix(canvas, relation, picture.sides, middle, picture.soft)
    if picture.contrasts:
        canvas.text(sum(COLUMNS["similarity"]) / 2, height - 18, picture.contrasts, 11, "faint")
    notes_left = COLUMNS["loss"][0] + 16
    for i, line in enumerate(picture.notes):
        canvas.text(notes_left - 4, top + 22 + 18 * i, line, 12, anchor="start")
    legend(canvas, relation, picture, top + 60 + 18 * len(picture.notes))
    return canvas.save(picture.name)


CROPS = ((0.3, 0.05, -0.02), (0.22, -0.1, 0.12), (0.36, -0.08, -0.1), (0.26, 0.12, 0.1))  # radius and place in a view


def view(
    canvas: Canvas, x: float, y: float, side: float, crop: tuple[float, ...], patches: tuple[int, int] | None
) -> None:
    canvas.box(x - side / 2, y - side / 2, side, side, "cell")
    if patches is None:
        radius, right, down = crop
        canvas.glyph(0, x + right * side, y + down * side, radius * side)
        return
    canvas.glyph(0, x, y, 0.4 * side)
    half, color = side / 2, canvas.c["panel"]
    for i in range(1, 3):
        at = side * i / 3 - half
        for x0, y0, x1, y1 in ((x - half, y + at, x + half, y + at), (x + at, y - half, x + at, y + half)):
            canvas.parts.append(
                f'<line x1="{x0:g}" y1="{y0:g}" x2="{x1:g}" y2="{y1:g}" stroke="{color}" stroke-width="3"/>'
            )


def networks(canvas: Canvas, picture: Picture, ys: list[float], gap: float) -> None:
    """Encoder, heads and embeddings of each view; with a teacher, its rows beside the student's."""
    lanes = []  # view, network, height
    both = set(picture.teacher) & set(picture.student)
    for i, y in enumerate(ys):
        if i in both:
            lanes += [(i, "student", y - 22), (i, "teacher", y + 22)]
        else:
            lanes.append((i, "teacher" if i in picture.teacher else "student", y))
    e0, e1 = COLUMNS["encoder"]
    x0, _ = COLUMNS["extraction"]
    h = min(52, 0.62 * gap, 34 if both else 52)
    for i, network, y in lanes:
        dashed = network == "teacher"
        canvas.arrow(COLUMNS["augmentation"][0] + 148, ys[i], e0 + 18, y)
        canvas.funnel(e0 + 22, y, 62, h, network, dashed)
        if picture.teacher:
            canvas.text(e0 + 52, y + 4, network, 11)
        maps(canvas, e0 + 92, y, picture)
        stages = picture.stages if network == "student" else picture.stages[:1]
        x = x0 + 10
        canvas.arrow(e1 - 14, y, x, y)
        for stage in stages:
            width = 40 if len(picture.stages) > 1 else 78
            word = {"projector": "proj.", "predictor": "pred."}.get(stage, stage) if width == 40 else stage
            canvas.box(x + 2, y - 12, width, 24, network, dashed=dashed)
            canvas.text(x + 2 + width / 2, y + 4, word, 11.5)
            x += width + 8
        canvas.arrow(x - 4, y, x + 14, y)
        for k in range(picture.images):
            canvas.glyph(k, x + 26 + 19 * k, y, 6.5, network)
    if not picture.teacher and len(lanes) > 1:
        canvas.text(
            e0 + 53, (ys[0] + ys[1]) / 2 + 4 if len(ys) == 2 else ys[0] - h / 2 - 4, "same weights", 11, "faint"
        )
    if picture.teacher:
        teacher = next(y for _, network, y in lanes if network == "teacher")
        student = next(y for _, network, y in reversed(lanes) if network == "student") if not both else teacher - 44
        sign = 1 if teacher > student else -1
        if both:
            canvas.text(e0 + 64, (ys[0] + ys[1]) / 2 + 4, "teacher: average", 11, "faint")
        else:
            canvas.arrow(e0 + 40, student + sign * h / 2, e0 + 40, teacher - sign * (h / 2 + 2), dashed=True)
            canvas.text(e0 + 48, (teacher + student) / 2 + 1, "average", 11, "faint", anchor="start")
    if picture.queue is not None:
        y = ys[0] + gap / 2 - 3
        canvas.box(x0 + 84, y - 14, 96, 28, "panel", dashed=True)
        for k in range(4):
            canvas.glyph(k if picture.ids else 3, x0 + 102 + 20 * k, y, 6, "old")
        canvas.text(x0 + 76, y + 4, "queue", 11.5, "faint", anchor="end")
        canvas.arrow(x0 + 132, ys[0] + 10, x0 + 132, y - 16, dashed=True)


def maps(canvas: Canvas, x: float, y: float, picture: Picture) -> None:
    """The encoder's maps: a square of locations each."""
    drawn = picture.maps if len(picture.maps) > 1 or picture.patches else picture.maps[:1]
    if len(drawn) == 1 and drawn[0][1:] == (1, 1):
        canvas.box(x, y - 12, 7, 24, "cell", radius=2)
        return
    for _, rows, columns in drawn:
        side = 5
        for i in range(rows):
            for j in range(columns):
                canvas.cell(x + side * j, y - rows * side / 2 + side * i, side - 1, "line")
        x += side * columns + 4


def five_aspects(theme: str) -> str:
    """The path of a batch from images to the loss, in general."""
    picture = next(p for p in PICTURES if p.name == "SimCLR")
    relation = relation_of(picture)
    canvas = Canvas(theme, 372, "Five aspects, from images to the loss")
    below = {
        "augmentation": "images -> views",
        "encoder": "views -> maps",
        "extraction": "maps -> contrasts",
        "similarity": "contrasts -> scores",
        "loss": "scores -> number",
    }
    for number, (aspect, (left, right)) in enumerate(COLUMNS.items(), start=1):
        canvas.box(left, 4, right - left, 364, "panel", radius=8)
        canvas.text((left + right) / 2, 30, f"{number} {aspect}", 15, bold=True)
        canvas.text((left + right) / 2, 50, below[aspect], 12.5, "faint")
    left = COLUMNS["augmentation"][0]
    rows = [112, 172, 232]
    for image, y in enumerate(rows):
        canvas.box(left + 10, y - 19, 38, 38, "cell")
        canvas.glyph(image, left + 29, y, 11)
        for j in range(2):
            x = left + 94 + 48 * j
            canvas.box(x - 19, y - 19, 38, 38, "cell")
            canvas.glyph(image, x + (3, -4)[j], y + (2, -3)[j], (12, 8.5)[j])
        canvas.arrow(left + 52, y, left + 72, y)
    e0, e1 = COLUMNS["encoder"]
    canvas.arrow(left + 168, 172, e0 + 14, 172)
    canvas.funnel(e0 + 18, 172, 74, 100, "student")
    canvas.text(e0 + 55, 176, "network", 12)
    for j in range(3):
        side = (7, 9, 12)[j]
        for a in range(3 - j):
            for b in range(3 - j):
                canvas.cell(e0 + 100 + (0, 24, 0)[j] + side * b, (128, 132, 178)[j] + side * a, side - 1, "line")
    x0, _ = COLUMNS["extraction"]
    canvas.arrow(e1 - 16, 172, x0 + 10, 172)
    canvas.box(x0 + 12, 158, 66, 28, "student")
    canvas.text(x0 + 45, 176, "heads", 12)
    canvas.arrow(x0 + 82, 166, x0 + 104, 136)
    canvas.arrow(x0 + 82, 178, x0 + 104, 208)
    for k in range(3):
        canvas.glyph(k, x0 + 118 + 22 * k, 130, 7)
        canvas.glyph(k, x0 + 118 + 22 * k, 214, 7, "teacher")
    canvas.text(x0 + 140, 110, "anchors", 12, "faint")
    canvas.text(x0 + 140, 240, "candidates", 12, "faint")
    matrix(canvas, relation, picture.sides, 172, soft="")
    legend(canvas, relation, picture, 150)
    words = {
        "augmentation": ("draws random views", "of each image"),
        "encoder": ("one for all views;", "a teacher if the", "extraction asks"),
        "extraction": ("says who is compared", "with whom: positive,", "negative or ignored"),
        "similarity": ("one score for each pair", "of anchor and candidate"),
        "loss": ("high scores for", "positives, low ones", "for negatives"),
    }
    for aspect, lines in words.items():
        x = sum(COLUMNS[aspect]) / 2
        for i, line in enumerate(lines):
            canvas.text(x, 304 + 18 * i, line, 12.5)
    return canvas.save("five aspects")


def teacher_and_queue(theme: str) -> str:
    """How a teacher follows the student, and how its keys enter the queue."""
    canvas = Canvas(theme, 330, "A teacher and a queue over three steps")
    for step in range(3):
        canvas.box(12 + 320 * step, 6, 296, 318, "panel", radius=8)
    for step in range(3):
        x = 12 + 320 * step
        canvas.text(x + 148, 30, f"step {step + 1}", 14, bold=True)
        canvas.funnel(x + 24, 86, 80, 50, "student")
        canvas.text(x + 60, 90, "student", 12)
        canvas.funnel(x + 24, 192, 80, 50, "teacher", dashed=True)
        canvas.text(x + 60, 196, "teacher", 12)
        canvas.arrow(x + 44, 116, x + 44, 164, dashed=True)
        canvas.text(x + 52, 144, "average, after the step", 11.5, "faint", anchor="start")
        canvas.arrow(x + 108, 86, x + 152, 86)
        canvas.arrow(x + 108, 192, x + 152, 192)
        for k in range(3):
            canvas.glyph(k, x + 172 + 24 * k, 86, 8)
            canvas.glyph(k, x + 172 + 24 * k, 192, 8, "teacher")
        canvas.text(x + 196, 66, "queries: anchors", 12, "faint")
        canvas.text(x + 196, 172, "keys: positives", 12, "faint")
        canvas.box(x + 20, 244, 256, 40, "panel", dashed=True)
        for k in range(9):
            if k < 3 * step:
                canvas.glyph(k % 3, x + 40 + 27 * k, 264, 8, "teacher")
            else:
                canvas.glyph(3, x + 40 + 27 * k, 264, 7, "old")
        canvas.text(x + 148, 304, "queue: negatives", 12, "faint")
        if step < 2:
            canvas.arrow(x + 206, 206, x + 320 + 68, 242, dashed=True)
    return canvas.save("teacher and queue")


def pictures() -> dict[str, str]:
    """The text of each file by its name."""
    torch.manual_seed(0)
    found = {}
    for theme in THEMES:
        found[f"five_aspects_{theme}.svg"] = five_aspects(theme)
        found[f"teacher_{theme}.svg"] = teacher_and_queue(theme)
        for picture in PICTURES:
            found[f"{picture.name.lower()}_{theme}.svg"] = method(picture, theme)
    return found


if __name__ == "__main__":
    for name, text in pictures().items():
        (HERE / name).write_text(text)
