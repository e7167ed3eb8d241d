"""Make the pages right where the extensions of the book leave them wrong.

* sphinx-proof gives a proof no title, so that a folded one cannot be opened, and gives all proofs
  and all bodies of theorems the same id.
* Pages of the theme without a set mode complain in the browser's console.
* The bibliography is a list whose entries do not say that they are entries of a list.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx


def mend_proofs(_app: Sphinx, doctree: nodes.document) -> None:
    """Give each folded proof a title to click on, and make ids that occur more than once unique."""
    for node in doctree.findall(nodes.section):
        if node["ids"] and node["ids"][0].endswith("-content") and node.parent["ids"]:
            node["ids"] = [f"{node.parent['ids'][0]}-content"]
    for node in doctree.findall(nodes.admonition):
        if "proof" not in node["classes"]:
            continue
        node["ids"] = []
        if "dropdown" in node["classes"]:
            strip_leading_word(node)
            node.insert(0, nodes.title("Proof", "Proof"))


def strip_leading_word(proof: nodes.admonition) -> None:
    """Remove the word that sphinx-proof writes before the text: the title says it now."""
    text = next(proof.findall(nodes.Text))
    text.parent.replace(text, nodes.Text(text.astext().removeprefix("Proof. ")))


def set_mode(_app: Sphinx, _page: str, _template: str, context: dict, _doctree: object) -> None:
    """Follow the reader's light or dark setting."""
    context["default_mode"] = "auto"


def mend_bibliography(
    _app: Sphinx, _page: str, _template: str, context: dict, _doctree: object
) -> None:
    """Give references the role of list items, since DPUB-ARIA 1.1 has deprecated their own."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app: Sphinx) -> dict[str, object]:
    """Connect to Sphinx."""
    app.connect("doctree-read", mend_proofs)
    app.connect("html-page-context", set_mode)
    app.connect("html-page-context", mend_bibliography)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
