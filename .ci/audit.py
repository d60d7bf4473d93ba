"""What is known against the pinned dependencies, by pip-audit.

    python .ci/audit.py constraints.txt [OPTION OF PIP-AUDIT ..]

Exit code 0: nothing is known. 1: something is. 3: not known, because the advisory service did not
answer, or not for all of them. pip-audit itself passes over what the service does not know.
"""

import json
import subprocess
import sys
from typing import Any

FOUND, UNKNOWN = 1, 3


def audit(file: str, *options: str) -> int:
    # The pins are the whole closure, so nothing is resolved or installed.
    given = ["--requirement", file, "--no-deps", "--disable-pip", "--format", "json", *options]
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", *given]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        audited: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"{file}: not audited, nothing is known: {reason}")
        return UNKNOWN
    skipped = [one["name"] for one in audited if "skip_reason" in one]
    found = [(one, weakness) for one in audited for weakness in one.get("vulns", ())]
    for one, weakness in found:
        fixed = ", ".join(weakness["fix_versions"]) or "no version yet"
        print(f"{one['name']} {one['version']}: {weakness['id']}, fixed in {fixed}")
    if skipped:
        print(
            f"{file}: {len(skipped)} of {len(audited)} not audited, nothing is known of them: the "
            "advisory service cannot be reached, or does not have them"
        )
    if found:
        return FOUND
    if not skipped:
        print(f"{file}: nothing is known against {len(audited)} dependencies")
    return UNKNOWN if skipped else 0


if __name__ == "__main__":
    sys.exit(audit(*sys.argv[1:]))
