"""deploy/runpod/ against what RunPod publishes: hub_test.py build/limner

Template and endpoint: `runpod_rest.json`, cut from the OpenAPI description of RunPod's REST API (v1, 2026-08). hub.json and
tests.json: the tables of the Hub's publishing guide. The jobs of tests.json are drawn, and the variables that the listing
offers are read by limner.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FILES = ROOT / "deploy" / "runpod"
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
CATEGORIES = {"audio", "embedding", "language", "video", "image"}
POOLS = {"AMPERE_16", "AMPERE_24", "ADA_24", "AMPERE_48", "ADA_48_PRO", "AMPERE_80", "ADA_80_PRO", "HOPPER_141"}


def read(name: str) -> dict:
    return json.loads((FILES / name).read_text())


def check(value, schema: dict, where: str) -> None:
    """The part of JSON Schema that the description uses; a field that it does not know is wrong, too."""
    assert isinstance(value, TYPES[schema["type"]]), f"{where}: want {schema['type']}"
    assert "enum" not in schema or value in schema["enum"], f"{where}: {value!r} is none of its values"
    assert value >= schema["minimum"] if "minimum" in schema else True, f"{where}: {value} is too small"
    if isinstance(value, list):
        for element in value:
            check(element, schema["items"], where)
    if "properties" in schema:
        for name in schema.get("required", []):
            assert name in value, f"{where}: no {name}"
        for name, field in value.items():
            assert name in schema["properties"], f"{where}: there is no {name}"
            check(field, schema["properties"][name], f"{where}.{name}")


def template_and_endpoint() -> None:
    described = json.loads((HERE / "runpod_rest.json").read_text())
    check(read("template.json"), described["TemplateCreateInput"], "template")
    check(read("endpoint.json"), described["EndpointCreateInput"], "endpoint")


def listing() -> None:
    hub = read("hub.json")
    assert hub["title"] and hub["description"] and hub["type"] == "serverless" and hub["category"] in CATEGORIES
    config = hub["config"]
    assert config["runsOn"] == "GPU" and isinstance(config["containerDiskInGb"], int)
    assert isinstance(config["gpuCount"], int) and set(config["gpuIds"].split(",")) <= POOLS
    for variable in config["env"]:
        assert set(variable) == {"key", "input"}, variable
        field = variable["input"]
        assert field["name"] and field["description"] and isinstance(field["default"], TYPES[field["type"]]), variable
        if "options" in field:
            assert field["default"] in [option["value"] for option in field["options"]], variable
    keys = [variable["key"] for variable in config["env"]]
    for preset in config["presets"]:
        assert preset["name"] and set(preset["defaults"]) <= set(keys), preset
    compile((FILES / "handler.py").read_text(), "handler.py", "exec")


def variables_are_read(limner: pathlib.Path) -> None:
    offered = {variable["key"]: str(variable["input"]["default"]) for variable in read("hub.json")["config"]["env"]}
    offered |= read("template.json")["env"]
    # The entry script's own.
    offered = {name: value for name, value in offered.items() if not name.startswith("LIMNER_RELEASE_")}
    done = subprocess.run([limner, "config", "check"], env=os.environ | offered, capture_output=True, text=True,
                          cwd=tempfile.gettempdir())
    assert done.returncode == 0 and "LIMNER_" not in done.stdout + done.stderr, done.stdout + done.stderr


def jobs_are_drawn(limner: pathlib.Path) -> None:
    tests = read("tests.json")
    variables = os.environ | {variable["key"]: variable["value"] for variable in tests["config"]["env"]}
    with tempfile.TemporaryDirectory() as folder:
        for test in tests["tests"]:
            assert test["name"] and test["timeout"] >= 1000, test
            done = subprocess.run([limner, "runpod", "--data-dir", folder, "--test-input",
                                   json.dumps({"input": test["input"]})], env=variables, capture_output=True, text=True,
                                  cwd=ROOT, timeout=test["timeout"] / 1000)
            assert done.returncode == 0, f"{test['name']}: {done.stdout[-500:]}{done.stderr[-500:]}"
            answer = json.loads(done.stdout.strip().splitlines()[-1])
            assert "error" not in answer and answer["output"], test["name"]


def main() -> int:
    limner = pathlib.Path(sys.argv[1]).resolve()
    template_and_endpoint()
    listing()
    variables_are_read(limner)
    jobs_are_drawn(limner)
    print("the files of deploy/runpod are as RunPod describes them, and its jobs are drawn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
