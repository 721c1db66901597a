"""After the imports nothing of ours is left to be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mailserver.embedded.account import ServiceAccount
from mailserver.node import preimport
from tests.support.services import short_folder

ROOT = Path(__file__).parents[2]
STRANGER = ServiceAccount("stranger", 54_321, 54_321, Path("/nonexistent"))

CODE = """
import json, sys
from mailserver.node import preimport
preimport.import_ours()
preimport.import_all()
before = set(sys.modules)
sys.path[:] = []  # as if nothing could be read any more
sys.path_importer_cache.clear()
for codec in sys.argv[1:]:
    b"a".decode(codec)
"x.example".encode("idna")
import email.header, asyncio, ssl, logging
raise_later = ValueError("text")
import traceback; traceback.format_exception(raise_later)
print(json.dumps(sorted(before)))
"""


def test_all_modules_and_codecs_are_there() -> None:
    codecs = ["iso-8859-15", "koi8-r", "shift_jis", "gb18030", "euc-kr", "windows-1252", "utf-7", "big5", "cp437"]
    done = subprocess.run([sys.executable, "-c", CODE, *codecs], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    there = set(json.loads(done.stdout))
    for package in preimport.OURS:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if not name.startswith("mailserver.cli") and "." in name and not name.endswith("__main__"):
                assert name in there, name


def test_needed_where_the_account_cannot_read_a_place_of_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    with short_folder() as folder:
        (folder / "site").mkdir()
        monkeypatch.setattr(sys, "path", [str(folder / "site")])
        assert not preimport.needs_all(None)
        assert not preimport.needs_all(STRANGER)
        folder.chmod(0o700)
        assert preimport.needs_all(STRANGER)
        assert not preimport.needs_all(None)
