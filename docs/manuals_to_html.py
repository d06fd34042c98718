"""Writes the .html manuals, which GRASS before 8.5 installs, from the .md manuals."""

from __future__ import annotations

import re
from pathlib import Path

import markdown

ROOT = Path(__file__).resolve().parent.parent
MANUALS = (
    ROOT / "i.ann.maskrcnn.md",
    ROOT / "i.ann.maskrcnn.train" / "i.ann.maskrcnn.train.md",
    ROOT / "i.ann.maskrcnn.detect" / "i.ann.maskrcnn.detect.md",
    ROOT / "i.ann.unet.train" / "i.ann.unet.train.md",
    ROOT / "i.ann.unet.predict" / "i.ann.unet.predict.md",
    ROOT / "i.ann.classifier.train" / "i.ann.classifier.train.md",
    ROOT / "i.ann.classifier.predict" / "i.ann.classifier.predict.md",
)


def to_html(text: str) -> str:
    """A manual's body as HTML; GRASS adds head, options and footer."""
    html = markdown.markdown(text, extensions=["fenced_code", "tables"], output_format="html")
    html = re.sub(
        r"<pre><code[^>]*>(.*?)</code></pre>", r'<div class="code"><pre>\n\1</pre></div>', html, flags=re.S
    )
    return re.sub(r'href="([\w.]+)\.md"', r'href="\1.html"', html) + "\n"


if __name__ == "__main__":
    for manual in MANUALS:
        manual.with_suffix(".html").write_text(to_html(manual.read_text(encoding="utf-8")), encoding="utf-8")
