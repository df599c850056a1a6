"""Files to documents: every kind, every way of being wrong, in bounded memory."""

import csv
import io
import json
import os
import re
import sys
import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gte_integrations._index.document import Document, Unreadable
from gte_integrations.documents.layout import Layout
from gte_integrations.documents.readers import read_documents, read_lines

CELLS = "셀 병합 · خلية · सेल · セル"


def read(*paths, **options):
    """The documents of the paths; what could not be read is raised."""
    found = list(read_documents(paths, **options))
    for item in found:
        if isinstance(item, Unreadable):
            raise item.error
    return found


def reasons(*paths):
    """What was read: ids, and why the rest was not."""
    found = read_documents(paths)
    return [str(item.error) if isinstance(item, Unreadable) else item.id for item in found]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


class TestJsonLines:
    def test_fields_beside_id_and_text_are_the_payload(self, write):
        rows = [
            {"id": "a", "text": CELLS, "lang": "ko", "tags": ["x", {"y": 1}], "none": None},
            {"text": "", "id": 7},
        ]
        path = write("rows.jsonl", "\n".join(map(json.dumps, rows)))
        assert read(path) == [
            Document("a", CELLS, {"lang": "ko", "tags": ["x", {"y": 1}], "none": None}),
            Document(7, "", {}),
        ]

    @pytest.mark.parametrize("missing", ['{"text": "x"}', '{"text": "x", "id": null}'])
    def test_a_missing_id_is_the_file_name_and_the_row(self, write, missing):
        path = write("rows.jsonl", f'{{"text": "first", "id": "a"}}\n\n{missing}\n')
        assert [document.id for document in read(path)] == ["a", "rows.jsonl:2"]

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    def test_line_ends_blank_lines_and_byte_order_mark(self, write, end, mark):
        lines = ['{"id": "1", "text": "a\\r\\nb"}', "", "  ", '{"id": "2", "text": "c"}']
        path = write("rows.jsonl", mark + end.join(lines))
        assert read(path) == [Document("1", "a\r\nb"), Document("2", "c")]

    def test_a_text_may_hold_unicode_line_ends(self, write):
        path = write("rows.jsonl", '{"id": "1", "text": "a\u2028b\x85c"}\n')
        assert read(path)[0].text == "a\u2028b\x85c"

    def test_one_line_of_50_mb(self, write):
        path = write("rows.jsonl", json.dumps({"id": "1", "text": "x" * 50_000_000}))
        assert len(read(path)[0].text) == 50_000_000

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"text": "a"', r"line 17: not JSON .*column 13.*whole JSON object"),
            ("[1, 2]", r"line 17: found list \[1, 2\]; a line must be a JSON object"),
            ('{"id": "1", "title": "a"}', r"line 17: no 'text' among .*'id', 'title'.*name the"),
            ('{"text": null}', r"line 17: 'text' must be a string, found NoneType None"),
            ('{"text": "a", "id": [1]}', r"line 17: 'id' must be a string or an integer, found li"),
            ('{"text": "a", "id": true}', r"line 17: 'id' must be .*found bool True"),
            ("[" * 100_000, r"line 17: JSON that cannot be read"),
            (b'{"text": "caf\xe9"}', r"line 17: byte 0xe9 is not UTF-8; save it as UTF-8"),
        ],
    )
    def test_a_bad_line_is_named(self, write, line, message):
        line = line if isinstance(line, bytes) else line.encode()
        path = write("rows.jsonl", b'{"text": "good"}\n' * 16 + line + b"\n")
        documents = read_documents([path])
        assert [next(documents).id for _ in range(16)][-1] == "rows.jsonl:16"
        with pytest.raises(ValueError, match=rf"rows\.jsonl, {message}"):
            raise next(documents).error
        assert next(documents, None) is None

    def test_utf_16_is_recognised(self, write):
        path = write("rows.jsonl", '{"text": "a"}'.encode("utf-16"))
        with pytest.raises(ValueError, match=r"line 1: .*looks like UTF-16.*save it as UTF-8"):
            read(path)

    def test_memory_follows_the_line_not_the_file(self, write):
        path = write("rows.jsonl", (json.dumps({"text": "x" * 100_000}) + "\n").encode() * 200)
        tracemalloc.start()
        n_characters = sum(len(document.text) for document in read_documents([path]))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert n_characters == 20_000_000
        assert peak < 2_000_000


class TestCsv:
    def test_quotes_line_breaks_and_unnamed_columns(self, write):
        path = write(
            "rows.csv",
            '\ufeff,id, text ,lang\r\n0,a,"one, ""two""\r\nthree",ko\r\n\r\n1,,second,\r\n',
        )
        assert read(path) == [
            Document("a", 'one, "two"\r\nthree', {"column_1": "0", "lang": "ko"}),
            Document("rows.csv:2", "second", {"column_1": "1", "lang": ""}),
        ]

    def test_a_field_beyond_the_default_limit(self, write):
        csv.field_size_limit(131_072)
        path = write("rows.csv", "text\n" + "x" * 1_000_000)
        assert len(read(path)[0].text) == 1_000_000

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("id;text\n1;a\n", r"line 1: no 'text' among .*'id;text'.*separated by commas"),
            ("text,lang,lang\na,b,c\n", r"line 1: the column 'lang' appears twice"),
            ('text,lang\n"a\nb",x\nc,d,e\n', r"line 4: found 3 fields, but the header has 2"),
            ('text\na\n"b\nc', r"line 3: not CSV \(unexpected end of data\)"),
            (b"text\na\nb\xff\n", r"line 3: byte 0xff is not UTF-8; save it .* encoding='cp1252'"),
            ("id;text\n1;a\n", r"line 1: .*else pass for instance delimiter=';'"),
            ("id\ttext\n1\ta\n", r"line 1: .*else pass for instance delimiter='\\t'"),
            ("id,text\r1,a\r2,b\r", r"line 1: has carriage returns \(CR\) alone.*save it with"),
        ],
    )
    def test_a_bad_row_is_named(self, write, content, message):
        path = write("rows.csv", content)
        with pytest.raises(ValueError, match=rf"rows\.csv, {message}"):
            read(path)


class TestParquet:
    def test_rows_as_from_json(self, tmp_path):
        path = tmp_path / "rows.parquet"
        table = pa.table(
            {
                "id": ["a", None],
                "text": pa.array([CELLS, "b"]).dictionary_encode(),
                "day": [datetime(2024, 5, 1, tzinfo=UTC)] * 2,
                "price": [Decimal("1.50"), None],
                "score": [float("nan"), 0.5],
                "tags": [["x"], []],
                "part": [{"n": 1}, None],
            }
        )
        pq.write_table(table, path)
        assert read(path) == [
            Document(
                "a",
                CELLS,
                {
                    "day": "2024-05-01T00:00:00+00:00",
                    "price": "1.50",
                    "score": None,
                    "tags": ["x"],
                    "part": {"n": 1},
                },
            ),
            Document(
                "rows.parquet:2",
                "b",
                {
                    "day": "2024-05-01T00:00:00+00:00",
                    "price": None,
                    "score": 0.5,
                    "tags": [],
                    "part": None,
                },
            ),
        ]

    def test_many_batches_keep_counting(self, tmp_path):
        path = tmp_path / "rows.parquet"
        pq.write_table(pa.table({"text": [str(n) for n in range(1, 601)]}), path, row_group_size=77)
        documents = read(path)
        assert [document.id for document in documents] == [
            f"rows.parquet:{n}" for n in range(1, 601)
        ]
        assert [document.text for document in documents] == [str(n) for n in range(1, 601)]

    def test_a_row_without_text_is_named(self, tmp_path):
        pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "rows.parquet")
        with pytest.raises(ValueError, match=r"rows\.parquet, row 2: 'text' must be a string"):
            read(tmp_path / "rows.parquet")

    def test_a_file_without_text_is_named(self, tmp_path):
        pq.write_table(pa.table({"body": ["a"]}), tmp_path / "rows.parquet")
        with pytest.raises(ValueError, match=r"row 1: no 'text' among the fields found \('body'\)"):
            read(tmp_path / "rows.parquet")

    def test_what_is_no_parquet_is_named(self, write):
        with pytest.raises(ValueError, match=r"rows\.parquet: not a Parquet file that can be read"):
            read(write("rows.parquet", "text\n"))

    def test_without_pyarrow_the_extra_is_named(self, write, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(ImportError, match=r"pip install 'gte-integrations\[parquet\]'"):
            read(write("rows.parquet", "x"))


class TestJson:
    def test_an_array_of_objects(self, write):
        rows = [{"id": "a", "text": CELLS, "lang": "ko"}, {"text": "b"}]
        path = write("rows.json", json.dumps(rows, indent=1))
        assert read(path) == [
            Document("a", CELLS, {"lang": "ko"}),
            Document("rows.json:2", "b", {}),
        ]

    def test_a_bad_item_leaves_the_others(self, write):
        first, bad, last = reasons(write("rows.json", '[{"text": "a"}, 7, {"text": "b"}]'))
        assert (first, last) == ("rows.json:1", "rows.json:3")
        assert "rows.json, item 2: found int 7; an item must be a JSON object" in bad

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ('{"text": "a"}', "found dict .*must be an array of objects"),
            ('{"text": "a"}\n{"text": "b"}', "not JSON .*one array of objects, and a .jsonl"),
            ("[" * 100_000, "not JSON"),
            (b'["\xff"]', "line 1: byte 0xff is not UTF-8"),
        ],
    )
    def test_what_is_no_array_is_named(self, write, content, message):
        [reason] = reasons(write("rows.json", content))
        assert re.search(rf"rows\.json(: |, ){message}", reason)


class TestLayouts:
    """Files that others wrote: their columns, encodings and delimiters."""

    def test_columns_of_other_names(self, write, tmp_path):
        layout = Layout(text_column="body", id_column="url")
        fields = {"url": "u", "body": "b", "id": 7, "text": "t", "lang": "en"}
        pq.write_table(pa.table({name: [value] for name, value in fields.items()}), tmp_path / "p")
        files = {
            "rows.jsonl": json.dumps(fields),
            "rows.json": json.dumps([fields]),
            "rows.csv": ",".join(fields) + "\n" + ",".join(map(str, fields.values())),
            "rows.parquet": (tmp_path / "p").read_bytes(),
        }
        for name, content in files.items():
            [document] = read(write(name, content), layout=layout)
            assert (document.id, document.text) == ("u", "b")
            payload = {key: str(value) for key, value in document.payload.items()}
            assert payload == {"column_id": "7", "column_text": "t", "lang": "en"}

    def test_a_column_that_is_not_there_is_named_with_those_that_are(self, write):
        path = write("rows.csv", "id,body\n1,a\n")
        message = r"line 1: no 'title' among .*'id', 'body'\); pass one of those as text_column"
        with pytest.raises(ValueError, match=message):
            read(path, layout=Layout(text_column="title"))

    def test_a_delimiter_that_splits_nothing_is_named_beside_the_columns(self, write):
        path = write("rows.csv", "id,body\n1,a\n")
        message = r"no 'body' among .*\('id,body'\); .*by ';', else pass for instance delimiter=','"
        with pytest.raises(ValueError, match=message):
            read(path, layout=Layout(text_column="body", delimiter=";"))

    @pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "UTF_8", "utf-8-sig"])
    def test_encodings(self, write, encoding):
        files = {
            "a.txt": "Größe\u2028 \r\n",
            "b.csv": 'id;text\r\n1;"Größe\u2028 \r\n"',
            "c.jsonl": r'{"id": "1", "text": "Größe\u2028 \r\n"}',
            "d.json": r'[{"id": "1", "text": "Größe\u2028 \r\n"}]',
        }
        if encoding == "latin-1":
            files = {name: content.replace("\u2028", "") for name, content in files.items()}
        for name, content in files.items():
            path = write(name, content.encode(encoding))
            [document] = read(path, layout=Layout(encoding=encoding, delimiter=";"))
            assert document.text.replace("\u2028", "") == "Größe \r\n"

    def test_what_is_not_in_the_encoding_is_named(self, write):
        [reason] = [
            str(item.error)
            for item in read_documents(write("a.txt", b"caf\xe9"), layout=Layout(encoding="ascii"))
        ]
        assert re.search(r"a\.txt: not written in ascii \(.*0xe9.*\); pass the right enc", reason)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"encoding": "latin-99"}, "encoding is 'latin-99', which Python does not know"),
            ({"encoding": "hex"}, "encoding is 'hex', which Python does not know"),
            ({"delimiter": ";;"}, "delimiter is ';;', but must be one character"),
            ({"delimiter": '"'}, "delimiter is .*no quote"),
            ({"text_column": "id"}, "text_column and id_column are both 'id'"),
        ],
    )
    def test_what_cannot_be_is_told_at_once(self, options, message):
        with pytest.raises(ValueError, match=message):
            Layout(**options)

    def test_lines_of_no_file_need_ids(self):
        lines = io.BytesIO(b'{"id": "a", "text": "x"}\n{"text": "y"}\n{"id": "c", "text": "z"}')
        first, bad, last = read_lines(lines, "stdin", Layout())
        assert (first, last) == (Document("a", "x"), Document("c", "z"))
        assert str(bad.error).startswith("stdin, line 2: no 'id', which")


class TestTextFiles:
    def test_a_file_is_a_document_and_its_text_is_not_changed(self, write):
        path = write("a.md", f"\ufeff# {CELLS}\r\n\r\n")
        assert read(path) == [Document("a.md", f"# {CELLS}\r\n\r\n", {"source": path.as_posix()})]

    def test_a_wrong_byte_is_found_on_its_line(self, write):
        with pytest.raises(ValueError, match=r"a\.txt, line 3: byte 0xe9 is not UTF-8"):
            read(write("a.txt", b"one\ntwo\ncaf\xe9\n"))


class TestPaths:
    @pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
    @pytest.mark.parametrize("content", ["", "\ufeff"])
    def test_an_empty_table_has_no_documents(self, write, suffix, content):
        if suffix == "parquet":
            content = ""
        assert read(write(f"empty.{suffix}", content)) == []

    @pytest.mark.parametrize("content", ["", "\ufeff", " \n"])
    def test_an_empty_text_is_a_document_so_that_its_predecessor_goes(self, write, content):
        [document] = read(write("a.txt", content))
        assert (document.id, document.text.strip()) == ("a.txt", "")

    def test_a_folder_is_read_in_order_without_hidden_files(self, write, tmp_path, caplog):
        for name in ["b.txt", "a/z.TXT", "a/b/c.md", "a.txt", ".hidden.txt", ".git/x.txt", "z.png"]:
            write(name, name)
        (tmp_path / "a" / "loop").symlink_to(tmp_path)
        documents = read(tmp_path)
        assert [document.id for document in documents] == ["a/b/c.md", "a/z.TXT", "a.txt", "b.txt"]
        assert "left out files of other kinds: 1 .png." in caplog.text

    def test_derived_row_ids_hold_the_subfolder(self, write, tmp_path):
        write("a/rows.jsonl", '{"text": "x"}')
        write("b/rows.jsonl", '{"text": "y"}')
        assert [document.id for document in read(tmp_path)] == ["a/rows.jsonl:1", "b/rows.jsonl:1"]

    def test_one_path_need_not_be_in_a_list(self, write):
        assert len(list(read_documents(write("a.txt", "a")))) == 1
        assert len(list(read_documents(str(write("a.txt", "a"))))) == 1

    def test_a_file_given_twice_is_read_once(self, write, tmp_path):
        path = write("docs/a.txt", "a")
        assert [document.id for document in read(tmp_path / "docs", path)] == ["a.txt"]

    def test_files_that_would_share_derived_ids_are_refused(self, write):
        first, second = write("a/readme.md", "a"), write("b/readme.md", "b")
        with pytest.raises(ValueError, match=r"would give the same ids.*give the folder that hold"):
            read(first, second)

    def test_files_of_one_name_may_have_ids_of_their_own(self, write):
        first = write("a/rows.jsonl", '{"id": "1", "text": "a"}')
        second = write("b/rows.jsonl", '{"id": "2", "text": "b"}')
        assert [document.id for document in read(first, second)] == ["1", "2"]

    def test_paths_are_checked_before_anything_is_read(self, write, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"passages\.jsonk does not exist"):
            read_documents([write("passages.jsonl", "broken"), tmp_path / "passages.jsonk"])

    def test_paths_with_nothing_to_read_can_be_skipped(self, write, tmp_path):
        bad, fine = read_documents([tmp_path / "gone", write("a.txt", "a")], on_error="skip")
        assert "gone does not exist" in str(bad.error)
        assert fine.id == "a.txt"
        with pytest.raises(FileNotFoundError, match="gone does not exist"):
            read_documents(tmp_path / "gone", on_error="skip")
        with pytest.raises(ValueError, match="on_error is 'ignore', but must be one of"):
            read_documents(tmp_path, on_error="ignore")

    def test_a_link_that_leads_nowhere_is_named_with_its_aim(self, tmp_path):
        link = tmp_path / "link.md"
        link.symlink_to("gone.md")
        with pytest.raises(
            FileNotFoundError, match=r"link\.md is a symbolic link to gone\.md, where"
        ):
            read(link)
        [reason] = reasons(tmp_path)
        assert reason.startswith(f"{link} is a symbolic link to gone.md, where no file is; mend")

    def test_what_the_system_says_comes_behind_the_path(self, write, monkeypatch):
        path = write("a.txt", "a")
        monkeypatch.setattr(type(path), "open", Mock(side_effect=OSError(5, "I/O error")))
        assert reasons(path) == [f"{path}: I/O error."]

    def test_a_missing_path_names_what_is_near(self, write, tmp_path):
        path = write("docs/passages.jsonl", "")
        with pytest.raises(FileNotFoundError, match=rf"did you mean {path}\?"):
            read(tmp_path / "docs" / "pasages.jsonl")
        with pytest.raises(FileNotFoundError, match=rf"did you mean {tmp_path / 'docs'}\?"):
            read(tmp_path / "doc" / "passages.jsonl")
        with pytest.raises(FileNotFoundError, match=r"no name like it is in"):
            read(tmp_path / "quite else")
        with pytest.raises(FileNotFoundError, match=r"passages\.jsonl is a file"):
            read(path / "x.txt")

    @pytest.mark.parametrize(("name", "kind"), [("a.docx", r"'?\.docx"), ("a", "without suffix")])
    def test_an_unknown_kind_names_the_allowed_ones(self, write, name, kind):
        with pytest.raises(
            ValueError, match=rf"cannot read .*{kind}.*\.csv, \.json, \.jsonl, \.md, \.parq"
        ):
            read(write(name, "x"))

    def test_a_folder_without_documents_is_an_error(self, write, tmp_path):
        write("x.png", "")
        with pytest.raises(ValueError, match=r"nothing to read in this folder; allowed are \.csv"):
            read(tmp_path)


class TestWhatCannotBeRead:
    """One bad row or file leaves the others, and is named."""

    def test_a_bad_line_leaves_the_lines_around_it(self, write):
        lines = [b'{"text": "a"}', b"{broken", b'{"text": "\xff"}', b'{"id": 1.5, "text": "b"}']
        path = write("rows.jsonl", b"\n".join([*lines, b'{"text": "c"}']))
        first, *bad, last = reasons(path)
        assert (first, last) == ("rows.jsonl:1", "rows.jsonl:5")
        for number, (reason, why) in enumerate(
            zip(bad, ["not JSON", "byte 0xff is not UTF-8", "'id' must be a str"], strict=True), 2
        ):
            assert f"rows.jsonl, line {number}" in reason
            assert why in reason

    def test_a_bad_row_of_a_table_leaves_the_rows_around_it(self, write):
        path = write("rows.csv", b'text,lang\na,x\nb\n"c\xe9\nd",y\ne,z\n')
        first, short, latin, last = reasons(path)
        assert (first, last) == ("rows.csv:1", "rows.csv:4")
        assert "rows.csv, line 3: found 1 fields, but the header has 2" in short
        assert "rows.csv, line 4: byte 0xe9 is not UTF-8" in latin

    def test_a_lost_quote_says_that_the_rest_is_not_read(self, write):
        first, reason = reasons(write("rows.csv", 'text\na\n"b\nc\n'))
        assert first == "rows.csv:1"
        assert "rows.csv, line 3: not CSV" in reason
        assert "not read further" in reason

    def test_a_bad_row_of_parquet_leaves_the_others(self, tmp_path):
        path = tmp_path / "rows.parquet"
        pq.write_table(pa.table({"id": [1.5, 2.0], "text": ["a", "b"]}), path)
        assert ["row 1: 'id' must" in reasons(path)[0], "row 2: 'id'" in reasons(path)[1]] == [
            True
        ] * 2

    def test_a_bad_file_leaves_the_others(self, write, tmp_path):
        write("a.txt", b"\xff\xfe")
        (tmp_path / "b.md").symlink_to(tmp_path / "gone.md")
        write("c.csv", "body\nx\n")
        write("d.parquet", "x")
        write("e.txt", "fine")
        binary, dangling, column, parquet, fine = reasons(tmp_path)
        assert fine == "e.txt"
        assert "a.txt, line 1: byte 0xff is not UTF-8" in binary
        assert "b.md" in dangling
        assert "c.csv, line 1: no 'text' among" in column
        assert "d.parquet: not a Parquet file" in parquet

    def test_what_is_no_file_is_named_and_not_waited_for(self, write, tmp_path):
        os.mkfifo(tmp_path / "a.txt")
        os.mkfifo(tmp_path / "b.jsonl")
        (tmp_path / "c.md").symlink_to(tmp_path / "c.md")
        write("d.txt", "fine")
        text, lines, loop, fine = reasons(tmp_path)
        assert fine == "d.txt"
        assert "a.txt: is no regular file" in text
        assert "b.jsonl: is no regular file" in lines
        assert "c.md" in loop
        assert "is no regular file" in reasons(tmp_path / "a.txt")[0]

    def test_a_folder_that_cannot_be_opened_leaves_the_others(self, write, tmp_path, monkeypatch):
        write("locked/a.txt", "x")
        write("open/b.txt", "y")
        monkeypatch.setattr(os, "access", lambda path, mode: path.name != "locked")
        locked, fine = reasons(tmp_path)
        assert fine == "open/b.txt"
        assert "locked: is no regular file, or a folder that cannot be opened" in locked


class TestOrigins:
    def test_the_origin_is_the_folder_that_ids_are_relative_to(self, write, tmp_path):
        write("docs/a/readme.md", "x")
        path = write("docs/rows.jsonl", '{"text": "y"}')
        folder = str(tmp_path / "docs")
        assert [document.origin for document in read(tmp_path / "docs")] == [folder] * 2
        assert [document.origin for document in read(path)] == [folder]
        assert [document.origin for document in read(tmp_path / "docs" / "a")] == [f"{folder}/a"]

    def test_an_id_that_was_given_has_no_origin(self, write):
        [document] = read(write("rows.jsonl", '{"id": "1", "text": "y"}'))
        assert document.origin is None

    def test_a_prefix_comes_before_derived_ids_alone(self, write):
        text, rows = write("a.md", "x"), write("rows.csv", "id,text\n7,x\n,y\n")
        found = read(text, rows, id_prefix="manual/")
        assert [document.id for document in found] == ["manual/a.md", "7", "manual/rows.csv:2"]


def test_documents_are_the_same_however_their_folder_is_spelled(tmp_path, monkeypatch, index):
    (tmp_path / "notes" / "sub").mkdir(parents=True)
    for name in ("a.md", "sub/b.txt"):
        (tmp_path / "notes" / name).write_text(f"About {name}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert index.add(read_documents("notes")).written == 2
    assert {one.payload["source"] for one in index} == {"notes/a.md", "notes/sub/b.txt"}
    for spelling in (
        "notes/",
        "./notes",
        "notes/../notes",
        "notes/sub/..",
        str(tmp_path / "notes"),
    ):
        assert index.add(read_documents(spelling)).unchanged == 2, spelling
    together = read_documents(["notes", "./notes", str(tmp_path / "notes"), "notes/sub"])
    assert index.add(together).unchanged == 2  # files given twice are read once


def test_paths_outside_the_working_directory_are_absolute(tmp_path, monkeypatch):
    (tmp_path / "notes").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "notes" / "a.md").write_text("oak", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "work")
    [one] = read_documents("../notes")
    assert [one] == list(read_documents(tmp_path / "notes"))
    assert one.payload["source"] == (tmp_path / "notes" / "a.md").as_posix()


def test_a_folder_in_a_folder_has_other_ids_by_itself(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.md").write_text("oak", encoding="utf-8")
    assert [one.id for one in read_documents(tmp_path)] == ["sub/a.md"]
    assert [one.id for one in read_documents(tmp_path / "sub")] == ["a.md"]
