"""docs/runpod/*.schema.json take and refuse the inputs of inputs.json, as src/runpod/job_input_test.cpp holds the worker to.

Wants jsonschema from PyPI, in .cache/schema-venv; exits with 77 (skipped) when it cannot be had.
"""

import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))
from python_packages import use_packages  # noqa: E402


def main() -> int:
    use_packages("schema-venv", ["jsonschema==4.26.0"])
    import jsonschema
    inputs, wrong = json.loads((HERE / "inputs.json").read_text()), []
    schemas = {kind: json.loads((ROOT / f"docs/runpod/{kind}.schema.json").read_text()) for kind in inputs}
    for kind, schema in schemas.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        for outcome, given in inputs[kind].items():
            wrong += [f"{kind}: should be {outcome}: {json.dumps(one)}" for one in given
                      if validator.is_valid(one) != (outcome == "accepted")]
    # The document's own jobs: those that are drawn fit a schema.
    for job, answer in re.findall(r"-->\n```json\n(.*?)```\n```json\n(.*?)```", (ROOT / "docs/runpod.md").read_text(), re.DOTALL):
        given, drawn = json.loads(job)["input"], "output" in json.loads(answer)
        fits = any(jsonschema.Draft202012Validator(schema).is_valid(given) for schema in schemas.values())
        if drawn and not fits and "unknown_fields" not in answer:
            wrong.append(f"docs/runpod.md: no schema takes {json.dumps(given)}")
    print("\n".join(wrong) or f"{sum(len(one) for kind in inputs.values() for one in kind.values())} inputs agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
