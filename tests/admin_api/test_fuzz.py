"""Requests made up from the OpenAPI document: no answer is a fault, and none is one that the document does not name."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.admin_api.conftest import Site

PROGRAM = Path(sys.executable).with_name("schemathesis")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
# A long run: FUZZ_EXAMPLES=50; it tries every bound of every field as well.
EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "")
PHASES = "examples,coverage,fuzzing,stateful" if EXAMPLES else "examples,fuzzing,stateful"


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_no_answer_is_a_fault_or_undocumented(site: Site, tmp_path: Path) -> None:
    token, _ = await site.api.tokens.issue(site.alice)
    command = [
        *("run", f"{site.client.base}/api/v1/openapi.json", "--url", f"{site.client.base}/api/v1"),
        *("--header", f"Authorization: Bearer {token}"),
        *("--checks", ",".join(CHECKS), "--max-examples", EXAMPLES or "5", "--seed", "1", "--phases", PHASES),
        # A fuzzed logout would end the token that all others need.
        *("--exclude-operation-id", "logout"),
        # Making requests up takes its time where the machine is busy.
        *("--suppress-health-check", "all", "--no-color"),
    ]
    process = await asyncio.create_subprocess_exec(
        PROGRAM, *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-5000:]
