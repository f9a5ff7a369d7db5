"""The public types are part of the product: a user's code checks, and a user's mistakes are found."""

from pathlib import Path

from mypy import api

HERE = Path(__file__).parent


def check(name: str) -> tuple[str, int]:
    output, _, status = api.run(["--strict", "--no-error-summary", "--config-file=", str(HERE / name)])
    return output, status


def test_a_users_code_checks_strictly() -> None:
    output, status = check("user_code.py")
    assert status == 0, output


def test_a_users_mistakes_are_found() -> None:
    lines = (HERE / "user_mistakes.py").read_text(encoding="utf-8").splitlines()
    marked = {number for number, line in enumerate(lines, 1) if line.endswith("# error")}
    output, _ = check("user_mistakes.py")
    found = {int(line.split(":")[1]) for line in output.splitlines() if ": error:" in line}
    assert found == marked, output
