#!/usr/bin/env python3
"""Build the multilingual demo corpus from LibreOffice help packages.

The input is a folder of Debian packages ``libreoffice-help-XX_*.deb``.  Every language
package holds the same help pages under the same paths, and the same paragraphs under the
same HTML ids, so a page path is a language-independent *topic* and an untranslated
paragraph can be recognised by comparing it with its English counterpart.

For each topic listed in ``topics.txt`` the introductory paragraphs of the page become one
passage per language.  A topic is then kept in only a few languages, chosen so that all
languages end up with about the same number of passages and so that the language
combinations vary from topic to topic.  The output depends on the input files only:
running the script twice gives byte-identical results.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

HERE = Path(__file__).resolve().parent
PACKAGE_PREFIX = "libreoffice-help-"
PIVOT = "en"

# Package suffix -> ISO 639-1 code.  The order is the tie-break order of the rotation.
PACKAGES: dict[str, str] = {
    "en-us": "en",
    "de": "de",
    "es": "es",
    "ru": "ru",
    "ja": "ja",
    "fr": "fr",
    "tr": "tr",
    "zh-cn": "zh",
    "it": "it",
    "pl": "pl",
    "ko": "ko",
    "pt-br": "pt",
    "nl": "nl",
    "cs": "cs",
    "vi": "vi",
    "id": "id",
}


@dataclass(frozen=True)
class Limits:
    """Character limits of one passage."""

    minimum: int
    enough: int
    maximum: int


ALPHABETIC_LIMITS = Limits(minimum=200, enough=400, maximum=700)
CJK_LIMITS = Limits(minimum=80, enough=170, maximum=350)
CJK_LANGS = frozenset({"ja", "ko", "zh"})

# Letters each non-Latin language is written in; a passage must consist mostly of these.
SCRIPTS: dict[str, re.Pattern[str]] = {
    "ja": re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]"),
    "ko": re.compile(r"[\uac00-\ud7af]"),
    "ru": re.compile(r"[\u0400-\u04ff]"),
    "zh": re.compile(r"[\u4e00-\u9fff]"),
}
MIN_SCRIPT_SHARE = 0.6

# Frequent English words that are not words of another language in the corpus.
ENGLISH_WORDS = frozenset(
    "the and you your this that with from when which choose click".split()  # noqa: SIM905
)

SENTENCE_END = re.compile(r"[.!?。！？…][)\]\"'”»“’」』）]*$")
LEAD_IN_END = re.compile(r"[:：]$")

# Placeholders, markup and damaged characters that a few translations contain.
REMNANT = re.compile(r"[$%]\[|PRODUCTNAME|</?[a-z]+|&[a-z]+;|@@|\{\{|[\ufffd\u02c6]")

# A paragraph is a pair of HTML id and text.
Paragraph = tuple[str, str]
BREAK: Paragraph = ("", "")


@dataclass(frozen=True)
class Page:
    """The title and the running text of one help page."""

    title: str
    paragraphs: tuple[Paragraph, ...]


@dataclass(frozen=True)
class Passage:
    """One record of the corpus."""

    topic: str
    lang: str
    title: str
    text: str

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        record = {
            "id": f"{self.lang}/{self.topic}",
            "lang": self.lang,
            "topic": self.topic,
            "title": self.title,
            "text": self.text,
        }
        return json.dumps(record, ensure_ascii=False)


@dataclass
class Assignment:
    """Bookkeeping for choosing the languages of each topic."""

    used: Counter[str] = field(default_factory=Counter)
    together: Counter[frozenset[str]] = field(default_factory=Counter)

    def add(self, langs: Sequence[str]) -> None:
        """Record that one topic is kept in ``langs``."""
        self.used.update(langs)
        self.together.update(frozenset({a, b}) for a in langs for b in langs if a < b)


def squeeze(text: str) -> str:
    """Collapse runs of whitespace, including no-break spaces, into single spaces."""
    return " ".join(text.replace("\u200b", "").replace("\u2060", "").split())


class HelpPageParser(HTMLParser):
    """Collect the title and the prose paragraphs of a LibreOffice help page.

    Kept are ``<p>`` elements of the classes ``paragraph`` and ``listitem`` inside the
    display area.  Boxes repeated from other pages, menu paths, link lists, notes, and text
    variants for other operating systems or applications are skipped.  A table or a code
    listing leaves a ``BREAK``, because the prose around it does not read on without it.
    """

    VOID = frozenset({"br", "hr", "img", "input", "link", "meta", "source", "wbr"})
    PROSE = frozenset({"paragraph", "listitem"})
    ASIDES = frozenset({"embedded", "howtoget", "icontable", "note", "relatedtopics", "tip"})
    ASIDES |= {"warning"}
    LISTINGS = frozenset({"bascode", "code", "pycode", "smathcode", "sqlcode"})
    SKIPPED_TAGS = frozenset({"aside", "footer", "header", "script", "style", "table"})

    def __init__(self) -> None:
        """Prepare an empty result."""
        super().__init__(convert_charrefs=True)
        self._stack: list[str] = []
        self._skip_depth: int | None = None
        self._capture_depth: int | None = None
        self._buffer: list[str] = []
        self._paragraph_id = ""
        self._title = ""
        self._paragraphs: list[Paragraph] = []

    def page(self) -> Page:
        """Return what was collected."""
        return Page(self._title, tuple(self._paragraphs))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Track nesting, enter skipped regions and start captures."""
        if tag in self.VOID:
            if tag == "br":
                self._buffer.append(" ")
            return
        self._stack.append(tag)
        if self._skip_depth is not None:
            return
        attributes = {name: value or "" for name, value in attrs}
        if self._is_skipped(tag, attributes):
            self._skip_depth = len(self._stack)
            if tag == "table" or attributes.get("class") in self.LISTINGS:
                self._paragraphs.append(BREAK)
        elif self._capture_depth is None and self._is_captured(tag, attributes):
            self._capture_depth = len(self._stack)
            self._paragraph_id = attributes.get("id", "")
            self._buffer.clear()

    def handle_endtag(self, tag: str) -> None:
        """Close elements up to the matching start tag."""
        if tag not in self._stack:
            return
        while self._stack:
            depth = len(self._stack)
            closed = self._stack.pop()
            if self._skip_depth == depth:
                self._skip_depth = None
            if self._capture_depth == depth:
                self._finish_capture(closed)
            if closed == tag:
                break

    def handle_data(self, data: str) -> None:
        """Collect text inside a capture."""
        if self._capture_depth is not None and self._skip_depth is None:
            self._buffer.append(data)

    def _is_skipped(self, tag: str, attributes: Mapping[str, str]) -> bool:
        """Tell whether an element and all its contents are to be ignored."""
        if tag in self.SKIPPED_TAGS:
            return True
        if "hidden" in attributes:  # one branch of a platform or application switch
            return not attributes.get("id", "").startswith("default")
        return attributes.get("class") in self.ASIDES | self.LISTINGS

    def _is_captured(self, tag: str, attributes: Mapping[str, str]) -> bool:
        """Tell whether the text of an element is wanted."""
        return tag == "title" or (tag == "p" and attributes.get("class", "") in self.PROSE)

    def _finish_capture(self, tag: str) -> None:
        """Store the text collected since the start of the capture."""
        self._capture_depth = None
        text = squeeze("".join(self._buffer))
        if tag == "title":
            self._title = text
        elif text:
            self._paragraphs.append((self._paragraph_id, text))


def ar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and contents of each member of an ``ar`` archive, such as a .deb file."""
    with path.open("rb") as stream:
        if stream.read(8) != b"!<arch>\n":
            raise ValueError(f"{path.name} is not a Debian package")
        while header := stream.read(60):
            size = int(header[48:58])
            yield header[:16].decode("ascii").strip().rstrip("/"), stream.read(size)
            stream.read(size % 2)


def open_tar(path: Path, stem: str) -> tarfile.TarFile:
    """Open the inner archive ``control`` or ``data`` of a Debian package."""
    for name, contents in ar_members(path):
        if name.split(".")[0] == stem:
            if name.endswith(".zst"):
                raise ValueError(f"{path.name}: zstd-compressed packages are not supported")
            return tarfile.open(fileobj=io.BytesIO(contents), mode="r:*")
    raise ValueError(f"{path.name} has no member {stem}.tar")


def package_version(path: Path) -> str:
    """Return ``name version`` as stated in the control file of a package."""
    with open_tar(path, "control") as archive:
        stream = archive.extractfile("./control")
        if stream is None:
            raise ValueError(f"{path.name} has no control file")
        lines = stream.read().decode("utf-8").splitlines()
    fields = dict(line.split(": ", 1) for line in lines if ": " in line and line[0] != " ")
    return f"{fields['Package']} {fields['Version']}"


def parse_page(html: str) -> Page:
    """Extract title and prose from the HTML source of a help page."""
    parser = HelpPageParser()
    parser.feed(html)
    parser.close()
    return parser.page()


def read_pages(path: Path, topics: frozenset[str]) -> dict[str, Page]:
    """Return the wanted pages of one language package by topic."""
    location = re.compile(r"\./usr/share/libreoffice/help/[^/]+/(text/.+)\.html")
    pages: dict[str, Page] = {}
    with open_tar(path, "data") as archive:
        for member in archive:
            match = location.fullmatch(member.name)
            if match is None or match[1] not in topics:
                continue
            stream = archive.extractfile(member)
            if stream is not None:
                pages[match[1]] = parse_page(stream.read().decode("utf-8"))
    return pages


def find_packages(folder: Path) -> dict[str, Path]:
    """Map language codes to package files, in the order of ``PACKAGES``."""
    found: dict[str, Path] = {}
    for suffix, lang in PACKAGES.items():
        matches = sorted(folder.glob(f"{PACKAGE_PREFIX}{suffix}_*.deb"))
        if len(matches) != 1:
            raise ValueError(f"expected one {PACKAGE_PREFIX}{suffix} package, got {len(matches)}")
        found[lang] = matches[0]
    return found


def read_topics(path: Path) -> list[str]:
    """Read the topic list: one page path per line, ``#`` starts a comment."""
    lines = (line.split("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    topics = [line for line in lines if line]
    if duplicates := [topic for topic, count in Counter(topics).items() if count > 1]:
        raise ValueError(f"duplicate topics: {', '.join(duplicates)}")
    return topics


def leading_paragraphs(page: Page, limits: Limits) -> list[Paragraph]:
    """Take whole paragraphs from the start of a page until there is enough text.

    Anything but sentences ends the passage; a trailing "do one of the
    following:" is dropped because what follows it is not included.
    """
    taken: list[Paragraph] = []
    length = -1
    for paragraph in page.paragraphs:
        text = paragraph[1]
        is_prose = SENTENCE_END.search(text) or LEAD_IN_END.search(text)
        if length >= limits.enough or not is_prose or length + 1 + len(text) > limits.maximum:
            break
        taken.append(paragraph)
        length += 1 + len(text)
    while taken and LEAD_IN_END.search(taken[-1][1]):
        taken.pop()
    return taken


def is_in_language(text: str, lang: str) -> bool:
    """Check that a text is written in the script of its language and not in English."""
    if lang == PIVOT:
        return True
    if script := SCRIPTS.get(lang):
        letters = sum(character.isalpha() for character in text)
        return len(script.findall(text)) >= MIN_SCRIPT_SHARE * letters
    return ENGLISH_WORDS.isdisjoint(re.findall(r"[^\W\d_]+", text.lower()))


def make_passage(topic: str, lang: str, page: Page, pivot: Page) -> Passage | None:
    """Cut the passage of one page, or return None if the page is unsuitable.

    Unsuitable are pages whose beginning is too short or too long, has markup remnants, or
    is not fully translated.
    """
    limits = CJK_LIMITS if lang in CJK_LANGS else ALPHABETIC_LIMITS
    taken = leading_paragraphs(page, limits)
    text = " ".join(paragraph for _, paragraph in taken)
    is_long_enough = len(text) >= limits.minimum and page.title
    if not is_long_enough or REMNANT.search(f"{page.title} {text}"):
        return None
    if lang != PIVOT:
        english = set(pivot.paragraphs)
        if page.title == pivot.title or not english.isdisjoint(taken):
            return None
    if not is_in_language(text, lang):
        return None
    return Passage(topic, lang, page.title, text)


def collect_candidates(
    packages: Mapping[str, Path], topics: Sequence[str]
) -> dict[str, dict[str, Passage]]:
    """Return every usable passage as topic -> language -> passage."""
    wanted = frozenset(topics)
    pivot_pages = read_pages(packages[PIVOT], wanted)
    if missing := sorted(wanted - pivot_pages.keys()):
        raise ValueError(f"unknown topics: {', '.join(missing)}")
    candidates: dict[str, dict[str, Passage]] = {topic: {} for topic in topics}
    for lang, path in packages.items():
        pages = pivot_pages if lang == PIVOT else read_pages(path, wanted)
        for topic, page in pages.items():
            if passage := make_passage(topic, lang, page, pivot_pages[topic]):
                candidates[topic][lang] = passage
    return candidates


def pick_languages(
    available: Iterable[str], count: int, need: Mapping[str, float], state: Assignment
) -> list[str]:
    """Choose ``count`` languages for one topic.

    Languages that are furthest behind come first; among equals, those that were combined
    least often with the languages already chosen, then those earliest in ``PACKAGES``.
    """
    remaining = list(available)
    chosen: list[str] = []
    while remaining and len(chosen) < count:
        best = min(
            remaining,
            key=lambda lang: (
                -round(need[lang], 1),
                sum(state.together[frozenset({lang, other})] for other in chosen),
                -need[lang],
            ),
        )
        remaining.remove(best)
        chosen.append(best)
    return chosen


def select_passages(
    candidates: Mapping[str, Mapping[str, Passage]], per_topic: int
) -> list[Passage]:
    """Keep each topic in ``per_topic`` languages, with balanced language counts.

    The need of a language is the number of passages it still lacks divided by the number
    of topics it could still get them from, so languages with few translated pages are
    served while they can be.
    """
    usable = {topic: langs for topic, langs in candidates.items() if len(langs) >= per_topic}
    left = Counter(lang for langs in usable.values() for lang in langs)
    quota = len(usable) * per_topic / len(PACKAGES)
    state = Assignment()
    selected: list[Passage] = []
    for passages in usable.values():
        need = {lang: (quota - state.used[lang]) / left[lang] for lang in passages}
        langs = pick_languages(passages, per_topic, need, state)
        state.add(langs)
        left.subtract(passages.keys())
        selected.extend(passages[lang] for lang in sorted(langs))
    return selected


def check_passages(passages: Sequence[Passage]) -> None:
    """Refuse duplicated texts, which would make search results ambiguous."""
    texts = Counter((passage.lang, passage.text) for passage in passages)
    if duplicates := [text[:60] for (_, text), count in texts.items() if count > 1]:
        raise ValueError(f"duplicated passages: {duplicates}")


def print_report(packages: Mapping[str, Path], passages: Sequence[Passage]) -> None:
    """Print counts per language and the source packages as a Markdown table."""
    counts = Counter(passage.lang for passage in passages)
    print("| language | passages | source package |")
    print("| --- | ---: | --- |")
    for lang, path in sorted(packages.items()):
        print(f"| {lang} | {counts[lang]} | {package_version(path)} |")
    topics = len({passage.topic for passage in passages})
    print(f"\n{len(passages)} passages, {topics} topics")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Build passages.jsonl from LibreOffice help packages.",
        epilog="Needed are the Debian packages libreoffice-help-XX for XX = "
        + ", ".join(PACKAGES)
        + ".  To fetch one: apt-get download libreoffice-help-de",
    )
    parser.add_argument(
        "packages", type=Path, metavar="FOLDER", help="folder with the libreoffice-help-*.deb files"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=HERE / "passages.jsonl",
        help="file to write (default: passages.jsonl next to this script)",
    )
    parser.add_argument(
        "--topics",
        type=Path,
        default=HERE / "topics.txt",
        help="list of help pages to use (default: topics.txt next to this script)",
    )
    parser.add_argument(
        "--languages-per-topic",
        type=int,
        default=4,
        metavar="N",
        help="in how many languages each topic is kept (default: %(default)s)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line program."""
    arguments = parse_arguments(argv)
    try:
        packages = find_packages(arguments.packages)
        candidates = collect_candidates(packages, read_topics(arguments.topics))
        passages = select_passages(candidates, arguments.languages_per_topic)
        check_passages(passages)
    except (OSError, ValueError, tarfile.TarError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    lines = [passage.to_json() + "\n" for passage in passages]
    arguments.output.write_text("".join(lines), encoding="utf-8", newline="\n")
    print_report(packages, passages)
    return 0


if __name__ == "__main__":
    sys.exit(main())
