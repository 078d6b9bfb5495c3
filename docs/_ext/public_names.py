"""The API reference: a group of public names as a table and an entry each, and links to them from all other pages."""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.util.docutils import SphinxDirective
from sphinx.util.inspect import stringify_signature

PACKAGE = "jaxvars"
_NAME = re.compile(r"(jv\.[\w.]+)(\(\))?")


class PublicNames(SphinxDirective):
    """``.. public-names:: MODULE``, then a name a line: a table of their first sentences, and each in full."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:  # noqa: D102
        module = importlib.import_module(self.arguments[0])
        names = [line.strip() for line in self.content if line.strip()]
        lines = [".. list-table::", "   :class: public-names", ""]
        for name in names:
            lines += [f"   * - :py:obj:`{name} <{module.__name__}.{name}>`", f"     - {_summary(module, name)}"]
        for name in names:
            lines += ["", *self._entry(module, name)]
        return self.parse_text_to_nodes(StringList(lines, source=self.get_source_info()[0]))

    def _entry(self, module: ModuleType, name: str) -> list[str]:
        full, value = f"{module.__name__}.{name}", getattr(module, name)
        home = _home(value)
        if home not in (None, full):
            kind = "class" if inspect.isclass(value) else "function"
            return [f".. py:{kind}:: {full}", "   :no-index-entry:", "", f"   The same as `{home}`."]
        if inspect.isclass(value):
            return self._class(module, full, value)
        if inspect.isroutine(value):
            return [f".. autofunction:: {full}"]
        return [f".. autodata:: {full}", "   :no-value:"]

    def _class(self, module: ModuleType, full: str, value: type) -> list[str]:
        if value.__name__ != full.rpartition(".")[2]:  # autodoc would say "alias of" and no more
            doc = str(GoogleDocstring(inspect.getdoc(value) or "", self.config)).splitlines()
            signature = stringify_signature(inspect.signature(value), show_return_annotation=False)
            return [f".. py:class:: {full}{signature}", "", *(f"   {line}" for line in doc)]
        elsewhere = _described_elsewhere(module, value)
        lines = [f".. autoclass:: {full}", "   :members:", f"   :inherited-members: {elsewhere}"]
        return lines + ["   :undoc-members:"] * issubclass(value, enum.Enum)


def _home(value: Any) -> str | None:
    """The name in the package itself of what one of its modules offers too, if there is one."""
    package = importlib.import_module(PACKAGE)
    return next((f"{PACKAGE}.{name}" for name in package.__all__ if getattr(package, name) is value), None)


def _summary(module: ModuleType, name: str) -> str:
    """The first sentence of a docstring, which may go over several lines."""
    value = getattr(module, name)
    home = _home(value)
    if home not in (None, f"{module.__name__}.{name}"):
        return f"The same as `{home}`."
    first = (inspect.getdoc(value) or "").split("\n\n")[0]
    return " ".join(first.split())


def _described_elsewhere(module: ModuleType, kind: type) -> str:
    """The bases whose methods are not repeated: those of others, and those that are public themselves."""
    bases = [base for base in kind.__mro__[1:] if base.__module__.partition(".")[0] != PACKAGE]
    bases += [base for base in kind.__mro__[1:] if getattr(module, base.__name__, None) is base]
    return ", ".join(base.__name__ for base in bases)


def _reference(app: Sphinx, name: str, page: str, text: nodes.Node) -> nodes.reference | None:
    """A link from a page to the entry of a name as users write it, such as ``jv.transform``; None if there is none."""
    target = f"{PACKAGE}.{name.removeprefix('jv.').removeprefix(f'{PACKAGE}.')}"
    found = app.env.domains.python_domain.objects.get(target)
    if found is None:
        return None
    address = app.builder.get_relative_uri(page, found.docname)
    return nodes.reference("", "", text, internal=True, refuri=f"{address}#{found.node_id}", reftitle=target)


def _in_docstrings(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, text: nodes.Element
) -> nodes.Element | None:
    """Link what stands in single backticks in a docstring; what is no public name stays literal text."""
    return _reference(app, node["reftarget"], node["refdoc"], text) if node.get("refdomain") == "py" else None


def _in_pages(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Link ``jv.transform`` wherever it stands as code in prose."""
    for literal in list(doctree.findall(nodes.literal)):
        name = _NAME.fullmatch(literal.astext())
        inside = isinstance(literal.parent, nodes.reference | nodes.title)
        if name and not inside and (reference := _reference(app, name[1], page, literal.deepcopy())):
            literal.replace_self(reference)


def setup(app: Sphinx) -> dict[str, Any]:  # noqa: D103
    app.add_directive("public-names", PublicNames)
    app.connect("missing-reference", _in_docstrings)
    app.connect("doctree-resolved", _in_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
