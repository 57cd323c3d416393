import json
import subprocess
import sys

import typer
from typer.testing import CliRunner

from dlcli.cli.schema import schema


def test_schema_prints_one_json_object():
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(schema)
    result = CliRunner().invoke(app)
    assert result.exit_code == 0 and result.stderr == ""
    found = json.loads(result.stdout)
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert found["required"] == ["task", "dataset", "architecture"]
    assert found["additionalProperties"] is False


def test_schema_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from dlcli.cli.schema import schema\n"
        "assert not {'pydantic', 'rich', 'yaml'} & set(sys.modules)\n"
        "schema()\n"
        "assert not {'keras', 'tensorflow', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
