"""What a check loads: a new worker process pays for it with its first partition."""

import subprocess
import sys

import pytest

from tests.servers import ROOT

CHECK = """
import io, sys
from ingestion.ports.schema import ContractBody
from ingestion.quality.contracts import compile_contract
from ingestion.quality.parts import write_clean, write_rejected
from ingestion.toolkit.clean.keys import hash_keys
from ingestion.toolkit.tabular.formats import read_span, split_file

data = b"id,v\\n1,a\\n2,{second}\\n"
span = split_file(lambda: io.BytesIO(data), len(data), name="a.csv", wanted=None, options={{}}, target_bytes=1 << 20)[0]
table = read_span(lambda: io.BytesIO(data), span, name="a.csv")
columns = [{{"name": "id", "type": "integer"}}, {{"name": "v", "type": "string", "pattern": "^[a-z]$"}}]
contract = ContractBody.model_validate({{"name": "a", "key": ["id"], "columns": columns}})
verdict = compile_contract(contract).check(table, run_id=1, part="0-0", is_file=True, cursor_field=None)
write_clean(verdict.clean, io.BytesIO())
write_rejected(verdict.rejected, io.BytesIO())
hash_keys(verdict.clean, contract.key)
print(verdict.counts.rejected, "pandas" in sys.modules)
"""


@pytest.mark.parametrize(("second", "rejected"), [("b", 0), ("?", 1)])
def test_a_csv_is_read_checked_and_written_without_pandas(second: str, rejected: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHECK.format(second=second)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.stdout.split() == [str(rejected), "False"], done.stderr
