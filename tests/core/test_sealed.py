"""JSON files with a checksum of their own."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from z1g.core import unchecked
from z1g.core.files import read_json, write_json
from z1g.core.sealed import Damaged, read_sealed, write_sealed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text().filter(lambda key: key != "checksum"), VALUES, max_size=4)


@given(value=OBJECTS)
def test_what_was_written_is_read(value: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("sealed") / "a.json"
    write_sealed(file, value, "fit/1")
    assert read_sealed(file, "fit/1") == value
    # Another spelling of the same values is the same.
    file.write_text(json.dumps(dict(reversed(read_json(file).items()))))
    assert read_sealed(file, "fit/1") == value
    with pytest.raises(Damaged):
        read_sealed(file, "fit/2")


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    file, value = tmp_path / "a.json", {"psnr": 11.5, "name": "ab", "rows": [1, None, True]}
    write_sealed(file, value, "x")
    content = file.read_bytes()
    for place in range(8 * len(content)):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        file.write_bytes(changed)
        with contextlib.suppress(ValueError):
            # A bit of a space makes it a line feed, or a letter of another case of an escape: the same values.
            assert read_sealed(file, "x") == value, changed


def test_files_without_a_checksum_are_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unchecked, "_warned", set())
    write_sealed(tmp_path / "b.json", {"a": 1}, "anything")
    assert read_sealed(tmp_path / "b.json", "anything") == {"a": 1}
    assert not caplog.records
    write_json(tmp_path / "a.json", {"a": 1})
    for _ in range(2):
        assert read_sealed(tmp_path / "a.json", "anything") == {"a": 1}
    assert [str(tmp_path / "a.json") in record.message for record in caplog.records] == [True]
    write_json(tmp_path / "a.json", [1])
    with pytest.raises(Damaged, match="not a JSON object"):
        read_sealed(tmp_path / "a.json", "anything")
