"""Packages that seem not to be there for a while."""

from __future__ import annotations

import pytest

from ann.packages import hidden


def test_what_is_hidden_is_there_afterwards(tmp_path, monkeypatch):
    for name in ("known_before", "wanted_later"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    import known_before

    with hidden({"known_before", "wanted_later"}):
        import known_before as still_known

        with pytest.raises(ImportError):
            import wanted_later
    import wanted_later

    assert still_known is known_before and wanted_later.__file__
