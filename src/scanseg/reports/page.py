"""Content of a report, and its page in HTML.

The page is one file. Pictures are embedded, and its content security policy forbids scripts and every address outside
of the file. jinja2 escapes all texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from scanseg.errors import UsageError
from scanseg.files import write_text
from scanseg.version import __version__

_TEMPLATE = "report.html.jinja"
_INSTALL = 'Run: pip install "scanseg[report]"'


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    score: float | None = None
    """Value from 0 (bad) to 1 (good), drawn as a bar. `None`: no bar."""


@dataclass(frozen=True)
class Table:
    """A table with a caption."""

    head: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    is_folded: bool = False
    """Show only the caption until a click."""


@dataclass(frozen=True)
class Chart:
    """A figure as a data address."""

    address: str
    """`data:` address of the picture."""
    alternative: str
    """Text for readers that show no pictures."""
    caption: str = ""
    ratio: float = 1.0
    """Width divided by height."""
    width_rem: float = 20.0
    """Width on the page in multiples of the font size."""

    @property
    def share(self) -> float:
        """Share of the width beside other pictures.

        It is the ratio, within limits for very long pictures.
        """
        return min(max(self.ratio, 0.6), 1.6)


@dataclass(frozen=True)
class CasePictures:
    """Pictures of a case."""

    title: str
    facts: str
    pictures: tuple[Chart, ...]

    @property
    def ratio(self) -> float:
        """Width of the pictures side by side, divided by their height."""
        return sum(picture.share for picture in self.pictures)


@dataclass(frozen=True)
class Section:
    """A part of a report under a heading."""

    title: str
    texts: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    """Names and values."""
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    cases: tuple[CasePictures, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    """Names of labels and their colours, such as `#0072b2`."""

    @property
    def anchor(self) -> str:
        """Name of the section in addresses."""
        return "-".join("".join(each if each.isalnum() else " " for each in self.title.lower()).split())

    @property
    def is_empty(self) -> bool:
        """Whether the section has no content."""
        return not (self.texts or self.facts or self.tables or self.charts or self.cases)


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    headline: tuple[tuple[str, str], ...]
    """Main numbers: value and name."""
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()


def check_packages() -> None:
    """Check before any work that the packages of reports are installed.

    Raises:
        UsageError: jinja2 or matplotlib is missing.
    """
    for name in ("jinja2", "matplotlib"):
        try:
            import_module(name)
        except ImportError as error:
            raise UsageError(
                f"report: expected {name}, which cannot be imported ({error}). {_INSTALL}"
            ) from error


def render_page(page: Page) -> str:
    """Return a report as HTML.

    Args:
        page: The report.

    Raises:
        UsageError: jinja2 is missing.
    """
    check_packages()
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("scanseg.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        page=page,
        sections=[section for section in page.sections if not section.is_empty],
        version=__version__,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def write_page(page: Page, path: Path) -> None:
    """Write a report as one HTML file.

    Args:
        page: The report.
        path: The file. Its folder is created if it is missing.

    Raises:
        OSError: The file cannot be written.
        UsageError: jinja2 is missing.
    """
    text = render_page(page)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
